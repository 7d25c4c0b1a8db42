"""Exact search over segments: add up in float32, choose, compare in float64.

All posting lists of the query's tokens are added into one float32 array. Its k largest are found
from the maxima of blocks, without sorting; everything within rounding of the k-th is then scored
again in float64, so that results and ties depend neither on rounding nor on how segments were
merged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from m3_core.lexical_index.segments import Segment
    from m3_core.representations import LexicalWeights

BLOCK = 1024
SMALL_BLOCK = 64

Accept = Callable[[str], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A query's tokens.

    Attributes:
        tokens: Shape: (tokens,). Dtype: int32. Ascending.
        weights: Shape: (tokens,). Dtype: float32.
    """

    tokens: NDArray[np.int32]
    weights: NDArray[np.float32]

    @property
    def slack(self) -> float:
        """Relative distance within which float32 sums may lie in the wrong order.

        A sum of n products that are not negative is off by at most (n + 1) 2^-24, relatively;
        this is four times as much, and so holds for the difference of two.
        """
        return (len(self.tokens) + 1) * 2.0**-22


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The index as it was at one moment; safe to search from any thread.

    A row is a document's position over all segments, in the order of adding.

    Attributes:
        segments: In the order of adding.
        starts: Row of each segment's first document, and the number of rows at the end.
            Shape: (segments + 1,). Dtype: int64.
    """

    segments: tuple[Segment, ...] = ()
    starts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        starts = np.cumsum([0, *map(len, self.segments)], dtype=np.int64)
        object.__setattr__(self, "starts", starts)

    def buffer_size(self) -> int:
        """Length of the array that ``scores`` needs: whole blocks."""
        return -(-int(self.starts[-1]) // BLOCK) * BLOCK

    def __len__(self) -> int:
        return sum(len(segment) - segment.num_deleted for segment in self.segments)

    def find(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Rows of documents.

        Args:
            ids: Their ids; unknown ones are left out.

        Returns:
            In the order of the ids. Shape: (documents,). Dtype: int64.
        """
        # Backwards, since what was added last is asked for most; each id lives in one segment.
        tables = [
            (segment.places, segment.alive, start)
            for segment, start in zip(self.segments, self.starts.tolist(), strict=False)
        ][::-1]
        found = []
        for one in ids:
            for places, alive, start in tables:
                row = places.get(one)
                if row is not None and alive[row]:
                    found.append(start + row)
                    break
        return np.array(found, np.int64)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Ids of documents."""
        places = np.searchsorted(self.starts, rows, side="right") - 1
        inside = rows - self.starts[places]
        return [
            self.segments[place].ids[row]
            for place, row in zip(places.tolist(), inside.tolist(), strict=True)
        ]

    def living(self) -> NDArray[np.bool_]:
        """Which rows are alive."""
        return np.concatenate([np.zeros(0, bool), *(one.alive for one in self.segments)])

    def scores(self, query: Query, out: NDArray[np.float32]) -> None:
        """Add up all documents' scores in float32; 0 for deleted ones and beyond the last.

        Args:
            query: The query.
            out: Filled with the scores. Shape: (buffer size or more,).
        """
        from scipy.linalg.blas import saxpy

        out.fill(0)
        for segment, start in zip(self.segments, self.starts.tolist(), strict=False):
            part = out[start : start + len(segment)]
            postings = segment.posting_lists(query.tokens)
            for token, weight, where in zip(
                query.tokens.tolist(), query.weights, postings, strict=True
            ):
                column = segment.columns.get(token)
                if column is not None:
                    saxpy(column, part, a=weight)
                elif where.start < where.stop:
                    np.add.at(part, segment.rows[where], segment.weights[where] * weight)
            part[segment.deleted] = 0

    def exact(self, query: Query, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Score some documents in float64.

        Args:
            query: The query.
            rows: Shape: (documents,). Ascending.

        Returns:
            Shape: (documents,). Dtype: float64.
        """
        totals = np.zeros(len(rows))
        borders = np.searchsorted(rows, self.starts).tolist()
        for number, segment in enumerate(self.segments):
            part = slice(borders[number], borders[number + 1])
            if part.start == part.stop:
                continue
            # int32 as the lists are: another type would have searchsorted copy whole lists.
            inside = (rows[part] - self.starts[number]).astype(np.int32)
            postings = segment.posting_lists(query.tokens)
            for token, weight, where in zip(
                query.tokens.tolist(), query.weights.tolist(), postings, strict=True
            ):
                column = segment.columns.get(token)
                if column is not None:
                    totals[part] += weight * column[inside].astype(np.float64)
                elif where.start < where.stop:
                    held = segment.rows[where]
                    places = np.searchsorted(held, inside).clip(max=len(held) - 1)
                    found = held[places] == inside
                    products = weight * segment.weights[where][places].astype(np.float64)
                    totals[part] += np.where(found, products, 0.0)
        return totals

    def best(
        self, query: Query, k: int, scores: NDArray[np.float32], rows: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Find the k best documents among those with a score above 0.

        Args:
            query: The query.
            k: How many at most.
            scores: As ``scores`` gave them. Shape: (buffer size,).
            rows: Documents to choose from, ascending; ``None``: all.

        Returns:
            Rows and scores, best first; of equal ones the document that was added first.
        """
        if rows is None:
            chosen = top_rows(scores, k, query.slack)
        else:
            chosen = rows[_above_cut(scores[rows], k, query.slack)]
        exact = self.exact(query, chosen)
        order = np.lexsort((chosen, -exact))[:k]
        return chosen[order], exact[order]

    def best_accepted(
        self, query: Query, k: int, scores: NDArray[np.float32], accept: Accept
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Find the k best documents that a predicate accepts; asks it in the order of scores.

        Args:
            query: The query.
            k: How many at most.
            scores: As ``scores`` gave them. Shape: (buffer size,).
            accept: Called with ids, once for each document, until k are accepted.

        Returns:
            As of ``best``.
        """
        accepted: list[int] = []
        asked, wanted = 0, 2 * k
        while True:
            rows, exact = self.best(query, wanted, scores, None)
            for place, document in enumerate(self.ids(rows[asked:]), start=asked):
                if len(accepted) < k and accept(document):
                    accepted.append(place)
            if len(accepted) == k or len(rows) < wanted:
                return rows[accepted], exact[accepted]
            asked, wanted = wanted, 8 * wanted


def top_rows(scores: NDArray[np.float32], k: int, slack: float) -> NDArray[np.int64]:
    """Positions of the k largest scores above 0, and of those within rounding of the k-th.

    Args:
        scores: Not negative. Shape: (a multiple of 1024,).
        k: How many at least, if so many are above 0.
        slack: Relative distance that counts as equal.

    Returns:
        Ascending. Dtype: int64.

    Example:
        >>> scores = np.zeros(1024, np.float32)
        >>> scores[[3, 5, 900]] = [0.5, 0.25, 0.75]
        >>> top_rows(scores, 2, 1e-6).tolist()
        [3, 900]
    """
    # The k-th largest of the blocks' maxima is not above the k-th largest score, so blocks whose
    # maximum is smaller cannot matter. With many blocks for each of the k, few blocks are left.
    block = BLOCK if len(scores) >= 4 * k * BLOCK else SMALL_BLOCK
    blocks = scores.reshape(-1, block)
    maxima = blocks.max(axis=1)
    hot = _above_cut(maxima, k, slack)
    # Positions ascend in both steps.
    inside = blocks[hot].ravel()
    chosen = _above_cut(inside, k, slack)
    return hot[chosen // block] * block + chosen % block


def _above_cut(scores: NDArray[np.float32], k: int, slack: float) -> NDArray[np.int64]:
    """Positions of scores above 0 that are not below the k-th largest, less the slack."""
    if k >= len(scores):
        return np.flatnonzero(scores > 0)
    cut = np.partition(scores, len(scores) - k)[len(scores) - k] * np.float32(1 - slack)
    return np.flatnonzero((scores >= cut) & (scores > 0))


def queries_of(texts: LexicalWeights) -> list[Query]:
    """Make a query of each text's weights."""
    return [
        Query(texts.token_ids[start:stop], texts.weights[start:stop])
        for start, stop in pairwise(texts.offsets.tolist())
    ]


def best_rows(
    snapshot: Snapshot,
    query: Query,
    k: int,
    buffers: list[NDArray[np.float32]],
    rows: NDArray[np.int64] | None = None,
    accept: Accept | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the documents with the highest scores.

    Args:
        snapshot: The state.
        query: The query.
        k: How many at most.
        buffers: Arrays for scores that nobody uses; one is taken and given back.
        rows: Documents to choose from, ascending; ``None``: all.
        accept: Asked for each id instead.

    Returns:
        Rows and scores, best first.
    """
    size = snapshot.buffer_size()
    try:
        buffer = buffers.pop()
    except IndexError:
        buffer = np.empty(0, np.float32)
    if len(buffer) < size:
        buffer = np.empty(size, np.float32)
    scores = buffer[:size]
    snapshot.scores(query, scores)
    if accept is not None:
        found = snapshot.best_accepted(query, k, scores, accept)
    else:
        found = snapshot.best(query, k, scores, rows)
    buffers.append(buffer)
    return found


def search_snapshot(
    snapshot: Snapshot,
    query: Query,
    k: int,
    buffers: list[NDArray[np.float32]],
    rows: NDArray[np.int64] | None,
    accept: Accept | None,
    *,
    fill: bool,
) -> list[tuple[str, float]]:
    """Search one state of an index, as ``LexicalIndex.search`` says.

    Args:
        snapshot: The state.
        query: The query.
        k: How many at most.
        buffers: Arrays for scores that nobody uses; one is taken and given back.
        rows: Documents to choose from, ascending; ``None``: all.
        accept: Asked for each id instead.
        fill: Add documents with a score of 0.

    Returns:
        Ids and scores, best first.
    """
    best, exact = best_rows(snapshot, query, k, buffers, rows, accept)
    found = list(zip(snapshot.ids(best), exact.tolist(), strict=True))
    if fill and len(found) < k:
        rest = snapshot.living()
        if rows is not None:
            rest[np.setdiff1d(np.arange(len(rest)), rows)] = False
        rest[best] = False
        for document in snapshot.ids(np.flatnonzero(rest)):
            if len(found) == k:
                break
            if accept is None or accept(document):
                found.append((document, 0.0))
    return found
