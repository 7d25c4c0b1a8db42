"""Rankings of documents for one query: all documents scored, or candidates first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from m3_core.arguments import check_count
from m3_core.collection.fusion import Fusion, check_fusion
from m3_core.lexical_index import best_rows, checked_weights, queries_of
from m3_core.scoring import reciprocal_rank_fusion, weighted_sum

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from m3_core.collection.snapshot import DocumentSnapshot
    from m3_core.filters import Filter
    from m3_core.lexical_index import Query
    from m3_core.representations import Representations

    Rows = NDArray[np.int64]
    Scores = NDArray[np.floating[Any]]


# M3-Embedding (arXiv 2402.03216, section 4.2): dense 1, sparse 0.3, multi-vector 1.
DEFAULT_WEIGHTS = (1.0, 0.3, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """The keywords of ``DocumentCollection.search``, checked.

    Raises:
        TypeError: ``k`` or ``fetch_k`` is no whole number, or there is no such keyword.
        ValueError: One of them is below 1, or there is no such fusion.
    """

    k: int
    where: Filter | None = None
    ids: Collection[str] | None = None
    weights: Sequence[float] = DEFAULT_WEIGHTS
    fusion: Fusion = "weights"
    fetch_k: int | None = None
    exhaustive: bool | None = False
    vector: ArrayLike | None = None
    return_vectors: bool = False

    def __post_init__(self) -> None:
        check_count("k", self.k)
        if self.fetch_k is not None:
            check_count("fetch_k", self.fetch_k)
        check_fusion(self.fusion)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """How a search is done, worked out from its request.

    Attributes:
        k: How many documents at most.
        candidates: How many each first ranking brings; ``None``: score all documents.
        weights: Weights of the stored parts; a part of weight 0 is passed over.
        fusion: By weighted scores, or by ranks.
    """

    k: int
    candidates: int | None
    weights: Mapping[str, float]
    fusion: Fusion = "weights"


class Found(NamedTuple):
    """A document's row, its score, and the scores that it was made of."""

    row: int
    score: float
    scores: dict[str, float]


def search_snapshot(
    snapshot: DocumentSnapshot,
    query: Representations,
    plan: SearchPlan,
    allowed: Rows | None,
    buffers: list[NDArray[np.float32]],
) -> list[Found]:
    """Rank documents for a query.

    Args:
        snapshot: The documents.
        query: One text, with the parts that have a weight, and those that bring candidates.
        plan: What to find.
        allowed: Rows of documents to choose from, ascending; ``None``: all.
        buffers: Of ``best_rows``.

    Returns:
        Best first; of equal scores the document that was added first.

    Raises:
        ValueError: The query lacks a part, or its dense vector has another width than theirs.
    """
    search = _Search(snapshot, query, allowed, buffers)
    used = [name for name, weight in plan.weights.items() if weight > 0]
    is_exhaustive = plan.candidates is None and plan.fusion == "weights"
    if set(plan.weights) == {"sparse"} or (is_exhaustive and used == ["sparse"]):
        rows, scores = search.lexical_best(plan.k)
        return _found(rows, scores, {"sparse": scores})
    if is_exhaustive:
        rows = search.rows
        return _best(rows, {name: search.scores(name, rows) for name in used}, plan)
    return _of_candidates(search, plan)


def best_places(scores: Scores, k: int) -> NDArray[np.int64]:
    """Find the largest scores; of equal ones the first come first.

    Args:
        scores: Shape: (documents,).
        k: How many at most.

    Returns:
        Their positions, best first. Dtype: int64.

    Example:
        >>> best_places(np.array([0.5, 0.75, 0.5, 0.25], np.float32), 2).tolist()
        [1, 0]
    """
    places = np.arange(len(scores))
    if k < len(scores):
        places = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
    return places[np.argsort(-scores[places], kind="stable")[:k]]


@dataclass(frozen=True, slots=True)
class _Search:
    """A query and the documents that it is asked of."""

    snapshot: DocumentSnapshot
    query: Representations
    allowed: Rows | None
    buffers: list[NDArray[np.float32]]

    @property
    def rows(self) -> Rows:
        """Rows of all documents to choose from."""
        return self.snapshot.living if self.allowed is None else self.allowed

    def lexical_best(self, k: int) -> tuple[Rows, NDArray[np.float64]]:
        """The best documents by lexical weights with a score above 0."""
        lexical = self.snapshot.lexical
        return best_rows(lexical, self._lexical(), k, self.buffers, self.allowed)

    def scores(self, part: str, rows: Rows) -> Scores:
        """Score documents by one representation, exactly."""
        query, snapshot = self.query, self.snapshot
        if not len(rows):
            return np.zeros(0, np.float32)
        if part == "sparse":
            lexical = snapshot.lexical
            scores = np.empty(lexical.buffer_size(), np.float32)
            lexical.scores(self._lexical(), scores)
            return scores[rows]
        if part == "dense" and query.dense_vecs is not None and snapshot.dense is not None:
            vector, width = query.dense_vecs[0], snapshot.dense.width
            if len(vector) != width:
                raise ValueError(
                    f"the query vector has {len(vector)} values and the documents' have {width}: "
                    "they come from different models"
                )
            return snapshot.dense.scores(vector, rows)
        if part == "colbert" and query.colbert_vecs is not None and snapshot.multi is not None:
            return snapshot.multi.scores(query.colbert_vecs[0], rows)
        raise ValueError(f"the query was encoded without {part}")

    def few_scores(self, part: str, rows: Rows) -> Scores:
        """Do ``scores`` for documents that are few among all."""
        if part == "sparse":
            return self.snapshot.lexical.exact(self._lexical(), rows)
        return self.scores(part, rows)

    def _lexical(self) -> Query:
        weights = self.query.lexical_weights
        if weights is None:
            raise ValueError("the query was encoded without sparse")
        (query,) = queries_of(checked_weights([weights[0]]))
        return query


def _of_candidates(search: _Search, plan: SearchPlan) -> list[Found]:
    """Score the best of the dense and of the lexical ranking in all stored parts, and fuse."""
    limit = plan.candidates or max(len(search.snapshot), 1)
    rankings: dict[str, tuple[Rows, Scores]] = {}
    if "sparse" in plan.weights:
        rankings["sparse"] = search.lexical_best(limit)
    if "dense" in plan.weights:
        rows = search.rows
        scores = search.scores("dense", rows)
        best = best_places(scores, limit)
        rankings["dense"] = rows[best], scores[best]
    candidates = np.unique(np.concatenate([rows for rows, _ in rankings.values()]))
    if not len(candidates):
        return []
    # The first two bring candidates whatever their weights; this one only scores.
    late = ["colbert"] if plan.weights.get("colbert") else []
    if plan.fusion == "weights":
        # All scores of all candidates, not only those of the ranking that brought them.
        names = [*rankings, *late]
        return _best(
            candidates, {name: search.few_scores(name, candidates) for name in names}, plan
        )
    for name in late:
        scores = search.scores(name, candidates)
        best = best_places(scores, len(scores))
        rankings[name] = candidates[best], scores[best]
    return _by_rank(rankings, plan)


def _best(rows: Rows, parts: Mapping[str, Scores], plan: SearchPlan) -> list[Found]:
    """The best by the weighted mean of scores, of which each has all rows."""
    used = {name: plan.weights[name] for name in parts if plan.weights[name] > 0}
    whole = sum(used.values())
    total = weighted_sum([(weight / whole, parts[name]) for name, weight in used.items()])
    best = best_places(total, plan.k)
    return _found(rows[best], total[best], {name: one[best] for name, one in parts.items()})


def _by_rank(rankings: Mapping[str, tuple[Rows, Scores]], plan: SearchPlan) -> list[Found]:
    used = [name for name in rankings if plan.weights[name] > 0]
    orders = [rankings[name][0].tolist() for name in used]
    fused = reciprocal_rank_fusion(orders, weights=[plan.weights[name] for name in used])
    by_name = {
        name: dict(zip(rows.tolist(), scores.tolist(), strict=True))
        for name, (rows, scores) in rankings.items()
    }
    return [
        Found(row, score, {name: own[row] for name, own in by_name.items() if row in own})
        for row, score in fused[: plan.k]
    ]


def _found(rows: Rows, scores: Scores, parts: Mapping[str, Scores]) -> list[Found]:
    listed = {name: one.tolist() for name, one in parts.items()}
    return [
        Found(row, score, {name: own[place] for name, own in listed.items()})
        for place, (row, score) in enumerate(zip(rows.tolist(), scores.tolist(), strict=True))
    ]
