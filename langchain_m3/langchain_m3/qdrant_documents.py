"""How ``QdrantHybridStore`` adds, gets and deletes documents."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.documents import Document
from qdrant_client import models

from langchain_m3.qdrant_search import QdrantSearch
from langchain_m3.qdrant_vectors import document
from m3_core.arguments import check_distinct, check_ids
from m3_core.encoder.cached import CachedEncoder
from m3_core.stores.qdrant import (
    NewPoints,
    QdrantCollection,
    point_id,
    read_point,
    select,
    write_document,
)
from m3_core.texts import check_texts


class QdrantDocuments(QdrantSearch):
    """The storing half of the store."""

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        ids: list[str] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Encode texts and add them; those whose id is known replace what was there.

        Args:
            texts: The documents.
            metadatas: One mapping a document, of what JSON has.
            ids: One a document, any strings; random ones where there is none.
            batch_size: Documents a request to Qdrant at most; no request is larger than a server
                takes, whatever this is.
            **kwargs: As of ``QdrantClient.upsert``, as ``wait``.

        Returns:
            The ids.

        Raises:
            TypeError: A text or an id is no string.
            ValueError: The lengths differ, an id comes twice, or a text is too long for Qdrant.
        """
        new = self._checked(texts, metadatas, ids)
        show_progress = self._model.show_progress
        self._storing.add(new, batch_size=batch_size, show_progress=show_progress, **kwargs)
        return list(new.ids)

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        ids: list[str] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Do ``add_texts`` without blocking the event loop."""
        new = self._checked(texts, metadatas, ids)
        show_progress = self._model.show_progress
        await self._storing.aadd(new, batch_size=batch_size, show_progress=show_progress, **kwargs)
        return list(new.ids)

    def add_documents(self, documents: Iterable[Document], **kwargs: Any) -> list[str]:
        """Encode documents and add them; those with an ``id`` keep it.

        Args:
            documents: The documents.
            **kwargs: As of ``add_texts``; ``ids`` stands in place of the documents' own.

        Returns:
            The ids.
        """
        return super().add_documents(list(documents), **kwargs)

    async def aadd_documents(self, documents: Iterable[Document], **kwargs: Any) -> list[str]:
        """Do ``add_documents`` without blocking the event loop."""
        return await super().aadd_documents(list(documents), **kwargs)

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete documents.

        Args:
            ids: Their ids, unknown ones are ignored; None deletes all.
            **kwargs: Ignored.

        Returns:
            True.
        """
        if ids is not None and not len(ids):
            return True
        self._connection.call("delete", points_selector=select(ids))
        return True

    async def adelete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Do ``delete`` without blocking the event loop."""
        if ids is not None and not len(ids):
            return True
        await self._connection.acall("delete", points_selector=select(ids))
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Get documents.

        Args:
            ids: Their ids.

        Returns:
            Those that there are, in the order of the ids.
        """
        asked = [point_id(one) for one in check_ids(ids)]
        return self._sorted(asked, self._connection.call("retrieve", ids=asked))

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Do ``get_by_ids`` without blocking the event loop."""
        asked = [point_id(one) for one in check_ids(ids)]
        return self._sorted(asked, await self._connection.acall("retrieve", ids=asked))

    @property
    def _storing(self) -> QdrantCollection:
        # Not remembered: Qdrant keeps what would only drive others' texts out of the cache.
        source = self._source
        unremembered = CachedEncoder(source.encoder, source.parts, reuse=False)
        return replace(self._collection, encoder=unremembered)

    def _checked(
        self,
        texts: Iterable[str],
        metadatas: Sequence[dict[str, Any]] | None,
        ids: Sequence[str | None] | None,
    ) -> NewPoints:
        listed = check_texts(texts)
        if isinstance(ids, (str, bytes)):
            check_ids(ids)
        given = [None] * len(listed) if ids is None else list(ids)
        known = [str(uuid.uuid4()) if one is None else one for one in given]
        others: list[dict[str, Any]] = [{} for _ in listed]
        if metadatas is not None:
            others = [{} if m is None else m for m in metadatas]
        if not len(known) == len(others) == len(listed):
            raise ValueError(
                f"got {len(listed)} texts, {len(others)} metadatas and {len(known)} ids"
            )
        known = check_ids(known)
        check_distinct(known)
        rows = zip(known, listed, others, strict=True)
        return NewPoints(known, listed, [write_document(*row, self.names) for row in rows])

    def _sorted(
        self, asked: Sequence[str | int], records: Iterable[models.Record]
    ) -> list[Document]:
        found = {str(record.id): record for record in records}
        return [
            document(read_point(found[str(one)], self.names)) for one in asked if str(one) in found
        ]
