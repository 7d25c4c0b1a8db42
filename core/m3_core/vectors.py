"""Dense vectors of documents in memory, searched exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import NDArray

# Rows of deleted documents are given back once they are more than this share.
DEAD_SHARE = 0.25


class VectorRows:
    """One vector a document, by id. Not safe under threads by itself.

    Example:
        >>> rows = VectorRows()
        >>> rows.add(["a", "b"], np.array([[1.0, 0.0], [0.6, 0.8]], np.float32))
        >>> [(one, round(score, 3)) for one, score in rows.search(np.array([0.0, 1.0]), 1)]
        [('b', 0.8)]
    """

    def __init__(self) -> None:
        self._rows: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self._ids: list[str | None] = []
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def add(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Add documents that are not there.

        Args:
            ids: One a document.
            vectors: Shape: (documents, dim). Dtype: float32.
        """
        first, needed = len(self._ids), len(self._ids) + len(ids)
        if needed > len(self._rows):
            # Half as much again, so that adding one by one copies each row a few times only.
            grown = np.empty((max(needed, needed * 3 // 2), vectors.shape[1]), np.float32)
            if first:
                grown[:first] = self._rows[:first]
            self._rows = grown
        self._rows[first:needed] = vectors
        self._ids.extend(ids)
        self._places.update((one, first + i) for i, one in enumerate(ids))

    def delete(self, ids: Iterable[str]) -> None:
        """Delete documents.

        Args:
            ids: Their ids; unknown ones are ignored.
        """
        for one in ids:
            place = self._places.pop(one, None)
            if place is not None:
                self._ids[place] = None
        if len(self._ids) - len(self._places) > DEAD_SHARE * len(self._ids):
            living = [place for place, one in enumerate(self._ids) if one is not None]
            self._rows = self._rows[living]
            self._ids = [self._ids[place] for place in living]
            self._places = {one: i for i, one in enumerate(self._ids) if one is not None}

    def take(self, ids: Iterable[str]) -> NDArray[np.float32]:
        """Give the vectors of documents that are there.

        Args:
            ids: Their ids.

        Returns:
            Shape: (documents, dim). Dtype: float32.
        """
        return self._rows[[self._places[one] for one in ids]]

    def search(
        self, query: NDArray[np.floating], k: int, allowed: Collection[str] | None = None
    ) -> list[tuple[str, float]]:
        """Find the largest inner products; of equal ones the document added first.

        Args:
            query: Shape: (dim,).
            k: How many at most.
            allowed: Look only at these ids.

        Returns:
            Ids and scores, best first.
        """
        if allowed is None:
            places = np.fromiter(self._places.values(), np.int64, len(self._places))
        else:
            known = [self._places[one] for one in allowed if one in self._places]
            places = np.array(known, np.int64)
        places.sort()
        if not len(places):
            return []
        rows = self._rows[: len(self._ids)]
        few = len(places) < len(rows) // 4
        query = np.asarray(query, np.float32)
        scores = rows[places] @ query if few else (rows @ query)[places]
        if k < len(scores):
            cut = np.partition(scores, len(scores) - k)[len(scores) - k]
            kept = np.flatnonzero(scores >= cut)
            places, scores = places[kept], scores[kept]
        best = np.argsort(-scores, kind="stable")[:k]
        return [(str(self._ids[places[i]]), float(scores[i])) for i in best]
