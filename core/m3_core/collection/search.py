"""Rankings of a store's documents for one query: all documents scored, or candidates first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from m3_core.arguments import check_count
from m3_core.collection.fusion import Fusion, check_fusion, fuse

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from m3_core.collection.store import RepresentationStore
    from m3_core.filters import Filter
    from m3_core.representations import Representations

Ranked = list[tuple[str, float, dict[str, float]]]


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
        allowed: Only these ids; ``None``: all.
    """

    k: int
    candidates: int | None
    weights: Mapping[str, float]
    fusion: Fusion = "weights"
    allowed: Collection[str] | None = None


def search_store(store: RepresentationStore, query: Representations, plan: SearchPlan) -> Ranked:
    """Rank documents for a query.

    Args:
        store: The documents.
        query: One text, with the parts that have a weight, and those that bring candidates.
        plan: What to find.

    Returns:
        Ids, scores and the scores that they were made of, best first.
    """
    used = [name for name, weight in plan.weights.items() if weight > 0]
    is_exhaustive = plan.candidates is None and plan.fusion == "weights"
    if set(plan.weights) == {"sparse"} or (is_exhaustive and used == ["sparse"]):
        found = _lexical_best(store, query, plan.k, plan.allowed)
        return [(one, score, {"sparse": score}) for one, score in found.items()]
    if is_exhaustive:
        return _of_all(store, query, plan, used)
    return _of_candidates(store, query, plan)


def best_places(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
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


def _of_all(
    store: RepresentationStore, query: Representations, plan: SearchPlan, used: list[str]
) -> Ranked:
    """Weighted means of all documents' scores, in float32."""
    rows = store.rows(plan.allowed)
    parts = {name: store.scores(query, name, rows) for name in used} if len(rows) else {}
    total = np.zeros(len(rows), np.float32)
    for name, scores in parts.items():
        total += np.float32(plan.weights[name] / sum(plan.weights.values())) * scores
    best = best_places(total, plan.k)
    names = store.ids.names(rows[best].tolist())
    return [
        (one, float(total[place]), {name: float(scores[place]) for name, scores in parts.items()})
        for one, place in zip(names, best.tolist(), strict=True)
    ]


def _of_candidates(store: RepresentationStore, query: Representations, plan: SearchPlan) -> Ranked:
    """Score the best of the dense and of the lexical ranking in all stored parts, and fuse."""
    limit = plan.candidates or max(len(store), 1)
    rankings: dict[str, dict[str, float]] = {}
    if "sparse" in plan.weights:
        rankings["sparse"] = _lexical_best(store, query, limit, plan.allowed)
    if "dense" in plan.weights:
        rows = store.rows(plan.allowed)
        scores = store.scores(query, "dense", rows)
        best = best_places(scores, limit)
        names = store.ids.names(rows[best].tolist())
        rankings["dense"] = dict(zip(names, scores[best].tolist(), strict=True))
    candidates = list(dict.fromkeys(one for ranking in rankings.values() for one in ranking))
    if not candidates:
        return []
    if plan.fusion == "weights":
        # All scores of all candidates, not only those of the ranking that brought them.
        rankings = {name: _scores_of(store, query, name, candidates) for name in rankings}
    # The first two bring candidates whatever their weights; this one only scores.
    if plan.weights.get("colbert"):
        late = _scores_of(store, query, "colbert", candidates)
        rankings["colbert"] = dict(sorted(late.items(), key=lambda pair: -pair[1]))
    fused = fuse(rankings, plan.weights, plan.fusion)
    return [
        (one, score, {name: r[one] for name, r in rankings.items() if one in r})
        for one, score in fused[: plan.k]
    ]


def _scores_of(
    store: RepresentationStore, query: Representations, part: str, ids: list[str]
) -> dict[str, float]:
    if part == "sparse":
        return dict.fromkeys(ids, 0.0) | _lexical_best(store, query, len(ids), ids)
    rows = store.ids.find(ids)
    order = np.argsort(rows)
    scores = np.empty(len(rows), np.float32)
    scores[order] = store.scores(query, part, rows[order])
    return dict(zip(ids, scores.tolist(), strict=True))


def _lexical_best(
    store: RepresentationStore, query: Representations, k: int, allowed: Collection[str] | None
) -> dict[str, float]:
    if query.lexical_weights is None:
        raise ValueError("the query was encoded without sparse")
    return dict(store.lexical.search(query.lexical_weights[0], k, allowed=allowed))
