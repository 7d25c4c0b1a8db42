"""Posting lists of lexical weights in memory: add, delete, search exactly, save, load."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.forks import survive_forks
from m3_core.lexical_index.checks import checked_ids, checked_weights
from m3_core.lexical_index.files import read_index, write_index
from m3_core.lexical_index.merging import changed, merge
from m3_core.lexical_index.search import Snapshot, queries_of, search_snapshot
from m3_core.lexical_index.segments import segments_from
from m3_core.values import shown

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from m3_core.lexical_index.segments import Segment
    from m3_core.representations import LexicalWeights

Filter = Collection[str] | Callable[[str], bool]


class LexicalIndex:
    """Documents by their lexical weights; the score is the sum over shared tokens of the products.

    Search is exact: the results are those of scoring every document in float64. Of equal scores
    the document that was added first comes first; replacing a document counts as adding it.

    All methods may be called from any thread. A search sees the index as it was when it began:
    each ``add`` or ``delete`` wholly or not at all. Writers wait for each other, searches for
    nobody.

    Attributes:
        fingerprint: What the caller says of the model that made the weights, or ``None``.

    Example:
        >>> index = LexicalIndex()
        >>> index.add(["a", "b"], [{7: 0.25, 9: 0.5}, {9: 0.25}])
        >>> index.search({9: 0.5, 11: 1.0}, k=10)
        [('a', 0.25), ('b', 0.125)]
        >>> index.delete(["a", "no such id"])
        1
    """

    def __init__(self, fingerprint: str | None = None) -> None:
        """Make an empty index.

        Args:
            fingerprint: Any string that names the model and its options; stored by ``save``.
        """
        self.fingerprint = fingerprint
        # All there is; a change makes another one, and one assignment puts it in its place.
        self._snapshot = Snapshot()
        # Score arrays of searches that have ended, for the next ones.
        self._buffers: list[NDArray[np.float32]] = []
        self.after_fork()
        survive_forks(self)

    def after_fork(self) -> None:
        """Replace the lock, which another thread may have held."""
        # A signal handler or a finaliser may come here while its own thread is here already.
        self._writing = threading.RLock()

    def __len__(self) -> int:
        return len(self._snapshot)

    def __contains__(self, document: object) -> bool:
        return isinstance(document, str) and bool(len(self._snapshot.find([document])))

    def __repr__(self) -> str:
        return f"LexicalIndex(documents={len(self)}, fingerprint={self.fingerprint!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"fingerprint": self.fingerprint, "_snapshot": self._snapshot}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Segments are never changed, so a copy shares them; lock and buffers are its own.
        LexicalIndex.__init__(self)
        self.__dict__.update(state)

    @property
    def ids(self) -> list[str]:
        """Ids of all documents, in the order of adding."""
        snapshot = self._snapshot
        return snapshot.ids(np.flatnonzero(snapshot.living()))

    @property
    def nbytes(self) -> int:
        """Bytes of the posting lists; ids are not counted."""
        return sum(segment.nbytes for segment in self._snapshot.segments)

    def add(
        self, ids: Sequence[str], lexical_weights: LexicalWeights | Iterable[Mapping[int, float]]
    ) -> None:
        """Add documents; those whose id is known are replaced.

        A document without weights is kept and counted, and found by nothing. Weights of 0 are
        left out.

        Args:
            ids: One string a document, no two equal.
            lexical_weights: One text's weights a document, finite and not negative.

        Raises:
            TypeError: An id is no string.
            ValueError: The lengths differ, an id comes twice, or a weight or token id cannot be.
        """
        ids = checked_ids(ids)
        texts = checked_weights(lexical_weights)
        if len(ids) != len(texts):
            raise ValueError(f"got {len(ids)} ids and the weights of {len(texts)} documents")
        if len(set(ids)) < len(ids):
            seen: set[str] = set()
            twice = next(one for one in ids if one in seen or seen.add(one))  # type: ignore[func-returns-value]
            raise ValueError(f"id {twice!r} comes more than once in one call of add")
        if not ids:
            return
        self._change(ids, list(segments_from(ids, texts)))

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents.

        Args:
            ids: Their ids; unknown ones are ignored.

        Returns:
            How many were there.

        Raises:
            TypeError: An id is no string.
        """
        return self._change(dict.fromkeys(checked_ids(ids)), [])

    def _change(self, gone: Iterable[str], new: list[Segment]) -> int:
        """Delete documents and add others in one step. Returns how many were deleted."""
        with self._writing:
            while True:
                old = self._snapshot
                rows = old.find(gone)
                snapshot = Snapshot(changed(old.segments, rows, new, merge))
                # Otherwise a signal handler has changed the index in this very thread.
                if self._snapshot is old:
                    self._snapshot = snapshot
                    return len(rows)

    def get(self, document: str) -> dict[int, float]:
        """Weights of one document; reads through all posting lists, since none is kept by document.

        Args:
            document: Its id.

        Returns:
            ``{token id: weight}``, token ids ascending; weights are float32 values.

        Raises:
            KeyError: The id is unknown.
        """
        snapshot = self._snapshot
        found = snapshot.find([document])
        if not len(found):
            raise KeyError(f"the index holds no document with the id {shown(document)}")
        place = int(np.searchsorted(snapshot.starts, found[0], side="right")) - 1
        return snapshot.segments[place].document(int(found[0] - snapshot.starts[place]))

    def search(
        self,
        weights: Mapping[int, float],
        k: int,
        *,
        allowed: Filter | None = None,
        fill: bool = False,
    ) -> list[tuple[str, float]]:
        """Find the documents with the highest scores.

        Args:
            weights: The query's ``{token id: weight}``, finite and not negative.
            k: How many documents at most; at least 1.
            allowed: Only these documents are looked for: a collection of ids (unknown ones are
                ignored), or a function of an id. The function is called in the order of scores
                until k are found, so it is cheap unless it refuses nearly all.
            fill: Add documents that share no token with the query, with a score of 0, in the
                order of adding, where fewer than k share one.

        Returns:
            Ids and scores, best first. Scores are above 0, unless ``fill`` is set.

        Raises:
            TypeError: ``allowed`` is a string, or ``k`` no whole number.
            ValueError: ``k`` is below 1, or a weight or token id cannot be.
        """
        return self.search_batch([weights], k, allowed=allowed, fill=fill)[0]

    def search_batch(
        self,
        queries: LexicalWeights | Iterable[Mapping[int, float]],
        k: int,
        *,
        allowed: Filter | None = None,
        fill: bool = False,
    ) -> list[list[tuple[str, float]]]:
        """Search for several queries, one after the other, in the same state of the index.

        Args:
            queries: One text's weights a query.
            k: As for ``search``.
            allowed: As for ``search``.
            fill: As for ``search``.

        Returns:
            One result of ``search`` a query.

        Raises:
            TypeError: As of ``search``.
            ValueError: As of ``search``.
        """
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
            raise TypeError(f"k must be a whole number; got {shown(k)}")
        if k < 1:
            raise ValueError(f"k must be at least 1; got {k}")
        texts = checked_weights(queries)
        accept = allowed if callable(allowed) else None
        names = None if allowed is None or callable(allowed) else checked_ids(allowed)
        snapshot, rows = self._snapshot, None
        if names is not None:
            rows = np.unique(snapshot.find(names))
        return [
            search_snapshot(snapshot, query, int(k), self._buffers, rows, accept, fill=fill)
            for query in queries_of(texts)
        ]

    def score_all(self, weights: Mapping[int, float]) -> NDArray[np.float32]:
        """Score all documents.

        Args:
            weights: As for ``search``.

        Returns:
            One score a document, in the order of ``ids``; 0 where no token is shared.
            Shape: (documents,). Dtype: float32.

        Raises:
            ValueError: A weight or token id cannot be.
        """
        (query,) = queries_of(checked_weights([weights]))
        snapshot = self._snapshot
        scores = np.empty(snapshot.buffer_size(), np.float32)
        snapshot.scores(query, scores)
        return scores[: int(snapshot.starts[-1])][snapshot.living()]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index into one file, which replaces an older one only when complete.

        Args:
            path: The file. A temporary one beside it is written first.

        Raises:
            OSError: The file cannot be written; an older one is as it was.
        """
        write_index(path, self._snapshot.segments, self.fingerprint)

    @classmethod
    def load(cls, path: str | os.PathLike[str], fingerprint: str | None = None) -> LexicalIndex:
        """Read an index that ``save`` has written.

        Args:
            path: The file.
            fingerprint: Refuse the index if it was made with another one; ``None``: take any.

        Returns:
            The index with the file's fingerprint.

        Raises:
            FileNotFoundError: There is no such file.
            IndexFileError: The file is cut, damaged or something else, or the fingerprint differs.
        """
        segments, found = read_index(path, fingerprint)
        index = cls(found)
        index._snapshot = Snapshot(segments)
        return index
