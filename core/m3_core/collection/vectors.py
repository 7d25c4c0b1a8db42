"""Dense vectors and multi-vectors of documents in memory, row by row, scored exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.forks import away_from_fork
from m3_core.representations import MultiVectors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

# Rows of deleted documents are given back once they are more than this share.
DEAD_SHARE = 0.25
# Vectors multiplied at a time: with 1,024 dimensions in float32, 16 MiB.
BLOCK_VECTORS = 4096


class RowIds:
    """Ids of documents and the numbers of their rows, in the order of adding.

    Example:
        >>> ids = RowIds()
        >>> ids.add(["a", "b", "c"])
        >>> ids.delete(["b"])
        >>> ids.living().tolist(), ids.find(["c", "b"]).tolist(), ids.names([2])
        ([0, 2], [2], ['c'])
    """

    def __init__(self) -> None:
        self._ids: list[str | None] = []
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def add(self, ids: Sequence[str]) -> None:
        """Give new documents the next rows.

        Args:
            ids: Ids that are not there.
        """
        first = len(self._ids)
        self._ids.extend(ids)
        self._places.update((one, first + i) for i, one in enumerate(ids))

    def delete(self, ids: Iterable[str]) -> None:
        """Mark rows as deleted.

        Args:
            ids: Their ids; unknown ones are ignored.
        """
        for one in ids:
            place = self._places.pop(one, None)
            if place is not None:
                self._ids[place] = None

    def compact(self) -> NDArray[np.int64] | None:
        """Number the rows anew if many are deleted.

        Returns:
            The old numbers of the rows that stay, or ``None`` if nothing was changed.
        """
        if len(self._ids) - len(self._places) <= DEAD_SHARE * len(self._ids):
            return None
        kept = self.living()
        self._ids = [self._ids[place] for place in kept.tolist()]
        self._places = {one: i for i, one in enumerate(self._ids) if one is not None}
        return kept

    def living(self) -> NDArray[np.int64]:
        """Rows of all documents, ascending. Shape: (documents,)."""
        # Rows are given out in ascending order and dictionaries keep the order of adding.
        return np.fromiter(self._places.values(), np.int64, len(self._places))

    def find(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Rows of documents, in the order of the ids; unknown ones are left out."""
        return np.array([self._places[one] for one in ids if one in self._places], np.int64)

    def names(self, rows: Iterable[int]) -> list[str]:
        """Ids of rows that are alive."""
        return [str(self._ids[row]) for row in rows]


class VectorRows:
    """One vector a row. Not safe under threads by itself.

    Example:
        >>> rows = VectorRows()
        >>> rows.append(np.array([[1.0, 0.0], [0.6, 0.8]], np.float32))
        >>> rows.scores(np.array([0.0, 1.0], np.float32), np.array([1])).tolist()
        [0.800000011920929]
    """

    def __init__(self) -> None:
        self._rows: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self._used = 0

    @property
    def width(self) -> int:
        """Values a vector; 0 before there is one."""
        return int(self._rows.shape[1])

    def append(self, vectors: NDArray[np.float32]) -> None:
        """Add rows. Shape: (documents, dim). Dtype: float32."""
        self._rows = _grown(self._rows, self._used, vectors)
        self._used += len(vectors)

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Drop all other rows and number these anew, in this order."""
        self._rows = self._rows[rows]
        self._used = len(rows)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Give the vectors of rows. Shape: (rows, dim)."""
        return self._rows[rows]

    def scores(
        self, query: NDArray[np.floating[Any]], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Inner products of a query with rows.

        Args:
            query: Shape: (dim,).
            rows: Shape: (rows,).

        Returns:
            Shape: (rows,). Dtype: float32.
        """
        query = np.asarray(query, np.float32)
        if not len(rows):
            return np.zeros(0, np.float32)
        # Multiplying some rows in vain is quicker than copying most of them.
        if len(rows) < self._used // 4:
            return self._rows[rows] @ query
        scores: NDArray[np.float32] = self._rows[: self._used] @ query
        return scores[rows]


class MultiVectorRows:
    """Some vectors a row, in float16, one after another. Not safe under threads by itself.

    Example:
        >>> rows = MultiVectorRows()
        >>> rows.append(MultiVectors([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], [0, 2, 3]))
        >>> rows.scores(np.array([[1.0, 0.0]], np.float32), np.array([0, 1])).tolist()
        [1.0, 0.0]
    """

    def __init__(self) -> None:
        self._vectors: NDArray[np.float16] = np.zeros((0, 0), np.float16)
        self._offsets = np.zeros(1, np.int64)

    @property
    def width(self) -> int:
        """Values a vector; 0 before there is one."""
        return int(self._vectors.shape[1])

    def append(self, vectors: MultiVectors) -> None:
        """Add rows."""
        held = int(self._offsets[-1])
        self._vectors = _grown(self._vectors, held, vectors.vectors)
        self._offsets = np.concatenate([self._offsets, held + vectors.offsets[1:]])

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Drop all other rows and number these anew, in this order."""
        kept = self.take(rows)
        # A copy: a view would keep what was dropped in memory.
        self._vectors = np.array(kept.vectors, np.float16)
        self._offsets = kept.offsets

    def take(self, rows: NDArray[np.int64]) -> MultiVectors:
        """Give the vectors of rows; a view, where the rows follow one another."""
        held = int(self._offsets[-1])
        return MultiVectors(self._vectors[:held], self._offsets)[rows]

    def scores(
        self, query: NDArray[np.floating[Any]], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """MaxSim of a query with rows: as ``scoring.maxsim_scores``, at the speed of a product.

        Args:
            query: Shape: (query tokens, dim).
            rows: Ascending. Shape: (rows,).

        Returns:
            Shape: (rows,). Dtype: float32; 0 where the query or the row has no vectors.
        """
        scores = np.zeros(len(rows), np.float32)
        filled = np.flatnonzero(self._offsets[rows + 1] > self._offsets[rows])
        if len(query) and len(filled):
            scores[filled] = away_from_fork(lambda: self._maxsim(query, rows[filled]))
        return scores

    def _maxsim(
        self, query: NDArray[np.floating[Any]], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        import torch

        columns = torch.from_numpy(np.ascontiguousarray(query, np.float32))
        found = [
            # reduceat has no notion of an empty row, so only rows with vectors take part.
            np.maximum.reduceat((columns @ torch.from_numpy(block).T).numpy(), starts, axis=1)
            for starts, block in self._groups(rows)
        ]
        scores: NDArray[np.float32] = np.concatenate([best.mean(axis=0) for best in found])
        return scores

    def _groups(
        self, rows: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Vectors of some rows at a time in float32, and where each row begins in them."""
        ends = np.cumsum(self._offsets[rows + 1] - self._offsets[rows])
        first = 0
        buffer: NDArray[np.float32] = np.empty((0, self._vectors.shape[1]), np.float32)
        while first < len(rows):
            done = ends[first - 1] if first else 0
            last = max(int(np.searchsorted(ends, done + BLOCK_VECTORS, side="right")), first + 1)
            group = rows[first:last]
            if len(buffer) < ends[last - 1] - done:
                size = max(BLOCK_VECTORS, int(ends[last - 1] - done))
                buffer = np.empty((size, buffer.shape[1]), np.float32)
            yield self._widened(group, buffer)
            first = last

    def _widened(
        self, rows: NDArray[np.int64], buffer: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        import torch

        starts, stops = self._offsets[rows], self._offsets[rows + 1]
        ends = np.cumsum(stops - starts)
        # Rows that follow one another are one run.
        last = np.flatnonzero(np.append(stops[:-1] != starts[1:], True))
        first = np.concatenate([[0], last[:-1] + 1])
        wide, done = torch.from_numpy(buffer), 0
        vectors = torch.from_numpy(self._vectors)
        runs = zip(starts[first].tolist(), stops[last].tolist(), ends[last].tolist(), strict=True)
        for start, stop, end in runs:
            # torch widens float16 about fifteen times faster than numpy.
            wide[done:end].copy_(vectors[start:stop])
            done = end
        return ends - (stops - starts), buffer[:done]


def _grown(held: NDArray[Any], used: int, new: NDArray[Any]) -> NDArray[Any]:
    """An array with the rows in use and the new ones after them, and room for more."""
    needed = used + len(new)
    if needed > len(held) or not held.shape[1]:
        # Half as much again, so that adding one by one copies each row a few times only; the
        # first rows take no more than they need, since they often are all there will be.
        size = max(needed, needed * 3 // 2) if used else needed
        grown: NDArray[Any] = np.empty((size, new.shape[1]), held.dtype)
        if used:
            grown[:used] = held[:used]
        held = grown
    held[used:needed] = new
    return held
