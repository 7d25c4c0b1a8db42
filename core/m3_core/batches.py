"""Grouping texts into batches: by length, within a token budget, and back into order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from m3_core.representations import ragged_positions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from m3_core.tokens import TokenBatch


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Texts laid one after another without padding, the longest first.

    Attributes:
        rows: Which of the caller's texts these are. Shape: (texts,). Dtype: int64.
        ids: Token ids. Shape: (tokens,). Dtype: int32.
        offsets: Text i is ``ids[offsets[i]:offsets[i + 1]]``. Shape: (texts + 1,). Dtype: int64.
    """

    rows: NDArray[np.int64]
    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens a text. Shape: (texts,)."""
        return np.diff(self.offsets)

    @cached_property
    def groups(self) -> list[tuple[int, int, int]]:
        """Runs of texts of equal length as (first token, number of texts, their length)."""
        lengths = self.lengths
        starts = np.flatnonzero(np.diff(lengths, prepend=-1))
        counts = np.diff(starts, append=len(lengths))
        return [
            (int(self.offsets[start]), int(count), int(lengths[start]))
            for start, count in zip(starts, counts, strict=True)
        ]


class Batches:
    """Hands out texts in batches, the longest first, and takes back what did not fit.

    Args:
        tokens: All texts.
    """

    def __init__(self, tokens: TokenBatch) -> None:
        self._tokens = tokens
        self._order = np.argsort(-tokens.lengths, kind="stable")
        self._ends = np.cumsum(tokens.lengths[self._order])
        self._next = 0

    @property
    def finished(self) -> bool:
        """Whether every text has been handed out."""
        return self._next >= len(self._order)

    def take(self, budget: int) -> PackedBatch:
        """Hand out the next texts: as many as fit the budget, at least one.

        Args:
            budget: Tokens a batch at most, unless a single text has more.

        Returns:
            The next batch.
        """
        start = self._next
        before = int(self._ends[start - 1]) if start else 0
        stop = int(np.searchsorted(self._ends, before + budget, side="right"))
        self._next = max(stop, start + 1)
        rows = self._order[start : self._next]
        positions, offsets = ragged_positions(self._tokens.offsets, rows)
        return PackedBatch(rows, self._tokens.ids[positions], offsets)

    def put_back(self, batch: PackedBatch) -> None:
        """Take back the batch that was handed out last.

        Args:
            batch: It.
        """
        self._next -= len(batch.rows)
