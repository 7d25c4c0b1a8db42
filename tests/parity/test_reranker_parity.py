"""Our rerankers against FlagEmbedding's on random checkpoints: the same ids, the same scores.

The stored values are written by ``record_rerankers.py`` with FlagEmbedding 1.4.2 (MIT licence) and
transformers 4.46.0, whose ``prepare_for_model`` joins and cuts ids.
"""

import importlib.util
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from m3_core import Reranker
from m3_core.network import TruncationWarning
from m3_core.network.tokens import Tokenizer
from m3_core.rerankers.pairs import encode_pairs, encoder_layout
from m3_core.testing.rerankers import tiny_reranker

_spec = importlib.util.spec_from_file_location(
    "record_rerankers", Path(__file__).parent / "record_rerankers.py"
)
recorder = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recorder)

STORED = json.loads(recorder.STORED.read_text(encoding="utf-8"))
CASES = [
    pytest.param(kind, number, id=f"{kind}-{number}")
    for kind in recorder.KINDS
    for number in range(len(recorder.SETTINGS[kind]))
]


@pytest.fixture(scope="module")
def rerankers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rerankers")
    return {
        kind: Reranker.from_pretrained(
            tiny_reranker(folder / kind, kind=kind), device="cpu", dtype="float32"
        )
        for kind in recorder.KINDS
    }


@pytest.fixture(autouse=True)
def _cutting_is_meant():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        yield


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_ids_are_those_of_prepare_for_model(rerankers, kind, number):
    stored = STORED[kind][number]
    reranker = rerankers[kind].with_options(**stored["setting"])
    tokens = reranker._encode(recorder.PAIRS, None, None).tokens
    for pair, ids, start, stop in zip(
        recorder.PAIRS, stored["ids"], tokens.offsets, tokens.offsets[1:], strict=False
    ):
        assert tokens.ids[start:stop].tolist() == ids, pair


def test_ids_with_the_real_tokenizer(real_tokenizer_folder):
    tokenizer = Tokenizer.from_folder(real_tokenizer_folder)
    queries, documents = zip(*recorder.REAL_PAIRS, strict=True)
    tokens = encode_pairs(
        tokenizer, encoder_layout(tokenizer), queries, documents, recorder.SHORT["max_length"]
    ).tokens
    for i, ids in enumerate(STORED["real-tokenizer"]):
        found = tokens.ids[tokens.offsets[i] : tokens.offsets[i + 1]].tolist()
        assert found == ids, recorder.REAL_PAIRS[i]


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_scores_are_flagembeddings(rerankers, kind, number):
    stored = STORED[kind][number]
    reranker = rerankers[kind].with_options(**stored["setting"])
    expected = np.atleast_2d(stored["scores"])
    scores = np.array(reranker.compute_layer_scores(recorder.PAIRS))
    np.testing.assert_allclose(scores, expected, atol=1e-4, rtol=0)
    assert reranker.compute_score(recorder.PAIRS) == pytest.approx(scores[-1], abs=2e-6)
