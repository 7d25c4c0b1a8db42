from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3_core.collection import vectors
from m3_core.collection.vectors import DenseRows, MultiRows
from m3_core.representations import MultiVectors

DIM = 5


@settings(max_examples=60)
@given(
    batches=st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=9), min_size=1, max_size=5),
    chosen=st.sets(st.integers(0, 44), min_size=1),
    block=st.sampled_from([1, 4, 4096]),
    piece=st.sampled_from([0, 100, 1 << 24]),
    seed=st.integers(0, 9),
)
def test_multi_vector_rows_are_the_loop_over_rows(batches, chosen, block, piece, seed) -> None:
    random = np.random.default_rng(seed)
    pieces, held = [], []
    for lengths in batches:
        arrays = [random.standard_normal((n, DIM)).astype(np.float16) for n in lengths]
        pieces.append(MultiVectors.from_arrays(arrays))
        held += arrays
    rows = MultiRows(tuple(pieces))
    query = random.standard_normal((3, DIM)).astype(np.float32)
    asked = np.array(sorted({row % len(held) for row in chosen}))
    expected = [
        (query.astype(np.float64) @ held[row].T).max(1).mean() if len(held[row]) else 0.0
        for row in asked
    ]
    alive = np.isin(np.arange(len(held)), asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "BLOCK_VECTORS", block)
        patch.setattr(vectors, "JOINED_BYTES", piece)
        np.testing.assert_allclose(rows.scores(query, asked), expected, atol=1e-5)
        left = rows.compacted(alive)
        np.testing.assert_allclose(left.scores(query, np.arange(len(asked))), expected, atol=1e-5)
        assert len(left.pieces) == 1 or piece < 1 << 24
    assert rows.scores(query[:0], asked[:1] * 0).tolist() == [0.0]


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    chosen=st.sets(st.integers(0, 44), min_size=1),
    piece=st.sampled_from([0, 100, 1 << 24]),
)
def test_dense_rows_are_one_matrix(sizes, chosen, piece) -> None:
    whole = np.random.default_rng(0).standard_normal((sum(sizes), DIM)).astype(np.float32)
    bounds = np.cumsum([0, *sizes])
    rows = DenseRows.of([whole[a:b] for a, b in pairwise(bounds)])
    asked = np.array(sorted({row % len(whole) for row in chosen}))
    query = np.ones(DIM, np.float32)
    np.testing.assert_allclose(rows.scores(query, asked), whole[asked] @ query, atol=1e-5)
    every = np.arange(len(whole))
    np.testing.assert_allclose(rows.scores(query, every), whole @ query, atol=1e-5)
    np.testing.assert_array_equal(rows.take(asked[::-1].tolist()), whole[asked[::-1]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "JOINED_BYTES", piece)
        left = rows.compacted(np.isin(every, asked))
    np.testing.assert_array_equal(np.concatenate(left.pieces), whole[asked])
    assert not rows.are_units
    assert DenseRows.of([np.eye(DIM, dtype=np.float32)]).are_units
