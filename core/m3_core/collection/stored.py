"""What a collection holds: documents and their representations, and how these are copied."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from m3_core.collection.files import Content
from m3_core.collection.locks import ManyReaders
from m3_core.collection.store import RepresentationStore

if TYPE_CHECKING:
    from m3_core.lexical_index.index import LexicalIndex

Records = dict[str, tuple[str, dict[str, Any]]]


class StoredDocuments:
    """Documents with their representations, shared by all collections over them.

    Methods are called with the lock held; copies and pickled states take it themselves. They
    hold all representations, and share what is never changed.

    Args:
        fingerprint: Of the encoder.
        parts: What is stored of ``"dense"``, ``"sparse"`` and ``"colbert"``.

    Attributes:
        records: Text and metadata by id, in the order of adding; metadata are never changed.
        store: The representations.
        lock: Held by who reads or changes them.
    """

    def __init__(self, fingerprint: str, parts: tuple[str, ...]) -> None:
        self.fingerprint = fingerprint
        self.parts = parts
        self.records: Records = {}
        self.store = RepresentationStore(fingerprint)
        self.lock = ManyReaders()

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredDocuments:
        made = StoredDocuments.__new__(StoredDocuments)
        state = self.__getstate__()
        made.__setstate__(state | {"records": copy.deepcopy(state["records"], memo)})
        return made

    def __getstate__(self) -> dict[str, Any]:
        with self.lock.reading():
            return {
                "content": self.content(),
                "records": dict(self.records),
                "lexical": copy.copy(self.store.lexical),
            }

    def __setstate__(self, state: dict[str, Any]) -> None:
        content: Content = state["content"]
        StoredDocuments.__init__(self, content.fingerprint, content.parts)
        self.restore(state["records"], content, state["lexical"])

    def content(self) -> Content:
        """Copy the vectors, without those of deleted documents; the records are left out."""
        rows = self.store.rows()
        return Content(
            fingerprint=self.fingerprint,
            parts=self.parts,
            records=(),
            dense=self.store.dense.take(rows) if self.store.dense.width else None,
            multi=self.store.multi.take(rows) if self.store.multi.width else None,
        )

    def restore(self, records: Records, content: Content, lexical: LexicalIndex) -> None:
        """Take over documents; there must be none yet.

        Args:
            records: Their texts and metadata.
            content: Their vectors, in the same order.
            lexical: Their lexical weights.
        """
        self.records = records
        self.store.lexical = lexical
        self.store.restore(list(records), content.dense, content.multi)

    def remove(self, ids: list[str]) -> list[str]:
        """Delete documents; unknown ids are ignored. Returns those that were there."""
        known = [one for one in dict.fromkeys(ids) if one in self.records]
        self.store.delete(known)
        for one in known:
            del self.records[one]
        return known


def copied_metadata(one: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Copy what a caller gives, down to the last list.

    Args:
        one: Id of the document, for the error.
        metadata: Its metadata.

    Returns:
        The copy.

    Raises:
        TypeError: They are no mapping, or something in them cannot be copied.
    """
    if not isinstance(metadata, Mapping):
        raise TypeError(
            f"the metadata of document {one!r} must be a mapping; got {metadata!r} of type "
            f"{type(metadata).__name__}: metadatas= is a list with one mapping a document"
        )
    try:
        return copy.deepcopy(dict(metadata))
    except TypeError as error:
        raise TypeError(
            f"the metadata of document {one!r} cannot be copied, and a document shares nothing "
            f"with who added it: {error}"
        ) from error
