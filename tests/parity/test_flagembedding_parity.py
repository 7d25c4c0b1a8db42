"""Our numbers against FlagEmbedding's own, recorded by record.py on the same random weights."""

from __future__ import annotations

import json
import runpy
import zlib
from pathlib import Path

import numpy as np
import pytest

from m3_core.encoder.encoder import Encoder
from m3_core.flagembedding import BGEM3FlagModel, FlagModel
from m3_core.network import TruncationWarning
from m3_core.testing import tiny_checkpoint

HERE = Path(__file__).parent
TOLERANCE = 1e-5
RECORD = runpy.run_path(str(HERE / "record.py"))
META = json.loads((HERE / "flagembedding.json").read_text(encoding="utf-8"))["checkpoints"]
CHECKPOINTS = RECORD["CHECKPOINTS"]


class Case:
    """A checkpoint, its texts, and what FlagEmbedding gave for them."""

    def __init__(self, name, folder, arrays):
        options = CHECKPOINTS[name]
        self.pooling = options["pooling"]
        self.folder = tiny_checkpoint(folder / name, **options)
        self.texts = RECORD["texts_of"](options["kind"])
        self.meta = META[name]
        self.arrays = {
            key.partition("/")[2]: arrays[key] for key in arrays.files if key.startswith(name)
        }
        self.encoder = Encoder.from_pretrained(
            self.folder,
            device="cpu",
            dtype="float32",
            query_instruction="search the text: " if options["kind"] == "bge" else None,
        )

    @property
    def longer(self):
        return [
            text
            for text, length in zip(self.texts, self.meta["lengths"], strict=True)
            if length > RECORD["CUT"]
        ]


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    arrays = np.load(HERE / "flagembedding.npz")
    made = {}

    def case(name):
        if name not in made:
            made[name] = Case(name, tmp_path_factory.mktemp("parity"), arrays)
        return made[name]

    return case


@pytest.fixture(scope="module", params=["m3-cls", "m3-mean"])
def m3(request, cases):
    return cases(request.param)


@pytest.fixture(scope="module", params=["bge-cls", "bge-mean"])
def bge(request, cases):
    return cases(request.param)


@pytest.fixture(scope="module", params=list(CHECKPOINTS))
def case(request, cases):
    return cases(request.param)


@pytest.fixture(scope="module")
def m3_found(m3):
    return m3.encoder.encode_documents(m3.texts, return_sparse=True, return_colbert_vecs=True)


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_the_weights_are_those_of_the_recording(case):
    found = RECORD["summary"](case.folder)
    assert list(found) == list(case.meta["tensors"])
    for name, numbers in case.meta["tensors"].items():
        assert found[name] == pytest.approx(numbers, rel=1e-5, abs=1e-5), (
            f"{name} of {case.folder.name} is not as recorded: torch's random numbers or "
            "tiny_checkpoint have changed, and the other tests here say nothing; run record.py"
        )


def test_token_ids(case):
    batch = case.encoder.model.tokenizer.encode(case.texts, case.encoder.max_length)
    assert batch.lengths.tolist() == case.meta["lengths"]
    rows = np.split(batch.ids.astype("<i4"), batch.offsets[1:-1])
    assert [zlib.crc32(row.tobytes()) for row in rows] == case.meta["ids_crc32"]


def test_lengths_reach_from_specials_alone_to_the_models_limit(m3):
    assert (min(m3.meta["lengths"]), max(m3.meta["lengths"])) == (2, 8192)


def test_dense(m3, m3_found):
    assert_close(m3_found.dense_vecs, m3.arrays["dense"])


def test_lexical_weights(m3, m3_found):
    lexical = m3_found.lexical_weights
    ends = np.cumsum(m3.arrays["weight_counts"])
    assert len(lexical) == len(ends)
    assert ends[-1] > 300, "the random head weights too few tokens to compare: other seeds"
    for i, (end, count) in enumerate(zip(ends, m3.arrays["weight_counts"], strict=True)):
        ids, weights = (
            m3.arrays[name][end - count : end].tolist() for name in ("token_ids", "weights")
        )
        assert lexical[i] == pytest.approx(dict(zip(ids, weights, strict=True)), abs=TOLERANCE)


def test_multi_vectors(m3, m3_found):
    assert np.diff(m3_found.colbert_vecs.offsets).tolist() == [n - 1 for n in m3.meta["lengths"]]
    kept = [vectors[RECORD["kept_rows"](len(vectors))] for vectors in m3_found.colbert_vecs]
    assert_close(np.concatenate(kept), m3.arrays["colbert"])


@pytest.mark.parametrize("number", range(len(RECORD["WEIGHTS"])))
def test_compute_score(m3, number):
    pairs = [(m3.texts[a], m3.texts[b]) for a, b in RECORD["PAIRS"]]
    weights = RECORD["WEIGHTS"][number]
    found = m3.encoder.compute_score(pairs, weights=weights)
    model = BGEM3FlagModel(str(m3.folder), use_fp16=False, devices="cpu", pooling_method=m3.pooling)
    through_facade = model.compute_score(
        pairs,
        max_query_length=8192,
        max_passage_length=8192,
        weights_for_different_modes=weights,
    )
    expected = m3.meta["scores"][number]
    assert list(through_facade) == list(expected)
    for key, values in expected.items():
        assert_close(found[key], values)
        assert_close(through_facade[key], values)


def test_truncated_texts(case):
    with pytest.warns(TruncationWarning):
        found = case.encoder.encode_documents(case.longer, max_length=RECORD["CUT"])
    assert_close(found.dense_vecs, case.arrays["cut"])


def test_facade_of_m3(m3):
    model = BGEM3FlagModel(str(m3.folder), use_fp16=False, devices="cpu", pooling_method=m3.pooling)
    found = model.encode(m3.texts, max_length=8192, return_sparse=True, return_colbert_vecs=True)
    assert_close(found["dense_vecs"], m3.arrays["dense"])
    counts = m3.arrays["weight_counts"].tolist()
    assert [len(weights) for weights in found["lexical_weights"]] == counts
    keys = {key for weights in found["lexical_weights"] for key in weights}
    assert keys == set(map(str, m3.arrays["token_ids"].tolist()))
    kept = [vectors[RECORD["kept_rows"](len(vectors))] for vectors in found["colbert_vecs"]]
    assert_close(np.concatenate(kept), m3.arrays["colbert"])


def test_dense_models(bge):
    queries = [bge.texts[i] for i in bge.meta["queries"]]
    assert_close(bge.encoder.encode_documents(bge.texts).dense_vecs, bge.arrays["dense"])
    assert_close(bge.encoder.encode_queries(queries).dense_vecs, bge.arrays["queries"])
    assert np.abs(bge.arrays["queries"] - bge.arrays["dense"][bge.meta["queries"]]).max() > 0.01


def test_facade_of_dense_models(bge):
    model = FlagModel(
        str(bge.folder),
        use_fp16=False,
        devices="cpu",
        pooling_method=bge.pooling,
        query_instruction_for_retrieval="search the text: ",
    )
    queries = [bge.texts[i] for i in bge.meta["queries"]]
    assert_close(model.encode_corpus(bge.texts), bge.arrays["dense"])
    assert_close(model.encode_queries(queries), bge.arrays["queries"])
