"""Posting lists of a block of documents: built, never changed.

A token that few documents of a segment hold has a posting list of (document, weight) pairs; one
that many hold has a column with a weight for every document, which is smaller and faster from
there on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from m3_core.representations import LexicalWeights

# Postings turned round at a time while segments are built or merged: about 100 MiB of temporaries.
CHUNK_POSTINGS = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Documents in the order in which they were added, and what they weigh, by token.

    Attributes:
        ids: The documents' ids, deleted ones included.
        places: The row of each of them.
        tokens: Token ids that have a posting list, ascending. Shape: (lists,). Dtype: int32.
        offsets: List i is the postings from ``offsets[i]`` to ``offsets[i + 1]``.
            Shape: (lists + 1,). Dtype: int64.
        rows: Documents of each list, ascending. Shape: (postings,). Dtype: int32.
        weights: Their weights, all above 0. Shape: (postings,). Dtype: float32.
        columns: Weights of all documents, 0 where absent, of the tokens that have a column.
            Shape of each: (documents,). Dtype: float32.
        deleted: Rows that were deleted or replaced. Shape: (deleted,). Dtype: int32.
        alive: Which rows were not. Shape: (documents,). Dtype: bool.
    """

    ids: Sequence[str]
    places: Mapping[str, int]
    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    rows: NDArray[np.int32]
    weights: NDArray[np.float32]
    columns: dict[int, NDArray[np.float32]]
    deleted: NDArray[np.int32]
    alive: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        ids: Sequence[str],
        tokens: NDArray[np.int32],
        offsets: NDArray[np.int64],
        rows: NDArray[np.int32],
        weights: NDArray[np.float32],
        columns: dict[int, NDArray[np.float32]],
    ) -> Segment:
        """Make a segment of which nothing is deleted; takes what the attributes say."""
        return cls(
            ids=ids,
            places={one: row for row, one in enumerate(ids)},
            tokens=tokens,
            offsets=offsets,
            rows=rows,
            weights=weights,
            columns=columns,
            deleted=np.zeros(0, np.int32),
            alive=np.ones(len(ids), bool),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_deleted(self) -> int:
        """How many rows are deleted."""
        return len(self.deleted)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; the ids are not counted."""
        postings = self.tokens.nbytes + self.offsets.nbytes + self.rows.nbytes + self.weights.nbytes
        columns = sum(column.nbytes for column in self.columns.values())
        return postings + columns + self.deleted.nbytes + self.alive.nbytes

    def without(self, rows: NDArray[np.int64]) -> Segment:
        """Share all arrays with a segment in which some more documents are deleted.

        Args:
            rows: The documents, alive until now.

        Returns:
            The other segment.
        """
        alive = self.alive.copy()
        alive[rows] = False
        deleted = np.concatenate([self.deleted, rows.astype(np.int32)])
        return replace(self, deleted=deleted, alive=alive)

    def posting_lists(self, tokens: NDArray[np.int32]) -> list[slice]:
        """Where the posting lists of some tokens lie; empty for tokens without a posting list."""
        if not len(self.tokens):
            return [slice(0, 0)] * len(tokens)
        places = np.searchsorted(self.tokens, tokens).clip(max=len(self.tokens) - 1)
        found = self.tokens[places] == tokens
        starts = np.where(found, self.offsets[places], 0).tolist()
        stops = np.where(found, self.offsets[places + 1], 0).tolist()
        return [slice(start, stop) for start, stop in zip(starts, stops, strict=True)]

    def document(self, row: int) -> dict[int, float]:
        """Collect one document's weights; reads all posting lists.

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


def segments_from(ids: Sequence[str], texts: LexicalWeights) -> Iterator[Segment]:
    """Turn documents into segments with nothing but posting lists.

    Args:
        ids: One a document.
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
        tokens, places = numbered(texts.token_ids[part])
        by_text = csr_array(
            (texts.weights[part], places, (offsets - offsets[0]).astype(np.int32)),
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
        yield Segment.of(
            ids[start:stop],
            tokens,
            list_offsets,
            rows.astype(np.int32, copy=False),
            by_token.data,
            {},
        )
        start = stop


def numbered(tokens: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The different tokens, ascending, and for each token its place among them."""
    lowest = int(tokens.min()) if len(tokens) else 0
    span = int(tokens.max(initial=0)) + 1 - lowest
    if span > 4 * len(tokens):
        present, places = np.unique(tokens, return_inverse=True)
        return present, places.astype(np.int32)
    # As np.unique, without sorting.
    shifted = tokens - np.int32(lowest)
    is_present = np.zeros(span, bool)
    is_present[shifted] = True
    numbers = np.cumsum(is_present, dtype=np.int32) - np.int32(1)
    return (np.flatnonzero(is_present) + lowest).astype(np.int32), numbers[shifted]
