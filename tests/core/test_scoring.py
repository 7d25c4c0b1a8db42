"""Scores against brute force in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3_core import LexicalWeights, MultiVectors, Representations, scoring
from m3_core.scoring import (
    dense_scores,
    hybrid_scores,
    lexical_scores,
    maxsim_scores,
    normalized_weights,
    pair_scores,
    reciprocal_rank_fusion,
)


def sample(seed: int, texts: int, dim: int = 4, *, empty: bool = False) -> Representations:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0 if empty else 1, 6, texts)
    vectors = rng.normal(size=(int(lengths.sum()), dim))
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    rows = [
        {int(t): float(w) for t, w in zip(rng.integers(0, 9, 4), rng.random(4), strict=True)}
        for _ in range(texts)
    ]
    return Representations(
        rng.normal(size=(texts, dim)),
        LexicalWeights.from_dicts(rows),
        MultiVectors(vectors.astype(np.float32), np.cumsum([0, *lengths])),
    )


def brute_maxsim(query: np.ndarray, document: np.ndarray) -> float:
    if not len(query) or not len(document):
        return 0.0
    similarities = query.astype(np.float64) @ document.astype(np.float64).T
    return float(similarities.max(1).mean())


def brute_lexical(query: dict[int, float], document: dict[int, float]) -> float:
    return sum(weight * document.get(token, 0.0) for token, weight in query.items())


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 5), st.integers(0, 9), st.integers(1, 40))
def test_scores_equal_brute_force(seed: int, queries: int, documents: int, block: int) -> None:
    q, d = sample(seed, queries, empty=True), sample(seed + 1, documents, empty=True)
    old, scoring.BLOCK_ELEMENTS = scoring.BLOCK_ELEMENTS, block
    try:
        colbert = maxsim_scores(q.colbert_vecs, d.colbert_vecs)
    finally:
        scoring.BLOCK_ELEMENTS = old
    expected = [[brute_maxsim(a, b) for b in d.colbert_vecs] for a in q.colbert_vecs]
    assert colbert.dtype == np.float32
    np.testing.assert_allclose(colbert, np.reshape(expected, colbert.shape), atol=1e-6)
    lexical = lexical_scores(q.lexical_weights, d.lexical_weights)
    expected = [[brute_lexical(a, b) for b in d.lexical_weights] for a in q.lexical_weights]
    np.testing.assert_allclose(lexical, np.reshape(expected, lexical.shape), atol=1e-6)
    dense = dense_scores(q.dense_vecs, d.dense_vecs)
    weights = (1.0, 0.3, 2.0)
    mixed = (weights[0] * dense + weights[1] * lexical + weights[2] * colbert) / sum(weights)
    np.testing.assert_allclose(hybrid_scores(q, d, weights), mixed, atol=1e-5)


def test_all_negative_similarities_are_not_beaten_by_padding() -> None:
    query = MultiVectors(np.array([[1.0, 0.0]]), [0, 1])
    documents = MultiVectors(np.array([[-1.0, 0.0], [-0.6, 0.8], [-1, 0]]), [0, 1, 3])
    np.testing.assert_allclose(maxsim_scores(query, documents), [[-1.0, -0.6]])


def test_float16_vectors_are_scored_in_float32() -> None:
    q, d = sample(3, 2).colbert_vecs, sample(4, 3).colbert_vecs
    half = MultiVectors(d.vectors.astype(np.float16), d.offsets)
    exact = MultiVectors(half.vectors.astype(np.float32), d.offsets)
    np.testing.assert_array_equal(maxsim_scores(q, half), maxsim_scores(q, exact))


@settings(max_examples=40)
@given(st.integers(0, 1000), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=9))
def test_pair_scores_are_entries_of_the_matrices(seed: int, pairs: list) -> None:
    q, d = sample(seed, 4), sample(seed + 1, 5)
    rows, columns = (np.array([pair[i] for pair in pairs], np.int64) for i in (0, 1))
    scores = pair_scores(q, d, rows, columns, (2.0, 1.0, 1.0))
    matrices = {
        "dense": dense_scores(q.dense_vecs, d.dense_vecs),
        "sparse": lexical_scores(q.lexical_weights, d.lexical_weights),
        "colbert": maxsim_scores(q.colbert_vecs, d.colbert_vecs),
        "colbert+sparse+dense": hybrid_scores(q, d, (2.0, 1.0, 1.0)),
    }
    matrices["sparse+dense"] = (2 * matrices["dense"] + matrices["sparse"]) / 3
    assert scores.keys() == matrices.keys()
    for key, matrix in matrices.items():
        np.testing.assert_allclose(scores[key], matrix[rows, columns], atol=1e-5)


def test_weights_that_mean_nothing_are_refused() -> None:
    assert normalized_weights((2, 1, 1)) == (0.5, 0.25, 0.25)
    for bad in ((0, 0, 0), (1, 1), (1, -1, 1), (np.nan, 1, 1), (np.inf, 1, 1)):
        with pytest.raises(ValueError, match="three numbers"):
            normalized_weights(bad)
    q = Representations(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="not encoded"):
        hybrid_scores(q, q, (1, 1, 0))
    assert hybrid_scores(q, q, (1, 0, 0)).tolist() == [[0.0]]
    with pytest.raises(ValueError, match="different models"):
        maxsim_scores(sample(1, 1).colbert_vecs, sample(1, 1, dim=3).colbert_vecs)


def test_reciprocal_rank_fusion_follows_the_formula() -> None:
    fused = dict(reciprocal_rank_fusion([["a", "b"], ["b", "c"]], k=10, weights=[2.0, 1.0]))
    assert fused == pytest.approx({"a": 2 / 11, "b": 2 / 12 + 1 / 11, "c": 1 / 12})
    assert reciprocal_rank_fusion([]) == []
    with pytest.raises(ValueError, match="as many weights"):
        reciprocal_rank_fusion([["a"]], weights=[1.0, 1.0])
    with pytest.raises(ValueError, match="negative"):
        reciprocal_rank_fusion([["a"]], k=-1)


def test_wholes_and_plain_values_are_answered_with_what_to_pass() -> None:
    reps = sample(1, 2)
    for score, part in (
        (dense_scores, "dense_vecs"),
        (lexical_scores, "lexical_weights"),
        (maxsim_scores, "colbert_vecs"),
    ):
        with pytest.raises(TypeError, match=rf"{score.__name__}\(queries.{part}, documents.{part}"):
            score(reps, reps)
    with pytest.raises(TypeError, match="from_dicts"):
        lexical_scores([{1: 0.5}], reps.lexical_weights)
    with pytest.raises(TypeError, match="from_arrays"):
        maxsim_scores(np.zeros((2, 4)), reps.colbert_vecs)


def test_hits_are_no_rankings() -> None:
    for score in (0.5, np.float32(0.5)):
        with pytest.raises(TypeError, match="leave the scores out"):
            reciprocal_rank_fusion([[("a", score)], [("a", 0.25)]])
    pairs = [("de", 7), ("en", 7)]
    assert [name for name, _ in reciprocal_rank_fusion([pairs, pairs])] == pairs
