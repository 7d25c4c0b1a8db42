"""Shapes and types of results; FlagEmbedding's numbers are in tests/parity."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from m3_core.flagembedding import BGEM3FlagModel, FlagModel

# Neighbours in a batch may change the last bit of a matrix product.
assert_close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6)

QUERIES = ["What is BGE M3?", "Defination of BM25"]
DOCUMENTS = [
    "BGE M3 is an embedding model supporting dense retrieval, lexical matching and "
    "multi-vector interaction.",
    "BM25 is a bag-of-words retrieval function that ranks a set of documents based on the "
    "query terms appearing in each document",
]
ALL = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True}


def test_results_are_the_encoders(m3, reference):
    texts = [*DOCUMENTS, ""]
    found = m3.encode(texts, **ALL)
    expected = reference.encode_documents(texts, **ALL)
    np.testing.assert_allclose(found["dense_vecs"], expected.dense_vecs, atol=1e-6)
    for i in range(3):
        weights = {int(k): v for k, v in found["lexical_weights"][i].items()}
        assert weights == pytest.approx(expected.lexical_weights[i], abs=1e-6)
        np.testing.assert_allclose(found["colbert_vecs"][i], expected.colbert_vecs[i], atol=1e-6)


def test_lexical_weights_are_plain(m3):
    weights = m3.encode(DOCUMENTS, return_sparse=True)["lexical_weights"]
    assert [type(row) for row in weights] == [dict, dict]
    assert {type(key) for key in weights[0]} == {str}
    assert {type(value) for value in weights[0].values()} == {float}


def test_what_was_not_asked_for_is_none(m3):
    assert m3.encode(QUERIES)["lexical_weights"] is None
    found = m3.encode(QUERIES, return_dense=False, return_sparse=True)
    assert found["dense_vecs"] is None
    assert found["colbert_vecs"] is None
    with pytest.raises(ValueError, match="nothing to compute"):
        m3.encode(QUERIES, return_dense=False)


def test_flags_of_the_constructor_are_defaults(m3_path):
    model = BGEM3FlagModel(
        m3_path, use_fp16=False, devices="cpu", return_dense=False, return_sparse=True
    )
    for encode in (model.encode, model.encode_queries, model.encode_corpus):
        assert encode(QUERIES)["dense_vecs"] is None
        assert len(encode(QUERIES)["lexical_weights"]) == 2
        assert encode(QUERIES, return_sparse=False, return_dense=True)["lexical_weights"] is None


def test_a_single_text_comes_without_a_list(m3, bge):
    for encode in (m3.encode, m3.encode_queries, m3.encode_corpus):
        found, rows = encode(QUERIES[0], **ALL), encode(QUERIES[:1], **ALL)
        assert_close(found["dense_vecs"], rows["dense_vecs"][0])
        assert found["lexical_weights"] == rows["lexical_weights"][0]
        assert_close(found["colbert_vecs"], rows["colbert_vecs"][0])
    assert bge.encode(QUERIES[0]).shape == (32,)
    assert bge.encode_queries(QUERIES[0], convert_to_numpy=False).shape == (32,)


def test_no_texts_give_nothing(m3, bge):
    found = m3.encode([], **ALL)
    assert found["dense_vecs"].shape == (0, 32)
    assert (found["lexical_weights"], found["colbert_vecs"]) == ([], [])
    assert bge.encode([]).shape == (0, 32)
    assert bge.encode([], convert_to_numpy=False).shape == (0, 32)
    assert m3.compute_score([]) == []
    assert m3.convert_id_to_token([]) == []
    assert m3.compute_lexical_matching_score([], [{}]).shape == (0, 1)


@pytest.mark.parametrize("bad", [[None], [b"bytes"], None, 7])
def test_what_is_no_text_is_refused_also_with_an_instruction(m3, bad):
    with pytest.raises(TypeError):
        m3.encode(bad)
    with pytest.raises(TypeError):
        m3.encode(bad, instruction="Find: ")


def test_compute_score_applies_no_instruction_and_no_truncation(m3_path, m3):
    model = BGEM3FlagModel(
        m3_path,
        use_fp16=False,
        devices="cpu",
        query_instruction_for_retrieval="Find: ",
        truncate_dim=4,
    )
    assert model.encode(QUERIES)["dense_vecs"].shape == (2, 4)
    pairs = [(q, d) for q in QUERIES for d in DOCUMENTS]
    found, expected = model.compute_score(pairs), m3.compute_score(pairs)
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, abs=1e-6)


def test_compute_score_of_a_single_pair_gives_floats(m3):
    for pair in ((QUERIES[0], DOCUMENTS[0]), [QUERIES[0], DOCUMENTS[0]]):
        single, listed = m3.compute_score(pair), m3.compute_score([pair])
        assert single == {key: values[0] for key, values in listed.items()}


def test_compute_score_weights_and_the_other_scores(m3):
    query, document = QUERIES[0], DOCUMENTS[0]
    score = m3.compute_score([(query, document)], weights_for_different_modes=[0.4, 0.2, 0.5])
    q, d = m3.encode(query, **ALL), m3.encode(document, **ALL)
    dense = float(q["dense_vecs"] @ d["dense_vecs"])
    sparse = m3.compute_lexical_matching_score(q["lexical_weights"], d["lexical_weights"])
    colbert = float(m3.colbert_score(q["colbert_vecs"], d["colbert_vecs"]))
    assert score["dense"] == pytest.approx([dense], abs=1e-5)
    assert score["sparse"] == pytest.approx([sparse], abs=1e-5)
    assert score["colbert"] == pytest.approx([colbert], abs=1e-5)
    assert score["sparse+dense"] == pytest.approx([(0.2 * sparse + 0.4 * dense) / 0.6], abs=1e-5)
    total = 0.4 * dense + 0.2 * sparse + 0.5 * colbert
    assert score["colbert+sparse+dense"] == pytest.approx([total / 1.1], abs=1e-5)


def test_matching_scores_of_lists_are_a_matrix(m3):
    first, second = [{"a": 1.0, "b": 2.0}, {}], [{"b": 0.5}, {"a": 3.0, "b": 1.0}, {"c": 9.0}]
    found = m3.compute_lexical_matching_score(first, second)
    assert_close(found, [[1.0, 5.0, 0.0], [0.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="dict and list"):
        m3.compute_lexical_matching_score({}, [{}])


def test_ids_become_tokens(m3):
    weights = m3.encode("hello panda", return_sparse=True)["lexical_weights"]
    tokens = m3.convert_id_to_token(weights)
    assert set(tokens) <= {"hello", "panda"}
    assert m3.convert_id_to_token([weights]) == tokens
    assert m3.convert_id_to_token([weights, {}]) == [tokens, {}]


def test_colbert_score_takes_any_float_type(m3):
    q = np.array([[1.0, 0.0], [0.0, 1.0]], np.float16)
    d = np.array([[0.6, 0.8], [-1.0, 0.0]], np.float32)
    assert float(m3.colbert_score(q, d)) == pytest.approx(0.7)


def test_flag_model_gives_tensors_on_request(bge, bge_path):
    found = bge.encode(QUERIES, convert_to_numpy=False)
    assert isinstance(found, torch.Tensor)
    assert_close(found.numpy(), bge.encode(QUERIES))
    model = FlagModel(bge_path, use_fp16=False, devices="cpu", convert_to_numpy=False)
    assert isinstance(model.encode_corpus(DOCUMENTS), torch.Tensor)
    assert isinstance(model.encode_queries(QUERIES, convert_to_numpy=True), np.ndarray)


def test_tokens_stand_in_the_order_of_the_text(m3):
    # As FlagEmbedding's dictionaries, whose first entry is the first token with a weight.
    text = "water panda hello city water bear"
    weights = m3.encode(text, return_sparse=True)["lexical_weights"]
    ids = m3.encoder.model.tokenizer.encode([text], 64).ids.tolist()
    assert list(weights) == [str(i) for i in dict.fromkeys(ids) if str(i) in weights]
    assert list(weights) != sorted(weights, key=int)
    words = list(m3.convert_id_to_token(weights))
    assert words == [word for word in dict.fromkeys(text.split()) if word in words]
