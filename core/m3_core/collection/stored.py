"""The documents that several collections share: their present state, and how it is exchanged."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from m3_core.collection.snapshot import DocumentSnapshot
from m3_core.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from m3_core.collection.snapshot import Block


class StoredDocuments:
    """The present state of documents; a reader takes it by one look and needs no lock.

    A change prepares the next state beside it and puts that in its place by one assignment:
    whatever is raised meanwhile, the state is the older or the newer one. Copies and pickled ones
    share what is never changed, that is everything.

    Args:
        fingerprint: Of the encoder.
        parts: What is stored of ``"dense"``, ``"sparse"`` and ``"colbert"``.
        snapshot: The documents.

    Attributes:
        snapshot: The documents.
        buffers: Score arrays of searches that have ended, for the next ones.
    """

    def __init__(
        self, fingerprint: str, parts: tuple[str, ...], snapshot: DocumentSnapshot | None = None
    ) -> None:
        self.fingerprint = fingerprint
        self.parts = parts
        self.snapshot = DocumentSnapshot() if snapshot is None else snapshot
        self.buffers: list[NDArray[np.float32]] = []
        self.after_fork()
        survive_forks(self)

    def after_fork(self) -> None:
        """Replace the lock, which another thread may have held."""
        # A signal handler or a finaliser may come here while its own thread is here already.
        self._writing = threading.RLock()

    def change(self, gone: Iterable[str], new: Sequence[Block]) -> list[str]:
        """Delete documents and add others in one step.

        Args:
            gone: Ids of what is deleted; unknown ones are ignored.
            new: What is added behind the others.

        Returns:
            Ids of those that were deleted.
        """
        with self._writing:
            while True:
                old = self.snapshot
                rows = old.lexical.find(gone)
                if not len(rows) and not new:
                    return []
                removed, snapshot = old.ids(rows), old.changed(rows, new)
                # Otherwise a signal handler has changed the documents in this very thread.
                if self.snapshot is old:
                    self.snapshot = snapshot
                    return removed

    def __deepcopy__(self, _: dict[int, Any]) -> StoredDocuments:
        return StoredDocuments(self.fingerprint, self.parts, self.snapshot)

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredDocuments, (self.fingerprint, self.parts, self.snapshot)
