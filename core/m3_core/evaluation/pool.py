"""Candidates of each query with all their scores, from which every setting makes its ranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from m3_core.scoring import (
    dense_scores,
    lexical_scores,
    maxsim_scores,
    normalized_weights,
    weighted_sum,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from m3_core.evaluation.settings import Setting
    from m3_core.evaluation.shards import EncodedTexts
    from m3_core.representations import Representations

    Rows = NDArray[np.int64]
    Scores = NDArray[np.float32]

Scope = Literal["auto", "all", "candidates"]

# Up to so many pairs all scores are kept: 128 MiB a representation.
KEPT_PAIRS = 1 << 25
# Up to so many pairs of query and document, MaxSim is a matter of minutes on a CPU.
MAXSIM_PAIRS = 4_000_000
# Cormack, Clarke and Büttcher, SIGIR 2009, as ``scoring.reciprocal_rank_fusion``.
RRF_K = 60
# How many columns are sorted into the best at a time.
_COLUMNS = 8192


@dataclass(frozen=True, slots=True)
class Ranking:
    """The documents of each query, best first.

    Attributes:
        rows: Numbers of documents; one array a query. Dtype: int64.
        scores: Their scores, never rising. Dtype: float32.
    """

    rows: list[Rows]
    scores: list[Scores]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Pool:
    """Documents that come into question, with their scores in every representation.

    Attributes:
        rows: Numbers of documents in ascending order; one array a query.
        scores: By representation one array a query; NaN where a document was not scored.
        described: How they were chosen.
    """

    rows: list[Rows]
    scores: dict[str, list[Scores]]
    described: str

    def rank(self, setting: Setting, depth: int) -> Ranking:
        """Rank the candidates.

        Args:
            setting: How.
            depth: How many documents a query at most.

        Returns:
            The best documents; of equal scores the one that comes first in the collection. What
            shares no token with the query is not found by lexical weights alone.

        Raises:
            KeyError: A representation with a weight was not scored.
        """
        ranked = [self._rank(number, setting, depth) for number in range(len(self.rows))]
        return Ranking([rows for rows, _ in ranked], [scores for _, scores in ranked])

    def leave_out(self, documents: Sequence[int | None]) -> None:
        """Have a document not be found by a query, as that which the query was made of.

        Args:
            documents: Its number for each query; ``None`` where nothing is left out.
        """
        for number, document in enumerate(documents):
            if document is None:
                continue
            place = int(np.searchsorted(self.rows[number], document))
            if place < len(self.rows[number]) and self.rows[number][place] == document:
                for scores in self.scores.values():
                    scores[number][place] = np.nan

    def _rank(self, number: int, setting: Setting, depth: int) -> tuple[Rows, Scores]:
        weights = dict(
            zip(("dense", "sparse", "colbert"), normalized_weights(setting.weights), strict=True)
        )
        parts = {part: self.scores[part][number] for part in setting.parts}
        if setting.fusion == "rrf":
            total = np.zeros(len(self.rows[number]), np.float64)
            for part, scores in parts.items():
                order = _best(_alone(part, scores), depth)
                total[order] += weights[part] / (RRF_K + 1 + np.arange(len(order)))
            fused = np.where(total > 0, total, np.nan).astype(np.float32)
        elif len(parts) == 1:
            ((part, scores),) = parts.items()
            fused = _alone(part, scores)
        else:
            fused = weighted_sum([(weights[part], scores) for part, scores in parts.items()])
        order = _best(fused, depth)
        return self.rows[number][order], fused[order]


def _alone(part: str, scores: Scores) -> Scores:
    return np.where(scores > 0, scores, np.float32(np.nan)) if part == "sparse" else scores


def _best(scores: Scores, depth: int) -> NDArray[np.intp]:
    """Positions of the best, best first; NaN is none."""
    if len(scores) > 4 * depth:
        # Those at least as good as the last one wanted: all that are tied with it come along.
        filled = np.where(np.isnan(scores), -np.inf, scores)
        last = -np.partition(-filled, depth - 1)[depth - 1]
        chosen = np.flatnonzero(filled >= last)
        chosen = chosen[~np.isnan(scores[chosen])]
    else:
        chosen = np.flatnonzero(~np.isnan(scores))
    return chosen[np.argsort(-scores[chosen], kind="stable")[:depth]]


_SCORING: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "dense": ("dense_vecs", dense_scores),
    "sparse": ("lexical_weights", lexical_scores),
    "colbert": ("colbert_vecs", maxsim_scores),
}


def score_matrix(part: str, queries: Representations, documents: Representations) -> Scores:
    """Score every query with every document by one representation.

    Args:
        part: ``"dense"``, ``"sparse"`` or ``"colbert"``.
        queries: With this representation.
        documents: Likewise.

    Returns:
        Shape: (queries, documents). Dtype: float32.
    """
    name, score = _SCORING[part]
    scored: Scores = np.asarray(score(getattr(queries, name), getattr(documents, name)), np.float32)
    return scored


def build_pool(
    queries: Representations,
    documents: EncodedTexts,
    *,
    depth: int = 1000,
    scope: Scope = "auto",
    candidates: int = 200,
    allowed: Sequence[Rows] | None = None,
    advanced: Callable[[int], object] = lambda _: None,
) -> Pool:
    """Score documents for all queries, file by file.

    Args:
        queries: Of all queries, with the representations that are compared.
        documents: The collection, with the same ones.
        depth: How many documents of each representation come into question where there are too
            many to keep all scores.
        scope: Of which documents multi-vectors are scored: ``"all"``, or ``"candidates"``, the
            best of dense and of lexical scores; ``"auto"``: all, up to 4 million pairs.
        candidates: How many of each.
        allowed: Numbers of the documents of each query that may be found, ascending; all if
            ``None``.
        advanced: Is told how many files are done.

    Returns:
        All documents with all scores, or the union of the best ones.

    Raises:
        ValueError: There is no such scope, or multi-vectors alone need ``"all"``.
    """
    if scope not in ("auto", "all", "candidates"):
        raise ValueError(f"scope is {scope!r}; it must be 'auto', 'all' or 'candidates'")
    first = [part for part in documents.parts if part != "colbert"]
    pairs = len(queries) * len(documents)
    late = "colbert" in documents.parts
    late_everywhere = late and (
        scope == "all" or not first or (scope == "auto" and pairs <= MAXSIM_PAIRS)
    )
    swept = [*first, "colbert"] if late_everywhere else first
    how = (
        "all documents"
        if late_everywhere
        else f"the {candidates} best of " + " and of ".join(first)
    )
    described = f"MaxSim over {how}" if late else ""
    if allowed is not None:
        rows = [np.asarray(one, np.int64) for one in allowed]
        return Pool(rows, _scores_of(queries, documents, documents.parts, rows, advanced), "given")
    if pairs <= KEPT_PAIRS:
        every = np.arange(len(documents), dtype=np.int64)
        rows = [every] * len(queries)
        kept = _all_scores(queries, documents, swept, advanced)
    else:
        tops = _tops(queries, documents, swept, depth, advanced)
        rows = _unions(list(tops.values()), len(queries))
        kept = _scores_of(queries, documents, swept, rows, advanced)
        joined = f"hybrids over the {depth} best of each representation"
        described = f"{described}; {joined}" if described else joined
    if late and not late_everywhere:
        chosen = _chosen(len(rows), {part: kept[part] for part in first}, candidates)
        own = [one[positions] for one, positions in zip(rows, chosen, strict=True)]
        few = _scores_of(queries, documents, ["colbert"], own, advanced)["colbert"]
        kept["colbert"] = []
        for one, positions, scores in zip(rows, chosen, few, strict=True):
            spread = np.full(len(one), np.nan, np.float32)
            spread[positions] = scores
            kept["colbert"].append(spread)
    return Pool(rows, kept, described)


def _all_scores(
    queries: Representations,
    documents: EncodedTexts,
    parts: Sequence[str],
    advanced: Callable[[int], object],
) -> dict[str, list[Scores]]:
    whole = {part: np.empty((len(queries), len(documents)), np.float32) for part in parts}
    for number, (start, reps) in enumerate(documents.read(parts), 1):
        for part in parts:
            whole[part][:, start : start + len(reps)] = score_matrix(part, queries, reps)
        advanced(number)
    return {part: list(matrix) for part, matrix in whole.items()}


def _tops(
    queries: Representations,
    documents: EncodedTexts,
    parts: Sequence[str],
    depth: int,
    advanced: Callable[[int], object],
) -> dict[str, list[Rows]]:
    """Find the best documents of each representation, most of which are never in memory."""
    best = {part: _Best(len(queries), depth, positive=part == "sparse") for part in parts}
    for number, (start, reps) in enumerate(documents.read(parts), 1):
        for part in parts:
            best[part].add(start, score_matrix(part, queries, reps))
        advanced(number)
    return {part: one.rows() for part, one in best.items()}


class _Best:
    """The best documents of each query so far."""

    def __init__(self, queries: int, depth: int, *, positive: bool) -> None:
        self._depth, self._positive = depth, positive
        self._scores = np.empty((queries, 0), np.float32)
        self._rows = np.empty((queries, 0), np.int64)
        self._waiting: list[tuple[int, Scores]] = []

    def add(self, start: int, scores: Scores) -> None:
        self._waiting.append((start, scores))
        if sum(one.shape[1] for _, one in self._waiting) >= _COLUMNS:
            self._merge()

    def _merge(self) -> None:
        new = [
            np.broadcast_to(np.arange(start, start + one.shape[1]), one.shape)
            for start, one in self._waiting
        ]
        scores = np.concatenate([self._scores, *(one for _, one in self._waiting)], axis=1)
        rows = np.concatenate([self._rows, *new], axis=1)
        self._waiting = []
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self._depth]
        self._scores = np.take_along_axis(scores, order, 1)
        self._rows = np.take_along_axis(rows, order, 1)

    def rows(self) -> list[Rows]:
        if self._waiting:
            self._merge()
        floor = 0.0 if self._positive else -np.inf
        return [rows[scores > floor] for rows, scores in zip(self._rows, self._scores, strict=True)]


def _unions(tops: Sequence[Sequence[Rows]], queries: int) -> list[Rows]:
    return [np.unique(np.concatenate([one[number] for one in tops])) for number in range(queries)]


def _chosen(
    queries: int, scores: Mapping[str, Sequence[Scores]], candidates: int
) -> list[NDArray[np.intp]]:
    """Positions of the best of each representation."""
    return [
        np.unique(
            np.concatenate(
                [_best(_alone(part, own[number]), candidates) for part, own in scores.items()]
            )
        )
        for number in range(queries)
    ]


def _scores_of(
    queries: Representations,
    documents: EncodedTexts,
    parts: Sequence[str],
    rows: Sequence[Rows],
    advanced: Callable[[int], object],
) -> dict[str, list[Scores]]:
    """Score chosen documents of each query."""
    scores = {part: [np.empty(len(one), np.float32) for one in rows] for part in parts}
    for number, (start, reps) in enumerate(documents.read(parts), 1):
        places = [np.searchsorted(one, [start, start + len(reps)]) for one in rows]
        asked = [query for query, (first, last) in enumerate(places) if first < last]
        for part in parts:
            # Single vectors of all are quicker than picking; MaxSim costs by the pair.
            block = None if part == "colbert" else score_matrix(part, queries[asked], reps)
            for place, query in enumerate(asked):
                first, last = places[query]
                local = rows[query][first:last] - start
                if block is None:
                    own = score_matrix(part, queries[[query]], reps[local])[0]
                else:
                    own = block[place, local]
                scores[part][query][first:last] = own
        advanced(number)
    return scores
