from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3_core.collection import vectors
from m3_core.collection.vectors import MultiVectorRows, RowIds, VectorRows
from m3_core.lexical_index.index import LexicalIndex
from m3_core.representations import MultiVectors

DIM = 5


@settings(max_examples=60)
@given(
    batches=st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=9), min_size=1, max_size=5),
    chosen=st.sets(st.integers(0, 44), min_size=1),
    block=st.sampled_from([1, 4, 4096]),
    seed=st.integers(0, 9),
)
def test_multi_vector_rows_are_the_loop_over_rows(batches, chosen, block, seed) -> None:
    random = np.random.default_rng(seed)
    rows, held = MultiVectorRows(), []
    for lengths in batches:
        arrays = [random.standard_normal((n, DIM)).astype(np.float16) for n in lengths]
        rows.append(MultiVectors.from_arrays(arrays))
        held += arrays
    query = random.standard_normal((3, DIM)).astype(np.float32)
    asked = np.array(sorted({row % len(held) for row in chosen}))
    expected = [
        (query.astype(np.float64) @ held[row].T).max(1).mean() if len(held[row]) else 0.0
        for row in asked
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "BLOCK_VECTORS", block)
        np.testing.assert_allclose(rows.scores(query, asked), expected, atol=1e-5)
        rows.keep(asked)
        np.testing.assert_allclose(rows.scores(query, np.arange(len(asked))), expected, atol=1e-5)
    assert rows.scores(query[:0], asked[:1] * 0).tolist() == [0.0]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=60))
def test_rows_follow_their_ids_through_deletion_and_compaction(steps) -> None:
    ids, rows, lexical, held = RowIds(), VectorRows(), LexicalIndex(), {}
    for number, (is_added, key) in enumerate(steps):
        name = str(key)
        ids.delete([name])
        lexical.delete([name])
        held.pop(name, None)
        if is_added:
            held[name] = np.full(DIM, number + 1, np.float32)
            ids.add([name])
            rows.append(held[name][np.newaxis])
            lexical.add([name], [{number: 0.5, 1000: 1.0}])
        kept = ids.compact()
        if kept is not None and rows.width:
            rows.keep(kept)
    living = ids.living()
    assert ids.names(living.tolist()) == list(held) == lexical.ids
    assert ids.find([*held, "unknown"]).tolist() == living.tolist()
    if held:
        np.testing.assert_array_equal(rows.take(living), np.stack(list(held.values())))
        query = np.ones(DIM)
        for some in (living, living[:1]):
            np.testing.assert_allclose(rows.scores(query, some), rows.take(some) @ query)
    expected = [sum(lexical.get(one).values()) - 0.5 for one in held]
    np.testing.assert_allclose(lexical.score_all({1000: 1.0}), expected)
