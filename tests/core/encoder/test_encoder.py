from __future__ import annotations

import copy
import json
import pickle
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import make_text
from tests.core.comparing import ALL, assert_close, same
from tests.core.reference import Reference

from m3_core import Encoder, Representations
from m3_core.errors import MissingRepresentationError, UnsupportedModelError
from m3_core.network import TruncationWarning
from m3_core.network.memory import TokenBudget
from m3_core.testing import tiny_checkpoint
from m3_core.testing.rerankers import tiny_reranker

LENGTHS = [0, 1, 2, 3, 5, 5, 5, 17, 40, 90, 200]


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_equals_the_padded_forward(tmp_path: Path, pooling: str) -> None:
    folder = tiny_checkpoint(tmp_path, pooling=pooling, seed=3)
    texts = [make_text(i, n) for i, n in enumerate(LENGTHS)]
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype="float32")
    assert encoder.options.pooling == pooling
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        ours = encoder.encode_documents(texts, max_length=100, **ALL)
    assert_close(ours, Reference(folder, pooling).encode(texts, 100))


def test_equals_the_padded_forward_on_bert(tiny_bge: Path) -> None:
    texts = [make_text(i, n) for i, n in enumerate(LENGTHS)]
    encoder = Encoder.from_pretrained(tiny_bge, device="cpu", dtype="float32")
    ours = encoder.encode_documents(texts)
    dense, _, _ = Reference(tiny_bge, "cls").encode(texts, 512)
    np.testing.assert_allclose(ours.dense_vecs, dense, atol=1e-5)
    assert encoder.representations == {"dense"}


def test_padding_tokens_inside_a_text_take_no_position(encoder: Encoder, tiny_m3: Path) -> None:
    texts = ["panda <pad> bear", "<pad><pad>", "<mask> river"]
    assert_close(
        encoder.encode_documents(texts, **ALL), Reference(tiny_m3, "cls").encode(texts, 99)
    )


@settings(max_examples=25)
@given(st.data())
def test_results_do_not_depend_on_neighbours_order_or_budget(
    encoder: Encoder, data: st.DataObject
) -> None:
    numbers = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=12))
    texts = [make_text(n, n) for n in numbers]
    budget = data.draw(st.integers(1, 300))
    alone = Representations.concatenate([encoder.encode_documents([t], **ALL) for t in texts])
    engine = encoder.model.engine
    old, engine.budget = engine.budget, TokenBudget(budget)
    try:
        together = encoder.encode_documents(texts, **ALL)
    finally:
        engine.budget = old
    assert same(together, alone)


def test_threads_with_mixed_lengths_get_the_serial_results(encoder: Encoder) -> None:
    texts = [make_text(i, i % 23) for i in range(250)]
    limits = [5, 8, 13, 100]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        expected = {n: encoder.encode_documents(texts, max_length=n, **ALL) for n in limits}
        failed: list[int] = []

        def work(limit: int) -> None:
            result = encoder.encode_documents(texts, max_length=limit, **ALL)
            if not same(result, expected[limit]):
                failed.append(limit)

        threads = [threading.Thread(target=work, args=(limit,)) for limit in limits * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []


def test_instructions_go_before_texts(tiny_m3: Path) -> None:
    encoder = Encoder.from_pretrained(tiny_m3, query_instruction="q: ", document_instruction="d: ")
    plain = encoder.with_options(query_instruction="", document_instruction="")
    expected = plain.encode_queries(["q: panda", "d: panda"]).dense_vecs
    np.testing.assert_allclose(
        encoder.encode_queries(["panda"]).dense_vecs, expected[:1], atol=1e-6
    )
    documents = encoder.encode_documents(["panda"]).dense_vecs
    np.testing.assert_allclose(documents, expected[1:], atol=1e-6)
    assert "query_instruction='q: ', document_instruction='d: '" in repr(encoder)


def test_prompts_of_the_checkpoint_are_used_and_switched_off(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "own")
    prompts = {"prompts": {"query": "query: ", "passage": "passage: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    encoder = Encoder.from_pretrained(folder)
    assert (encoder.query_instruction, encoder.document_instruction) == ("query: ", "passage: ")
    off = Encoder.from_pretrained(folder, query_instruction="", document_instruction="")
    assert (off.query_instruction, off.document_instruction) == ("", "")


def test_a_bge_copy_gets_its_instruction(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "bge-base-en-v1.5", kind="bge")
    encoder = Encoder.from_pretrained(folder)
    assert encoder.query_instruction == "Represent this sentence for searching relevant passages: "
    assert (encoder.document_instruction, encoder.max_length) == ("", 512)


def test_truncate_dim_comes_before_normalising(encoder: Encoder) -> None:
    short = encoder.with_options(truncate_dim=8)
    whole = encoder.with_options(normalize=False).encode_documents(["panda bear"], **ALL)
    cut = short.encode_documents(["panda bear"], **ALL)
    expected = whole.dense_vecs[:, :8] / np.linalg.norm(whole.dense_vecs[:, :8])
    np.testing.assert_allclose(cut.dense_vecs, expected, atol=1e-6)
    vectors = whole.colbert_vecs[0][:, :8]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(cut.colbert_vecs[0], vectors, atol=1e-6)
    assert short.dimension == 8
    for bad in (0, 33):
        with pytest.raises(ValueError, match="vectors have 32 values"):
            encoder.with_options(truncate_dim=bad)


def test_mcls_averages_the_states_of_cls_tokens(encoder: Encoder, tiny_m3: Path) -> None:
    text = make_text(3, 700)
    ours = encoder.encode_documents([text, "panda"], mcls=True, **ALL)
    plain = encoder.encode_documents(["panda"])
    np.testing.assert_allclose(ours.dense_vecs[1], plain.dense_vecs[0], atol=1e-6)
    reference = Reference(tiny_m3, "cls")
    body = reference.tokenizer.encode(text, add_special_tokens=False).ids
    row = [t for i in range(0, len(body), 256) for t in (0, *body[i : i + 256])] + [2]
    assert row.count(0) > 2
    with torch.inference_mode():
        states = reference.model(input_ids=torch.tensor([row])).last_hidden_state[0]
    markers = torch.tensor([token == 0 for token in row])
    pooled = states[markers].mean(0)
    np.testing.assert_allclose(ours.dense_vecs[0], pooled / pooled.norm(), atol=1e-5)
    assert len(ours.colbert_vecs[0]) == len(body) + 1
    head = reference.heads["colbert"]
    vectors = states[~markers] @ head["weight"].T + head["bias"]
    vectors /= vectors.norm(dim=-1, keepdim=True)
    np.testing.assert_allclose(ours.colbert_vecs[0], vectors, atol=1e-5)


def test_mcls_needs_cls_pooling(tiny_mean: Path) -> None:
    encoder = Encoder.from_pretrained(tiny_mean)
    with pytest.raises(ValueError, match="pools 'mean'"):
        encoder.encode_documents(["a"], mcls=True)


def test_cut_texts_are_warned_of_once(encoder: Encoder) -> None:
    with pytest.warns(
        TruncationWarning, match="2 of 3 texts were longer than max_length=6"
    ) as seen:
        encoder.encode_documents([make_text(1, 20), "a", make_text(2, 30)], max_length=6)
    assert len(seen) == 1
    assert Path(seen[0].filename).name == Path(__file__).name


def test_empty_input_gives_empty_output(encoder: Encoder) -> None:
    empty = encoder.encode_documents([], **ALL)
    assert empty.dense_vecs.shape == (0, 32)
    assert list(empty.lexical_weights) == []
    assert empty.colbert_vecs.vectors.shape == (0, 32)
    assert encoder.encode_documents(iter(["", " "]), **ALL).lexical_weights[0] == {}
    assert all(value == [] for value in encoder.compute_score([]).values())


def test_bad_calls_say_what_is_wrong(encoder: Encoder, tiny_dense: Path) -> None:
    with pytest.raises(ValueError, match="nothing to compute"):
        encoder.encode_documents(["a"], return_dense=False)
    with pytest.raises(TypeError, match="text 1 is of type NoneType"):
        encoder.encode_queries(["a", None])
    with pytest.raises(TypeError, match="wrap a single text"):
        encoder.encode_queries("a")
    for limit in (2, 8193):
        with pytest.raises(ValueError, match="from 3 to 8192"):
            encoder.encode_documents(["a"], max_length=limit)
    dense = Encoder.from_pretrained(tiny_dense)
    with pytest.raises(MissingRepresentationError, match="colbert and sparse asked for"):
        dense.encode_documents(["a"], **ALL)
    with pytest.raises(MissingRepresentationError):
        dense.compute_score([("a", "b")])
    with pytest.raises(ValueError, match="none of 'cls'"):
        Encoder.from_pretrained(tiny_dense, pooling="max")
    for name in ("BAAI/bge-m3", tiny_dense):
        with pytest.raises(TypeError, match=r"by its name with Encoder\.from_pretrained"):
            Encoder(name)
    for method in ("encode", "embed_documents", "convert_id_to_token"):
        with pytest.raises(AttributeError, match=r"use |M3Embeddings"):
            getattr(encoder, method)


def test_a_reranker_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"Reranker\.from_pretrained"):
        Encoder.from_pretrained(tiny_reranker(tmp_path / "fine-tuned"))


def test_compute_score_encodes_each_text_once(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    compute = encoder.model.network.compute
    monkeypatch.setattr(
        encoder.model.network,
        "compute",
        lambda batch, tasks: counted.append(len(batch.lengths)) or compute(batch, tasks),
    )
    pairs = [("panda", "bear river"), ("panda", "мир"), ("city", "мир"), ("panda", "bear river")]
    scores = encoder.compute_score(pairs, weights=(0.4, 0.2, 0.4))
    assert counted == [2, 2]
    assert all(len(values) == 4 and type(values[0]) is float for values in scores.values())
    one = encoder.compute_score(pairs[1:2], weights=(0.4, 0.2, 0.4))
    for key, values in one.items():
        assert scores[key][1] == pytest.approx(values[0], abs=1e-6)
    mixed = [
        0.4 * d + 0.2 * s + 0.4 * c
        for d, s, c in zip(scores["dense"], scores["sparse"], scores["colbert"], strict=True)
    ]
    assert scores["colbert+sparse+dense"] == pytest.approx(mixed, abs=1e-6)


def test_decode_weights(encoder: Encoder) -> None:
    token = encoder.model.tokenizer._raw.token_to_id
    weights = {token("▁panda"): 0.5, str(token("panda")): 0.25, token("世"): 1.0}
    assert encoder.decode_weights(weights) == {"panda": 0.5, "世": 1.0}
    whole = encoder.encode_documents(["panda"], return_sparse=True).lexical_weights
    with pytest.raises(TypeError, match=r"reps.lexical_weights\[0\]"):
        encoder.decode_weights(whole)


def test_pickle_and_copy(encoder: Encoder) -> None:
    short = encoder.with_options(truncate_dim=8, query_instruction="q: ")
    again = pickle.loads(pickle.dumps(short))
    assert again.options == short.options
    left, right = (e.encode_queries(["panda"]).dense_vecs for e in (again, short))
    np.testing.assert_allclose(left, right, atol=1e-6)
    assert copy.deepcopy(short) is short
    assert copy.copy(short) is short


def test_tokens_are_counted_without_special_ones(encoder: Encoder) -> None:
    texts = ["panda bear", "", "river " * 3000]
    tokenised = encoder.model.tokenizer.encode(texts, 10**6)
    specials = int(tokenised.lengths[1])
    counts = encoder.count_tokens(texts)
    assert counts == [length - specials for length in tokenised.lengths.tolist()]
    limited = encoder.count_tokens(texts, 10)
    assert limited[:2] == counts[:2]
    assert limited[2] > 10
