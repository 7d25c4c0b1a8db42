"""How ``QdrantHybridStore`` adds, gets and deletes documents."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from langchain_core.documents import Document
from qdrant_client import models

from langchain_m3.qdrant_layout import point_id, read_point
from langchain_m3.qdrant_points import points, requests
from langchain_m3.qdrant_search import QdrantSearch
from langchain_m3.qdrant_vectors import document
from m3_core.arguments import check_distinct, check_ids
from m3_core.representations import Representations
from m3_core.texts import check_texts


class _New(NamedTuple):
    """Documents to be added."""

    ids: list[str]
    texts: list[str]
    metadatas: list[dict[str, Any]]


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
        new = _checked(texts, metadatas, ids)
        if new.texts:
            # Not remembered: Qdrant keeps what would only drive others' texts out.
            reps = self._model._source.documents(
                new.texts, show_progress=self._model.show_progress, remember=False
            )
            for batch in requests(self._points(new, reps), batch_size):
                self._connection.call("upsert", points=batch, **kwargs)
        return new.ids

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        ids: list[str] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Do ``add_texts`` without blocking the event loop."""
        new = _checked(texts, metadatas, ids)
        if new.texts:
            reps = await self._model._source.adocuments(
                new.texts, show_progress=self._model.show_progress, remember=False
            )
            made = await asyncio.to_thread(self._points, new, reps)
            for batch in requests(made, batch_size):
                await self._connection.acall("upsert", points=batch, **kwargs)
        return new.ids

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete documents.

        Args:
            ids: Their ids, unknown ones are ignored; None deletes all.
            **kwargs: Ignored.

        Returns:
            True.
        """
        self._connection.call("delete", points_selector=_selector(ids))
        return True

    async def adelete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Do ``delete`` without blocking the event loop."""
        await self._connection.acall("delete", points_selector=_selector(ids))
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

    def _points(self, new: _New, reps: Representations) -> list[models.PointStruct]:
        return points(new.ids, new.texts, new.metadatas, reps, self.long_multi_vectors, self.names)

    def _sorted(
        self, asked: Sequence[str | int], records: Iterable[models.Record]
    ) -> list[Document]:
        found = {str(record.id): record for record in records}
        return [
            document(read_point(found[str(one)], self.names)) for one in asked if str(one) in found
        ]


def _checked(
    texts: Iterable[str],
    metadatas: Sequence[dict[str, Any]] | None,
    ids: Sequence[str | None] | None,
) -> _New:
    listed = check_texts(texts)
    known = [str(uuid.uuid4()) if one is None else one for one in ids or [None] * len(listed)]
    others = [{}] * len(listed) if metadatas is None else [m or {} for m in metadatas]
    if not len(known) == len(others) == len(listed):
        raise ValueError(f"got {len(listed)} texts, {len(others)} metadatas and {len(known)} ids")
    check_distinct(check_ids(known))
    return _New(known, listed, others)


def _selector(ids: Sequence[str] | None) -> models.PointsSelector:
    if ids is None:
        return models.FilterSelector(filter=models.Filter())
    return models.PointIdsList(points=[point_id(one) for one in check_ids(ids)])
