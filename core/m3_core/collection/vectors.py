"""Dense vectors and multi-vectors of documents, row by row, scored exactly; never changed.

They lie in pieces that share nothing but their order, so that adding documents copies no large
array and needs no memory beside what is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from m3_core.errors import NonFiniteError
from m3_core.forks import aside
from m3_core.representations import MultiVectors
from m3_core.scoring import maxsim_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

T = TypeVar("T")

# Pieces are put together up to this size; larger ones are never copied, nor is what is encoded
# at a time.
JOINED_BYTES = 2 << 20
# Vectors multiplied at a time: with 1,024 dimensions in float32, 16 MiB.
BLOCK_VECTORS = 4096
# By how much the length of a vector that was scaled in half precision may be off.
UNIT_TOLERANCE = 0.005
_EXPONENT = np.uint16(0x7C00)


@dataclass(frozen=True, slots=True, eq=False)
class DenseRows:
    """One vector a row.

    Attributes:
        pieces: Shape of each: (rows, dim). Dtype: float32.
        are_units: Whether all vectors but those of zeros have length 1.
        starts: Row at which each piece begins, and the number of rows. Shape: (pieces + 1,).

    Example:
        >>> rows = DenseRows.of([np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)])
        >>> rows.scores(np.array([0.0, 1.0], np.float32), np.array([1])).tolist()
        [0.800000011920929]
    """

    pieces: tuple[NDArray[np.float32], ...]
    are_units: bool
    starts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", _starts(self.pieces))

    @classmethod
    def of(cls, pieces: Iterable[NDArray[np.float32]]) -> DenseRows:
        """Make rows of new arrays, which nobody else may change.

        Args:
            pieces: As of the attributes.

        Returns:
            The rows.
        """
        kept = tuple(pieces)
        return cls(kept, all(map(_are_units, kept)))

    @classmethod
    def joined(cls, several: Sequence[DenseRows]) -> DenseRows:
        """Put rows behind each other without copying."""
        pieces = tuple(piece for one in several for piece in one.pieces)
        return cls(pieces, all(one.are_units for one in several))

    @property
    def width(self) -> int:
        """Values a vector; 0 before there is one."""
        return self.pieces[0].shape[1] if self.pieces else 0

    def kept(self, alive: NDArray[np.bool_]) -> Iterator[NDArray[np.float32]]:
        """Yield the pieces without some rows; those that lose none are the same."""
        return _kept(self.pieces, self.starts, alive, lambda piece, rows: piece[rows])

    def compacted(self, alive: NDArray[np.bool_]) -> DenseRows:
        """Drop some rows and put small pieces together."""
        pieces = _put_together(self.kept(alive), lambda one: one.nbytes, np.concatenate)
        return DenseRows(pieces, self.are_units)

    def take(self, rows: Iterable[int]) -> list[NDArray[np.float32]]:
        """Copy the vectors of rows. Shape of each: (dim,)."""
        places = ((int(np.searchsorted(self.starts, row, "right")) - 1, row) for row in rows)
        return [self.pieces[place][row - self.starts[place]].copy() for place, row in places]

    def comparable(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale a vector of any length so that its scores are of the rows' kind.

        Args:
            query: Shape: (dim,).

        Returns:
            Where all rows have length 1, the same with length 1, so that scores are cosines; else
            the vector itself, and so with one of zeros.
        """
        length = np.linalg.norm(query)
        if not self.are_units or not length:
            return query
        scaled: NDArray[np.float32] = query / length
        return scaled

    def scores(
        self, query: NDArray[np.floating[Any]], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Inner products of a query with rows.

        Args:
            query: Shape: (dim,).
            rows: Ascending. Shape: (rows,).

        Returns:
            Shape: (rows,). Dtype: float32.
        """
        query = np.asarray(query, np.float32)
        scores = np.empty(len(rows), np.float32)
        borders = np.searchsorted(rows, self.starts).tolist()
        for number, piece in enumerate(self.pieces):
            part = slice(borders[number], borders[number + 1])
            inside = rows[part] - self.starts[number]
            # Multiplying some rows in vain is quicker than copying most of them.
            if len(inside) < len(piece) // 4:
                scores[part] = piece[inside] @ query
            elif len(inside) < len(piece):
                scores[part] = (piece @ query)[inside]
            else:
                np.dot(piece, query, out=scores[part])
        return scores


@dataclass(frozen=True, slots=True, eq=False)
class MultiRows:
    """Some vectors a row, in float16.

    Attributes:
        pieces: The rows, one piece after the other; all float16.
        starts: Row at which each piece begins, and the number of rows. Shape: (pieces + 1,).

    Example:
        >>> vectors = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], np.float16)
        >>> rows = MultiRows((MultiVectors(vectors, np.array([0, 2, 3])),))
        >>> rows.scores(np.array([[1.0, 0.0]], np.float32), np.array([0, 1])).tolist()
        [1.0, 0.0]
    """

    pieces: tuple[MultiVectors, ...]
    starts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", _starts(self.pieces))

    @classmethod
    def joined(cls, several: Sequence[MultiRows]) -> MultiRows:
        """Put rows behind each other without copying."""
        return cls(tuple(piece for one in several for piece in one.pieces))

    @property
    def width(self) -> int:
        """Values a vector; 0 before there is one."""
        return int(self.pieces[0].vectors.shape[1]) if self.pieces else 0

    def kept(self, alive: NDArray[np.bool_]) -> Iterator[MultiVectors]:
        """Yield the pieces without some rows; those that lose none are the same."""
        return _kept(self.pieces, self.starts, alive, _copied)

    def compacted(self, alive: NDArray[np.bool_]) -> MultiRows:
        """Drop some rows and put small pieces together."""
        pieces = _put_together(self.kept(alive), lambda one: one.vectors.nbytes, _concatenated)
        return MultiRows(pieces)

    def scores(
        self, query: NDArray[np.floating[Any]], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """MaxSim of a query with rows, as ``scoring.maxsim_scores``.

        Args:
            query: Shape: (query tokens, dim).
            rows: Ascending. Shape: (rows,).

        Returns:
            Shape: (rows,). Dtype: float32; 0 where the query or the row has no vectors.
        """
        if not len(query) or not len(rows):
            return np.zeros(len(rows), np.float32)
        asked = np.ascontiguousarray(query, np.float32)
        # torch's helpers shall not stay with the caller's thread.
        return aside(lambda: self._maxsim(asked, rows))

    def _maxsim(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        import torch

        columns = torch.from_numpy(query).T
        whole = np.array([0, len(query)])
        return np.concatenate(
            [
                # In this order torch takes two thirds of the time that numpy takes.
                maxsim_of((torch.from_numpy(vectors) @ columns).numpy(), whole, offsets)[0]
                for offsets, vectors in self._groups(rows)
            ]
        )

    def _groups(
        self, rows: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Vectors of some rows at a time in float32, and their offsets."""
        borders = np.searchsorted(rows, self.starts)
        places = np.repeat(np.arange(len(self.pieces)), np.diff(borders))
        starts, stops = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        for number in np.flatnonzero(np.diff(borders)).tolist():
            part = slice(borders[number], borders[number + 1])
            inside = rows[part] - self.starts[number]
            starts[part] = self.pieces[number].offsets[inside]
            stops[part] = self.pieces[number].offsets[inside + 1]
        ends = np.cumsum(stops - starts)
        first = 0
        buffer: NDArray[np.float32] = np.empty((0, self.width), np.float32)
        while first < len(rows):
            done = ends[first - 1] if first else 0
            last = max(int(np.searchsorted(ends, done + BLOCK_VECTORS, side="right")), first + 1)
            if len(buffer) < ends[last - 1] - done:
                size = max(BLOCK_VECTORS, int(ends[last - 1] - done))
                buffer = np.empty((size, buffer.shape[1]), np.float32)
            group = slice(first, last)
            self._widen(places[group], starts[group], stops[group], buffer)
            offsets = np.concatenate([np.zeros(1, np.int64), ends[group] - done])
            yield offsets, buffer[: offsets[-1]]
            first = last

    def _widen(
        self,
        places: NDArray[np.int64],
        starts: NDArray[np.int64],
        stops: NDArray[np.int64],
        buffer: NDArray[np.float32],
    ) -> None:
        import torch

        # Rows that follow one another are one run.
        breaks = (stops[:-1] != starts[1:]) | (places[:-1] != places[1:])
        last = np.flatnonzero(np.append(breaks, True))
        first = np.concatenate([[0], last[:-1] + 1])
        wide, done = torch.from_numpy(buffer), 0
        runs = zip(
            places[first].tolist(), starts[first].tolist(), stops[last].tolist(), strict=True
        )
        for place, start, stop in runs:
            vectors = torch.from_numpy(self.pieces[place].vectors)
            # torch widens float16 about fifteen times faster than numpy.
            wide[done : done + stop - start].copy_(vectors[start:stop])
            done += stop - start


def check_finite(vectors: NDArray[Any], what: str) -> None:
    """Check that an array holds numbers.

    Args:
        vectors: Of float32 or float16, contiguous.
        what: What it holds, for the error.

    Raises:
        NonFiniteError: NaN or infinity is in it.
    """
    if vectors.dtype == np.float16:
        # numpy takes thirty times as long to convert each number.
        bits = vectors.view(np.uint16)
        is_finite = not ((bits & _EXPONENT) == _EXPONENT).any()
    else:
        is_finite = bool(np.isfinite(vectors).all())
    if not is_finite:
        raise NonFiniteError(f"the {what} of some documents hold NaN or infinity")


def _are_units(vectors: NDArray[np.float32]) -> bool:
    # Without a second array of all vectors.
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return bool(np.allclose(lengths[lengths > 0], 1, atol=UNIT_TOLERANCE))


def _starts(pieces: Sequence[Any]) -> NDArray[np.int64]:
    return np.cumsum([0, *map(len, pieces)], dtype=np.int64)


def _copied(piece: MultiVectors, rows: NDArray[np.int64]) -> MultiVectors:
    some = piece[rows]
    # A copy: a view would keep what was dropped in memory.
    return MultiVectors(np.array(some.vectors), some.offsets)


def _concatenated(pieces: Sequence[MultiVectors]) -> MultiVectors:
    lengths = np.concatenate([np.diff(one.offsets) for one in pieces])
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return MultiVectors(np.concatenate([one.vectors for one in pieces]), offsets)


def _kept(
    pieces: Sequence[T],
    starts: NDArray[np.int64],
    alive: NDArray[np.bool_],
    take: Callable[[T, NDArray[np.int64]], T],
) -> Iterator[T]:
    for number, piece in enumerate(pieces):
        own = alive[starts[number] : starts[number + 1]]
        if own.all():
            yield piece
        elif own.any():
            yield take(piece, np.flatnonzero(own))


def _put_together(
    pieces: Iterable[T], size_of: Callable[[T], int], join: Callable[[Sequence[T]], T]
) -> tuple[T, ...]:
    groups: list[list[T]] = []
    filled = 0
    for piece in pieces:
        if groups and filled + size_of(piece) <= JOINED_BYTES:
            groups[-1].append(piece)
            filled += size_of(piece)
        else:
            groups.append([piece])
            filled = size_of(piece)
    return tuple(group[0] if len(group) == 1 else join(group) for group in groups)
