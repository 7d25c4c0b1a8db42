from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3_core import LexicalWeights, MultiVectors, Representations

ROWS = st.lists(
    st.dictionaries(st.integers(0, 300_000), st.floats(2**-10, 1, width=32), max_size=5), max_size=6
)


@given(ROWS)
def test_lexical_weights_keep_every_row(rows: list[dict[int, float]]) -> None:
    weights = LexicalWeights.from_dicts(rows)
    assert list(weights) == [dict(sorted(row.items())) for row in rows]
    assert [type(k) for row in weights for k in row] == [int] * len(weights.token_ids)
    assert all(type(v) is float for row in weights for v in row.values())


@given(ROWS, st.data())
def test_slices_and_lists_of_rows_agree_with_python(rows: list, data: st.DataObject) -> None:
    weights = LexicalWeights.from_dicts(rows)
    part = data.draw(st.slices(len(rows)))
    assert list(weights[part]) == list(weights)[part]
    if rows:
        chosen = data.draw(st.lists(st.integers(-len(rows), len(rows) - 1), max_size=8))
        assert list(weights[chosen]) == [weights[i] for i in chosen]


def test_string_keys_and_scipy() -> None:
    weights = LexicalWeights.from_dicts([{"7": 0.5, "3": 0.25}, {}])
    assert weights[0] == {3: 0.25, 7: 0.5}
    assert weights[-1] == {}
    dense = weights.to_scipy(10).toarray()
    assert dense.shape == (2, 10)
    assert dense[0, 7] == 0.5
    assert weights.to_scipy().shape == (2, 8)
    with pytest.raises(IndexError, match="row 2 asked for, there are 2"):
        weights[2]
    with pytest.raises(IndexError):
        weights[[5]]


@pytest.mark.parametrize(
    ("token_ids", "weights", "offsets", "words"),
    [
        ([1, 2], [0.5], [0, 1], "equal length"),
        ([1], [0.5], [0, 2], "must run from 0"),
        ([1], [0.5], [1, 1], "must run from 0"),
        ([1, 2], [0.5, 0.5], [0, 2, 1, 2], "never decrease"),
        ([1], [0.5], [], "must run from 0"),
    ],
)
def test_inconsistent_arrays_are_refused(
    token_ids: list, weights: list, offsets: list, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        LexicalWeights(token_ids, weights, offsets)


def test_multi_vectors_are_views_and_slices() -> None:
    rows = [np.full((n, 2), n, np.float32) for n in (1, 0, 3)]
    vectors = MultiVectors.from_arrays(rows)
    assert [len(row) for row in vectors] == [1, 0, 3]
    assert np.shares_memory(vectors[2], vectors.vectors)
    assert np.shares_memory(vectors[1:].vectors, vectors.vectors)
    assert [row.tolist() for row in vectors[[2, 0]]] == [rows[2].tolist(), rows[0].tolist()]
    assert len(vectors[3:]) == 0
    half = MultiVectors(np.zeros((2, 2), np.float16), [0, 2])
    assert half.vectors.dtype == np.float16
    with pytest.raises(ValueError, match="shape"):
        MultiVectors(np.zeros(4), [0, 4])
    with pytest.raises(ValueError, match="at least one"):
        MultiVectors.from_arrays([])


def test_representations_check_slice_and_concatenate() -> None:
    full = Representations(
        dense_vecs=np.arange(6).reshape(3, 2),
        lexical_weights=LexicalWeights.from_dicts([{1: 0.5}, {}, {2: 0.25}]),
        colbert_vecs=MultiVectors(np.arange(8).reshape(4, 2), [0, 1, 2, 4]),
    )
    assert full.dense_vecs.dtype == np.float32
    again = Representations.concatenate([full[:1], full[1], full[[-1]]])
    np.testing.assert_array_equal(again.dense_vecs, full.dense_vecs)
    assert list(again.lexical_weights) == list(full.lexical_weights)
    np.testing.assert_array_equal(again.colbert_vecs.vectors, full.colbert_vecs.vectors)
    np.testing.assert_array_equal(again.colbert_vecs.offsets, full.colbert_vecs.offsets)
    assert full[[2, 0]].dense_lists() == [[4.0, 5.0], [0.0, 1.0]]
    with pytest.raises(IndexError):
        full[3]
    with pytest.raises(ValueError, match="different numbers of texts"):
        Representations(np.zeros((2, 2)), LexicalWeights.from_dicts([{}]))
    with pytest.raises(ValueError, match="at least one of its three parts"):
        Representations()
    with pytest.raises(ValueError, match="hold different representations"):
        Representations.concatenate([full, Representations(full.dense_vecs)])
    with pytest.raises(ValueError, match="not encoded"):
        Representations(lexical_weights=full.lexical_weights).dense_lists()


def test_reprs_are_one_short_line() -> None:
    reps = Representations(
        np.zeros((3, 1024)),
        LexicalWeights.from_dicts([{1: 0.5, 2: 1.0}, {}, {2: 0.25}]),
        MultiVectors(np.zeros((4, 1024)), [0, 1, 2, 4]),
    )
    assert repr(reps) == (
        "Representations(texts=3, dense_vecs=array(3, 1024), "
        "lexical_weights=LexicalWeights(texts=3, entries=3), "
        "colbert_vecs=MultiVectors(texts=3, shape=(4, 1024)))"
    )
    assert repr(Representations(np.zeros((1, 8)))) == (
        "Representations(texts=1, dense_vecs=array(1, 8))"
    )


def test_wrong_rows_and_keys_say_what_is_wanted() -> None:
    reps = Representations(np.zeros((1, 2)), LexicalWeights.from_dicts([{7: 0.5}]))
    with pytest.raises(TypeError, match="attributes dense_vecs, lexical_weights and colbert_vecs"):
        reps["dense_vecs"]
    for wrong in (["bamboo"], reps, {7: 0.5}, [reps.lexical_weights], [None]):
        with pytest.raises(TypeError, match=r"\{token id: weight\}, as reps.lexical_weights\[0\]"):
            LexicalWeights.from_dicts(wrong)
    with pytest.raises(ValueError, match=r"token id: weight.*'bamboo'"):
        LexicalWeights.from_dicts([{"bamboo": 0.5}])
