"""Merging segments: when it pays, and how, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from typing_extensions import Self

from m3_core.lexical_index.segments import CHUNK_POSTINGS, Segment, numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

# A column costs 4 bytes a document, a list 8 a posting: from this share of the documents on,
# the column costs no more than 10 bytes a posting.
COLUMN_SHARE = 0.4
# Below this many documents columns gain nothing.
COLUMN_DOCUMENTS = 1024
# Segments are merged while the one before is at most so many times as large as those behind it:
# adding one by one rewrites each document a few times, and leaves few segments to search.
MERGE_RATIO = 3
# A segment is rewritten once more than this share of its documents is deleted.
DELETED_SHARE = 0.25


class Part(Protocol):
    """Documents that lie together: a segment, or one with more beside it."""

    def __len__(self) -> int: ...

    @property
    def num_deleted(self) -> int:
        """How many of its rows are deleted."""

    def without(self, rows: NDArray[np.int64]) -> Self:
        """The same with some more rows deleted."""


P = TypeVar("P", bound=Part)


def changed(
    parts: Sequence[P],
    gone: NDArray[np.int64],
    new: Sequence[P],
    merged: Callable[[Sequence[P]], P],
) -> tuple[P, ...]:
    """Delete documents, then put new ones behind; parts are merged so that sizes fall to the end.

    Args:
        parts: As this function has given them; they stay as they are.
        gone: Rows over all parts of what is deleted, alive until now, in any order.
        new: Documents that are added together; may be empty.
        merged: Makes one part of several that follow each other, leaving out what is deleted.

    Returns:
        All documents in order, in a number of parts that grows with the logarithm of theirs.
    """
    if not len(gone) and not new:
        return tuple(parts)
    kept, start = [], 0
    for part in parts:
        rows = gone[(gone >= start) & (gone < start + len(part))] - start
        start += len(part)
        left = part.without(rows) if len(rows) else part
        if left.num_deleted <= DELETED_SHARE * len(left):
            kept.append(left)
        elif left.num_deleted < len(left):
            kept.append(merged([left]))
    return tuple(_appended(kept, new, merged))


def _appended(old: Sequence[P], new: Sequence[P], merged: Callable[[Sequence[P]], P]) -> list[P]:
    together = [*old, *new]
    if not together:
        return []
    start = len(old) if new else len(together) - 1
    size = sum(map(len, together[start:]))
    while start and len(together[start - 1]) <= MERGE_RATIO * size:
        start -= 1
        size += len(together[start])
    tail = together[start:]
    if len(tail) > 1 or (new and size >= COLUMN_DOCUMENTS):
        tail = [merged(tail)]
    return [*together[:start], *tail]


def merge(segments: Sequence[Segment]) -> Segment:
    """Make one segment of several that follow each other, leaving out deleted documents.

    Needs memory for the result and about 100 MiB beside the segments.

    Args:
        segments: At least one, in the order of adding.

    Returns:
        The living documents in order.
    """
    living, renumbered, first = [], [], 0
    for segment in segments:
        alive = segment.alive
        living.append(alive)
        new_rows = np.cumsum(alive, dtype=np.int32) - 1 + np.int32(first)
        renumbered.append(np.where(alive, new_rows, -1).astype(np.int32))
        first += int(alive.sum())
    writer = _PostingWriter(first, sum(len(segment.rows) + _held(segment) for segment in segments))
    for low, high in _token_ranges(segments):
        parts = [
            _postings(segment, rows, low, high)
            for segment, rows in zip(segments, renumbered, strict=True)
        ]
        tokens, rows, weights = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        writer.write(tokens, rows, weights)
    pairs = list(zip(segments, living, strict=True))
    return Segment.of(
        [
            document
            for segment, alive in pairs
            for document, lives in zip(segment.ids, alive.tolist(), strict=True)
            if lives
        ],
        np.concatenate([np.zeros(0, np.int32), *writer.tokens]),
        np.cumsum(np.concatenate([np.zeros(1, np.int64), *writer.lengths])),
        writer.rows[: writer.filled],
        writer.weights[: writer.filled],
        writer.columns,
    )


def _held(segment: Segment) -> int:
    """At most how many postings the columns hold."""
    return len(segment.columns) * len(segment)


class _PostingWriter:
    """Lists and columns of a segment, written token after token."""

    def __init__(self, num_documents: int, most_postings: int) -> None:
        self.num_documents = num_documents
        self.tokens: list[NDArray[np.int32]] = []
        self.lengths: list[NDArray[np.int64]] = []
        self.columns: dict[int, NDArray[np.float32]] = {}
        self.filled = 0
        # Too large is harmless: memory that is never written to is never taken.
        self.rows = np.empty(most_postings, np.int32)
        self.weights = np.empty(most_postings, np.float32)

    def write(
        self, tokens: NDArray[np.int32], rows: NDArray[np.int32], weights: NDArray[np.float32]
    ) -> None:
        """Append postings whose tokens are all above those written; rows ascend in each token."""
        from scipy.sparse import coo_array

        present, places = numbered(tokens)
        by_token = coo_array(
            (weights, (rows, places)), shape=(self.num_documents, len(present))
        ).tocsc()
        rows, weights = by_token.indices, by_token.data
        lengths = np.diff(by_token.indptr).astype(np.int64)
        few = lengths < max(COLUMN_SHARE * self.num_documents, 1)
        if self.num_documents < COLUMN_DOCUMENTS:
            few[:] = True
        for place in np.flatnonzero(~few).tolist():
            part = slice(by_token.indptr[place], by_token.indptr[place + 1])
            column = np.zeros(self.num_documents, np.float32)
            column[rows[part]] = weights[part]
            self.columns[int(present[place])] = column
        if not few.all():
            kept = np.repeat(few, lengths)
            rows, weights = rows[kept], weights[kept]
        part = slice(self.filled, self.filled + len(rows))
        self.rows[part], self.weights[part] = rows, weights
        self.filled = part.stop
        self.tokens.append(present[few])
        self.lengths.append(lengths[few])


def _token_ranges(segments: Sequence[Segment]) -> Iterator[tuple[int, int]]:
    """Ranges of token ids that together hold all postings, few enough in each."""
    parts = [(segment.tokens, np.diff(segment.offsets)) for segment in segments]
    parts += [
        (np.fromiter(segment.columns, np.int32), np.full(len(segment.columns), len(segment)))
        for segment in segments
    ]
    tokens = np.concatenate([tokens for tokens, _ in parts])
    order = np.argsort(tokens)
    tokens = tokens[order]
    totals = np.cumsum(np.concatenate([lengths for _, lengths in parts])[order])
    low, done = 0, 0
    while done < len(tokens):
        reached = totals[done - 1] if done else 0
        last = int(np.searchsorted(totals, reached + CHUNK_POSTINGS, side="right")) - 1
        high = int(tokens[max(last, done)]) + 1
        yield low, high
        low, done = high, int(np.searchsorted(tokens, high))


def _postings(
    segment: Segment, renumbered: NDArray[np.int32], low: int, high: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Tokens, new rows and weights of the living documents' postings in a range of tokens."""
    start, stop = np.searchsorted(segment.tokens, [low, high])
    part = slice(segment.offsets[start], segment.offsets[stop])
    tokens = [np.repeat(segment.tokens[start:stop], np.diff(segment.offsets[start : stop + 1]))]
    rows, weights = [renumbered[segment.rows[part]]], [segment.weights[part]]
    for token, column in segment.columns.items():
        if low <= token < high:
            held = np.flatnonzero(column)
            tokens.append(np.full(len(held), token, np.int32))
            rows.append(renumbered[held])
            weights.append(column[held])
    merged = np.concatenate(tokens), np.concatenate(rows), np.concatenate(weights)
    if not len(segment.deleted):
        return merged
    alive = merged[1] >= 0
    return merged[0][alive], merged[1][alive], merged[2][alive]
