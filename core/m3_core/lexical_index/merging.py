"""Merging segments: when it pays, and how, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m3_core.lexical_index.segments import CHUNK_POSTINGS, Segment, numbered

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


def without(segments: Sequence[Segment], numbers: Sequence[int]) -> list[Segment]:
    """Mark documents as deleted, and rewrite the segments in which many are.

    Args:
        segments: All segments.
        numbers: The documents, alive until now.

    Returns:
        The segments that still hold a living document.
    """
    if not numbers:
        return list(segments)
    gone = np.array(numbers, np.int64)
    marked = [segment.without(gone) for segment in segments]
    return [
        merge([segment]) if len(segment.deleted) > DELETED_SHARE * len(segment) else segment
        for segment in marked
        if len(segment.deleted) < len(segment)
    ]


def appended(old: Sequence[Segment], new: Sequence[Segment]) -> list[Segment]:
    """Put new segments behind the old ones, merging so that sizes fall fast to the end.

    Args:
        old: Segments as this function has given them, some perhaps smaller or gone.
        new: Segments of documents added together; may be empty.

    Returns:
        All documents in order, in a number of segments that grows with the logarithm of theirs.
    """
    segments = [*old, *new]
    if not segments:
        return []
    start = len(old) if new else len(segments) - 1
    size = sum(map(len, segments[start:]))
    while start and len(segments[start - 1]) <= MERGE_RATIO * size:
        start -= 1
        size += len(segments[start])
    tail = segments[start:]
    if len(tail) > 1 or (new and size >= COLUMN_DOCUMENTS):
        tail = [merge(tail)]
    return [*segments[:start], *tail]


def merge(segments: Sequence[Segment]) -> Segment:
    """Make one segment of several that follow each other, leaving out deleted documents.

    Needs memory for the result and about 100 MiB beside the segments.

    Args:
        segments: At least one, numbers ascending.

    Returns:
        The living documents in order.
    """
    living, renumbered, first = [], [], 0
    for segment in segments:
        alive = np.ones(len(segment), bool)
        alive[segment.deleted] = False
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
    return Segment(
        ids=[
            document
            for segment, alive in pairs
            for document, lives in zip(segment.ids, alive.tolist(), strict=True)
            if lives
        ],
        numbers=np.concatenate([segment.numbers[alive] for segment, alive in pairs]),
        tokens=np.concatenate([np.zeros(0, np.int32), *writer.tokens]),
        offsets=np.cumsum(np.concatenate([np.zeros(1, np.int64), *writer.lengths])),
        rows=writer.rows[: writer.filled],
        weights=writer.weights[: writer.filled],
        columns=writer.columns,
        deleted=np.zeros(0, np.int32),
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
