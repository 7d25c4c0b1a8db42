"""Scores between queries and documents: short pure functions on the host.

All take the matching parts of two ``Representations`` and give one score for each query and
document, float32, shape (queries, documents). Nothing here imports torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.representations import LexicalWeights, MultiVectors, Representations
from m3_core.values import as_array, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from numpy.typing import ArrayLike, NDArray

# Similarities of single vectors held at a time: 64 MiB in float32.
BLOCK_ELEMENTS = 1 << 24

_WHOLE = "{0} takes that part of queries and documents: {0}(queries.{1}, documents.{1})"


def dense_scores(queries: ArrayLike, documents: ArrayLike) -> NDArray[np.float32]:
    """Inner products of dense vectors.

    Args:
        queries: Shape: (queries, dim).
        documents: Shape: (documents, dim).

    Returns:
        Shape: (queries, documents). Dtype: float32. Cosines, if the vectors have length 1.

    Raises:
        TypeError: Whole ``Representations`` are given.

    Example:
        >>> dense_scores([[1.0, 0.0]], [[0.6, 0.8], [0.0, 1.0]]).tolist()
        [[0.6000000238418579, 0.0]]
    """
    for part in (queries, documents):
        if isinstance(part, Representations):
            raise TypeError(_WHOLE.format("dense_scores", "dense_vecs"))
    asked = as_array(queries, np.float32, "queries")
    scores: NDArray[np.float32] = asked @ as_array(documents, np.float32, "documents").T
    return scores


def lexical_scores(queries: LexicalWeights, documents: LexicalWeights) -> NDArray[np.float32]:
    """Sums over shared token ids of the products of their weights.

    Source: M3-Embedding (arXiv 2402.03216, section 3.2), lexical retrieval.

    Args:
        queries: Weights of the queries.
        documents: Weights of the documents.

    Returns:
        Shape: (queries, documents). Dtype: float32. Not negative, not bounded, often small.

    Raises:
        TypeError: Something else is given.

    Example:
        >>> from m3_core.representations import LexicalWeights
        >>> q = LexicalWeights.from_dicts([{5: 0.5, 9: 0.25}])
        >>> d = LexicalWeights.from_dicts([{9: 1.0}, {}])
        >>> lexical_scores(q, d).tolist()
        [[0.25, 0.0]]
    """
    for part in (queries, documents):
        if not isinstance(part, LexicalWeights):
            hint = "; dictionaries become LexicalWeights by LexicalWeights.from_dicts([...])"
            raise TypeError(_WHOLE.format("lexical_scores", "lexical_weights") + hint)
    width = 1 + max(int(part.token_ids.max(initial=0)) for part in (queries, documents))
    product = queries.to_scipy(width) @ documents.to_scipy(width).T
    scores: NDArray[np.float32] = product.toarray().astype(np.float32, copy=False)
    return scores


def maxsim_scores(queries: MultiVectors, documents: MultiVectors) -> NDArray[np.float32]:
    """Late interaction: each query vector's best document vector, averaged over the query.

    Only real vectors take part, so no padding can win over negative similarities. Memory stays
    within a fixed block of similarities, whatever the number of documents.

    Source: M3-Embedding (arXiv 2402.03216, section 3.2), multi-vector retrieval.

    Args:
        queries: Vectors of the queries.
        documents: Vectors of the documents, of the same width.

    Returns:
        Shape: (queries, documents). Dtype: float32. In [-1, 1] for vectors of length 1; 0 where
        the query or the document has no vectors.

    Raises:
        TypeError: Something else is given.
        ValueError: The widths differ.

    Example:
        >>> from m3_core.representations import MultiVectors
        >>> q = MultiVectors([[1.0, 0.0], [0.0, 1.0]], [0, 2])
        >>> d = MultiVectors([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]], [0, 2, 3])
        >>> [round(score, 4) for score in maxsim_scores(q, d)[0].tolist()]
        [0.9, -0.5]
    """
    for part in (queries, documents):
        if not isinstance(part, MultiVectors):
            hint = "; arrays become MultiVectors by MultiVectors.from_arrays([...])"
            raise TypeError(_WHOLE.format("maxsim_scores", "colbert_vecs") + hint)
    if queries.vectors.shape[1] != documents.vectors.shape[1]:
        raise ValueError(
            f"query vectors have {queries.vectors.shape[1]} values and document vectors "
            f"{documents.vectors.shape[1]}: they come from different models"
        )
    scores = np.zeros((len(queries), len(documents)), np.float32)
    for first_query, last_query in _blocks(queries.offsets, 1 << 12):
        part = queries[first_query:last_query]
        columns = np.ascontiguousarray(part.vectors.T, np.float32)
        rows_at_once = max(BLOCK_ELEMENTS // max(columns.shape[1], 1), 1)
        for first, last in _blocks(documents.offsets, rows_at_once):
            block = documents[first:last]
            scores[first_query:last_query, first:last] = maxsim_of(
                np.asarray(block.vectors, np.float32) @ columns, part.offsets, block.offsets
            )
    return scores


def maxsim_of(
    similarities: NDArray[np.float32],
    query_offsets: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Make scores of similarities; all that score multi-vectors call it.

    Args:
        similarities: Of all documents' vectors with all queries'. Shape: (vectors, query vectors).
        query_offsets: Query i has the columns from ``query_offsets[i]`` on. Shape: (queries + 1,).
        offsets: Document i has the rows from ``offsets[i]`` on. Shape: (documents + 1,).

    Returns:
        As ``maxsim_scores``. Shape: (queries, documents). Dtype: float32.
    """
    lengths, query_lengths = np.diff(offsets), np.diff(query_offsets)
    scores = np.zeros((len(query_lengths), len(lengths)), np.float32)
    filled, asked = np.flatnonzero(lengths), np.flatnonzero(query_lengths)
    if not len(filled) or not len(asked):
        return scores
    # reduceat has no notion of an empty row, so only rows with vectors take part.
    best = np.maximum.reduceat(similarities, offsets[filled], axis=0)
    sums = np.add.reduceat(best, query_offsets[asked], axis=1)
    scores[np.ix_(asked, filled)] = (sums / query_lengths[asked].astype(np.float32)).T
    return scores


def hybrid_scores(
    queries: Representations,
    documents: Representations,
    weights: Sequence[float] = (1.0, 1.0, 1.0),
) -> NDArray[np.float32]:
    """Weighted mean of dense, lexical and multi-vector scores.

    Args:
        queries: With every part whose weight is not 0.
        documents: Likewise.
        weights: Of dense, sparse and colbert, in this order, as FlagEmbedding's
            ``weights_for_different_modes``; divided by their sum.

    Returns:
        Shape: (queries, documents). Dtype: float32.

    Raises:
        ValueError: The weights are not three numbers with a sum above 0, or a part is absent.
    """
    parts: tuple[tuple[str, Callable[[Any, Any], NDArray[np.float32]]], ...] = (
        ("dense_vecs", dense_scores),
        ("lexical_weights", lexical_scores),
        ("colbert_vecs", maxsim_scores),
    )
    used = [
        (weight, score(_part(queries, name), _part(documents, name)))
        for weight, (name, score) in zip(normalized_weights(weights), parts, strict=True)
        if weight
    ]
    return weighted_sum(used)


def weighted_sum(
    scores: Sequence[tuple[float, NDArray[np.floating[Any]]]],
) -> NDArray[np.float32]:
    """Add up scores of several kinds.

    Args:
        scores: Weights and scores, at least one, all of one shape.

    Returns:
        Shape: that of the scores. Dtype: float32.

    Example:
        >>> weighted_sum([(0.5, np.ones(2)), (0.25, np.array([0.0, 4.0]))]).tolist()
        [0.5, 1.5]
    """
    total = np.zeros(scores[0][1].shape, np.float32)
    for weight, part in scores:
        total += np.float32(weight) * part.astype(np.float32, copy=False)
    return total


def normalized_weights(weights: Sequence[float]) -> tuple[float, float, float]:
    """Check the three weights of a hybrid score and divide them by their sum.

    Args:
        weights: Of dense, sparse and colbert.

    Returns:
        Three weights with the sum 1.

    Raises:
        ValueError: They are not three finite numbers, none negative, with a sum above 0.
    """
    values = [float(weight) for weight in weights] if _are_numbers(weights) else []
    if len(values) != 3 or not all(0 <= value < np.inf for value in values) or not sum(values):
        raise ValueError(
            f"weights must be three numbers (dense, sparse, colbert), none negative and not all 0; "
            f"got {shown(weights)}"
        )
    dense, sparse, colbert = (value / sum(values) for value in values)
    return dense, sparse, colbert


_FLOATS = (float, np.floating)


def _are_numbers(weights: Any) -> bool:
    is_listed = isinstance(weights, (Sequence, np.ndarray)) and not isinstance(weights, str)
    return is_listed and all(isinstance(one, (int, float, np.number)) for one in weights)


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[Hashable]],
    k: int = 60,
    weights: Sequence[float] | None = None,
) -> list[tuple[Any, float]]:
    """Merge rankings by the sum of ``weight / (k + rank)``, ranks counted from 1.

    Source: Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and
    individual rank learning methods", SIGIR 2009; k = 60 is theirs.

    Args:
        rankings: Ids, best first, one list a ranking.
        k: How much the first ranks are flattened.
        weights: One a ranking; 1 each if ``None``.

    Returns:
        Every id once with its score, best first; equal scores in order of first appearance.

    Raises:
        TypeError: A ranking holds ids with scores.
        ValueError: ``k`` is negative, or there is not one weight a ranking.

    Example:
        >>> [name for name, _ in reciprocal_rank_fusion([["a", "b", "c"], ["b", "c", "a"]])]
        ['b', 'a', 'c']
    """
    if not isinstance(k, (int, float, np.number)) or not 0 <= k < 2**63:
        raise ValueError(f"k must be a number that is not negative; got {shown(k)}")
    each = [1.0] * len(rankings) if weights is None else list(weights)
    if len(each) != len(rankings):
        raise ValueError(f"{len(rankings)} rankings need as many weights; got {len(each)}")
    scores: defaultdict[Hashable, float] = defaultdict(float)
    for ranking, weight in zip(rankings, each, strict=True):
        for rank, item in enumerate(ranking, start=1):
            # Taken for ids, hits of two rankings would hardly ever be equal.
            if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], _FLOATS):
                raise TypeError(
                    f"rankings hold ids, best first; got {item!r}: leave the scores out, "
                    "[id for id, _ in hits]"
                )
            scores[item] += weight / (k + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])


def pair_scores(
    queries: Representations,
    documents: Representations,
    query_rows: NDArray[np.int64],
    document_rows: NDArray[np.int64],
    weights: Sequence[float] = (1.0, 1.0, 1.0),
) -> dict[str, NDArray[np.float32]]:
    """Score chosen pairs only, in all of M3's ways, each query against its own documents.

    Args:
        queries: With all three parts.
        documents: Likewise.
        query_rows: The pairs' queries. Shape: (pairs,).
        document_rows: The pairs' documents. Shape: (pairs,).
        weights: Of dense, sparse and colbert in the combined scores.

    Returns:
        FlagEmbedding's keys ``"colbert"``, ``"sparse"``, ``"dense"``, ``"sparse+dense"`` and
        ``"colbert+sparse+dense"``. Shape: (pairs,) each. Dtype: float32. Where the weights of
        sparse and dense are both 0, their combination is 0.

    Raises:
        ValueError: A part is absent, or the weights are not as ``normalized_weights`` wants.
    """
    w_dense, w_sparse, w_colbert = normalized_weights(weights)
    left, right = _part(queries, "dense_vecs"), _part(documents, "dense_vecs")
    dense = np.einsum("ij,ij->i", left[query_rows], right[document_rows])
    lexical = _part(queries, "lexical_weights"), _part(documents, "lexical_weights")
    width = 1 + max(int(part.token_ids.max(initial=0)) for part in lexical)
    left_rows, right_rows = (part.to_scipy(width) for part in lexical)
    shared: Any = left_rows[query_rows] * right_rows[document_rows]
    sparse = np.asarray(shared.sum(axis=1), np.float32).reshape(-1)
    vectors = _part(queries, "colbert_vecs"), _part(documents, "colbert_vecs")
    colbert = np.empty(len(query_rows), np.float32)
    for row in np.unique(query_rows):
        pairs = np.flatnonzero(query_rows == row)
        colbert[pairs] = maxsim_scores(vectors[0][[row]], vectors[1][document_rows[pairs]])[0]
    two = w_dense + w_sparse
    without = [(w_dense / two, dense), (w_sparse / two, sparse)] if two else [(0.0, dense)]
    return {
        "colbert": colbert,
        "sparse": sparse,
        "dense": dense,
        "sparse+dense": weighted_sum(without),
        "colbert+sparse+dense": weighted_sum(
            [(w_dense, dense), (w_sparse, sparse), (w_colbert, colbert)]
        ),
    }


def _check_kind(kind: type, **given: Any) -> None:
    for name, one in given.items():
        if not isinstance(one, kind):
            raise TypeError(f"{name} must be {kind.__name__}; got {shown(one)}")


def _part(representations: Representations, name: str) -> Any:
    _check_kind(Representations, queries=representations)
    part = getattr(representations, name)
    if part is None:
        raise ValueError(f"these scores need {name}, which was not encoded")
    return part


def _blocks(offsets: NDArray[np.int64], size: int) -> list[tuple[int, int]]:
    """Runs of rows that hold at most ``size`` items together, or a single row."""
    blocks, first = [], 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + size, side="right")) - 1
        last = max(last, first + 1)
        blocks.append((first, last))
        first = last
    return blocks
