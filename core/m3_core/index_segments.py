"""Inverted lists of a block of documents: built, joined, never changed.

A token that few documents of a segment hold has a list of (document, weight) pairs; one that many
hold has a column with a weight for every document, which is smaller and faster from there on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from m3_core.representations import LexicalWeights

# A column costs 4 bytes a document, a list 8 a posting: from this share of the documents on,
# the column costs no more than 10 bytes a posting.
COLUMN_SHARE = 0.4
# Below this many documents columns gain nothing.
COLUMN_DOCUMENTS = 1024
# Postings turned round at a time while segments are built or joined: about 100 MiB of temporaries.
CHUNK_POSTINGS = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Documents in the order in which they were added, and what they weigh, by token.

    Attributes:
        ids: The documents' ids, dead ones included.
        serials: Number of each document in the whole index; ascending. Shape: (documents,).
        tokens: Token ids that have a list, ascending. Shape: (lists,). Dtype: int32.
        offsets: List i is the postings from ``offsets[i]`` to ``offsets[i + 1]``.
            Shape: (lists + 1,). Dtype: int64.
        rows: Documents of each list, ascending. Shape: (postings,). Dtype: int32.
        weights: Their weights, all above 0. Shape: (postings,). Dtype: float32.
        columns: Weights of all documents, 0 where absent, of the tokens that have a column.
            Shape of each: (documents,). Dtype: float32.
        dead: Documents that were deleted or replaced. Shape: (dead,). Dtype: int32.
    """

    ids: Sequence[str]
    serials: NDArray[np.int64]
    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    rows: NDArray[np.int32]
    weights: NDArray[np.float32]
    columns: dict[int, NDArray[np.float32]]
    dead: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; the ids are not counted."""
        arrays = [self.serials, self.tokens, self.offsets, self.rows, self.weights, self.dead]
        return sum(array.nbytes for array in [*arrays, *self.columns.values()])

    def without(self, serials: NDArray[np.int64]) -> Segment:
        """Share all arrays with a segment in which some more documents are dead.

        Args:
            serials: Documents of the index, alive until now; those of other segments are ignored.

        Returns:
            Itself, if none of them is here.
        """
        rows = self.find(serials)
        rows = rows[rows >= 0]
        return replace(self, dead=np.concatenate([self.dead, rows])) if len(rows) else self

    def find(self, serials: NDArray[np.int64]) -> NDArray[np.int32]:
        """Rows of documents.

        Args:
            serials: Their numbers in the index.

        Returns:
            Shape: as ``serials``. Dtype: int32. -1 for documents of other segments.
        """
        rows = np.searchsorted(self.serials, serials).clip(max=len(self) - 1)
        return np.where(self.serials[rows] == serials, rows, -1).astype(np.int32)

    def lists(self, tokens: NDArray[np.int32]) -> list[slice]:
        """Where the lists of some tokens lie; empty for tokens without a list."""
        if not len(self.tokens):
            return [slice(0, 0)] * len(tokens)
        places = np.searchsorted(self.tokens, tokens).clip(max=len(self.tokens) - 1)
        found = self.tokens[places] == tokens
        starts = np.where(found, self.offsets[places], 0).tolist()
        stops = np.where(found, self.offsets[places + 1], 0).tolist()
        return [slice(start, stop) for start, stop in zip(starts, stops, strict=True)]

    def document(self, row: int) -> dict[int, float]:
        """Collect one document's weights; reads all lists.

        Args:
            row: The document.

        Returns:
            ``{token id: weight}``, token ids ascending.
        """
        places = np.flatnonzero(self.rows == row)
        tokens = self.tokens[np.searchsorted(self.offsets, places, side="right") - 1]
        found = dict(zip(tokens.tolist(), self.weights[places].tolist(), strict=True))
        found |= {token: float(column[row]) for token, column in self.columns.items()}
        return {token: found[token] for token in sorted(found) if found[token]}


def segments_from(
    ids: Sequence[str], first_serial: int, texts: LexicalWeights
) -> Iterator[Segment]:
    """Turn documents into segments with nothing but lists.

    Args:
        ids: One a document.
        first_serial: Number of the first document in the index.
        texts: Their weights, all above 0.

    Yields:
        Segments of at most ``CHUNK_POSTINGS`` postings, or one document, each.

    Raises:
        ValueError: A document holds a token id twice.
    """
    from scipy.sparse import csr_array

    start = 0
    while start < len(ids):
        limit = texts.offsets[start] + CHUNK_POSTINGS
        stop = int(np.searchsorted(texts.offsets, limit, side="right")) - 1
        stop = min(max(stop, start + 1), len(ids))
        offsets = texts.offsets[start : stop + 1]
        part = slice(offsets[0], offsets[-1])
        tokens, places = np.unique(texts.token_ids[part], return_inverse=True)
        by_text = csr_array(
            (texts.weights[part], places.astype(np.int32), (offsets - offsets[0]).astype(np.int32)),
            shape=(stop - start, len(tokens)),
        )
        by_token = by_text.tocsc()
        rows, list_offsets = by_token.indices, by_token.indptr.astype(np.int64)
        repeated = np.flatnonzero(rows[1:] == rows[:-1])
        # Neighbours across the border of two lists may be equal.
        repeated = repeated[~np.isin(repeated + 1, list_offsets)]
        if len(repeated):
            raise ValueError(
                f"the weights of document {ids[start + int(rows[repeated[0]])]!r} hold a token id "
                "more than once"
            )
        yield Segment(
            ids=ids[start:stop],
            serials=np.arange(first_serial + start, first_serial + stop),
            tokens=tokens,
            offsets=list_offsets,
            rows=rows.astype(np.int32, copy=False),
            weights=by_token.data,
            columns={},
            dead=np.zeros(0, np.int32),
        )
        start = stop


def join(segments: Sequence[Segment]) -> Segment:
    """Make one segment of several that follow each other, leaving out dead documents.

    Needs memory for the result and about 100 MiB beside the segments.

    Args:
        segments: At least one, serials ascending.

    Returns:
        The living documents in order.
    """
    living, renumbered, first = [], [], 0
    for segment in segments:
        alive = np.ones(len(segment), bool)
        alive[segment.dead] = False
        living.append(alive)
        new_rows = np.cumsum(alive, dtype=np.int32) - 1 + np.int32(first)
        renumbered.append(np.where(alive, new_rows, -1).astype(np.int32))
        first += int(alive.sum())
    writer = _ListWriter(first, sum(len(segment.rows) + _held(segment) for segment in segments))
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
        serials=np.concatenate([segment.serials[alive] for segment, alive in pairs]),
        tokens=np.concatenate([np.zeros(0, np.int32), *writer.tokens]),
        offsets=np.cumsum(np.concatenate([np.zeros(1, np.int64), *writer.lengths])),
        rows=writer.rows[: writer.filled],
        weights=writer.weights[: writer.filled],
        columns=writer.columns,
        dead=np.zeros(0, np.int32),
    )


def _held(segment: Segment) -> int:
    """At most how many postings the columns hold."""
    return len(segment.columns) * len(segment)


class _ListWriter:
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

        present, places = np.unique(tokens, return_inverse=True)
        by_token = coo_array(
            (weights, (rows, places.astype(np.int32))), shape=(self.num_documents, len(present))
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
    joined = np.concatenate(tokens), np.concatenate(rows), np.concatenate(weights)
    if not len(segment.dead):
        return joined
    alive = joined[1] >= 0
    return joined[0][alive], joined[1][alive], joined[2][alive]
