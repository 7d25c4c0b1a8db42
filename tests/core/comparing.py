"""Comparing representations, for tests of the encoder."""

from __future__ import annotations

import numpy as np
import pytest

from m3_core import Representations

ALL = {"return_sparse": True, "return_colbert_vecs": True}


def assert_close(ours: Representations, reference: tuple, tolerance: float = 1e-5) -> None:
    dense, weights, colbert = reference
    assert not weights or sum(map(len, weights)) > len(weights)
    np.testing.assert_allclose(ours.dense_vecs, dense, atol=tolerance)
    for mine, theirs in zip(ours.lexical_weights or [], weights, strict=True):
        assert mine.keys() == theirs.keys()
        assert mine == pytest.approx(theirs, abs=tolerance)
    for mine, theirs in zip(ours.colbert_vecs or [], colbert, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=tolerance)


def same(left: Representations, right: Representations, tolerance: float = 1e-5) -> bool:
    return (
        np.allclose(left.dense_vecs, right.dense_vecs, atol=tolerance)
        and np.allclose(left.colbert_vecs.vectors, right.colbert_vecs.vectors, atol=tolerance)
        and np.array_equal(left.lexical_weights.token_ids, right.lexical_weights.token_ids)
        and np.allclose(left.lexical_weights.weights, right.lexical_weights.weights, atol=tolerance)
    )
