"""All documents of a collection at one moment: what readers read and writers make anew.

A document has one number, its row: its place among all documents in the order of adding, those
included that were deleted and not yet dropped. Everything about it is found under that number.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.collection.vectors import DenseRows, MultiRows
from m3_core.forks import computed_once
from m3_core.lexical_index import Segment, Snapshot, changed, checked_weights, merge, segments_from
from m3_core.representations import LexicalWeights

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from m3_core.representations import Representations


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some documents that were added one after another.

    Attributes:
        lexical: Their ids, which of them are deleted, and their lexical weights.
        texts: Their texts.
        metadatas: Their metadata, which are never changed.
        dense: Their dense vectors, if any are stored.
        multi: Their multi-vectors, if any are stored.
    """

    lexical: Segment
    texts: Sequence[str]
    metadatas: Sequence[Mapping[str, Any]]
    dense: DenseRows | None
    multi: MultiRows | None

    def __len__(self) -> int:
        return len(self.lexical)

    @property
    def num_deleted(self) -> int:
        """How many of its rows are deleted."""
        return self.lexical.num_deleted

    def without(self, rows: NDArray[np.int64]) -> Block:
        """Share everything with a block in which some more rows are deleted."""
        return replace(self, lexical=self.lexical.without(rows))


@dataclass(frozen=True, eq=False)
class DocumentSnapshot:
    """The documents of a collection at one moment.

    Attributes:
        blocks: All documents, in the order of adding.
        lexical: Their ids and lexical weights.
        dense: Their dense vectors; ``None`` if none are stored, or there is no document.
        multi: Their multi-vectors; likewise.
    """

    blocks: tuple[Block, ...] = ()
    lexical: Snapshot = field(init=False)
    dense: DenseRows | None = field(init=False)
    multi: MultiRows | None = field(init=False)

    def __post_init__(self) -> None:
        dense = [block.dense for block in self.blocks if block.dense is not None]
        multi = [block.multi for block in self.blocks if block.multi is not None]
        made = {
            "lexical": Snapshot(tuple(block.lexical for block in self.blocks)),
            "dense": DenseRows.joined(dense) if dense else None,
            "multi": MultiRows.joined(multi) if multi else None,
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.lexical)

    @computed_once
    def living(self) -> NDArray[np.int64]:
        """Rows of all documents, ascending. Shape: (documents,)."""
        return np.flatnonzero(self.lexical.living())

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Ids of documents."""
        return self.lexical.ids(rows)

    def records(self, rows: Iterable[int]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """Yield id, text and metadata of documents; the metadata are not to be changed."""
        starts = self.lexical.starts.tolist()
        for row in rows:
            place = bisect_right(starts, row) - 1
            block, inside = self.blocks[place], row - starts[place]
            yield block.lexical.ids[inside], block.texts[inside], block.metadatas[inside]

    def rows(
        self, accept: Callable[[Mapping[str, Any]], bool] | None, ids: Collection[str] | None = None
    ) -> NDArray[np.int64]:
        """Find documents.

        Args:
            accept: Only those for whose metadata it says yes; it may use the collection.
            ids: Only these.

        Returns:
            Ascending. Shape: (documents,). Dtype: int64.
        """
        rows = self.living if ids is None else np.unique(self.lexical.find(ids))
        if accept is None:
            return rows
        passed: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        borders = np.searchsorted(rows, self.lexical.starts).tolist()
        for number, block in enumerate(self.blocks):
            start = self.lexical.starts[number]
            inside = rows[borders[number] : borders[number + 1]] - start
            metadatas = block.metadatas
            found = [row for row in inside.tolist() if accept(metadatas[row])]
            passed.append(np.array(found, np.int64) + start)
        return np.concatenate(passed)

    def changed(self, gone: NDArray[np.int64], new: Sequence[Block]) -> DocumentSnapshot:
        """Make the next state; this one stays as it is.

        Args:
            gone: Rows of documents that are deleted.
            new: Documents that are added behind the others.

        Returns:
            The next state.
        """
        return DocumentSnapshot(changed(self.blocks, gone, new, merged_blocks))


def blocks_of(
    ids: Sequence[str],
    texts: Sequence[str],
    metadatas: Sequence[Mapping[str, Any]],
    reps: Representations,
) -> Iterator[Block]:
    """Turn documents into blocks.

    Args:
        ids: One a document.
        texts: One a document.
        metadatas: One a document.
        reps: Their representations in the form in which they are stored; nobody else changes them.

    Yields:
        Mostly one block.

    Raises:
        ValueError: A lexical weight cannot be, or there are not as many representations.
    """
    if len(reps) != len(ids):
        raise ValueError(f"got {len(ids)} documents and the representations of {len(reps)}")
    weights = reps.lexical_weights
    if weights is None:
        nothing = np.zeros(0)
        weights = LexicalWeights(
            nothing.astype(np.int32), nothing.astype(np.float32), np.zeros(len(ids) + 1, np.int64)
        )
    dense, multi, start = reps.dense_vecs, reps.colbert_vecs, 0
    for segment in segments_from(ids, checked_weights(weights)):
        part = slice(start, start + len(segment))
        start = part.stop
        yield Block(
            segment,
            list(texts[part]),
            list(metadatas[part]),
            None if dense is None else DenseRows.of([dense[part]]),
            None if multi is None else MultiRows((multi[part],)),
        )


def merged_blocks(blocks: Sequence[Block]) -> Block:
    """Make one block of several that follow each other, leaving out deleted documents.

    Args:
        blocks: At least one.

    Returns:
        The living documents in order.
    """
    alive = np.concatenate([block.lexical.alive for block in blocks])
    rows = [(block, np.flatnonzero(block.lexical.alive).tolist()) for block in blocks]
    dense = [block.dense for block in blocks if block.dense is not None]
    multi = [block.multi for block in blocks if block.multi is not None]
    return Block(
        lexical=merge([block.lexical for block in blocks]),
        texts=[block.texts[row] for block, living in rows for row in living],
        metadatas=[block.metadatas[row] for block, living in rows for row in living],
        dense=DenseRows.joined(dense).compacted(alive) if dense else None,
        multi=MultiRows.joined(multi).compacted(alive) if multi else None,
    )
