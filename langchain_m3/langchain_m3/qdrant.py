"""A vector store over Qdrant with all three of M3's representations."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.documents import Document
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from typing_extensions import Self

from langchain_m3.embeddings import M3Embeddings
from langchain_m3.qdrant_connection import Connection
from langchain_m3.qdrant_points import (
    Distance,
    Fusion,
    Layout,
    LongMultiVectors,
    point_id,
    points,
    requests,
)
from langchain_m3.qdrant_search import QdrantSearch, StoreModel, document
from m3_core.arguments import check_count, check_distinct, check_ids
from m3_core.texts import check_texts


class QdrantHybridStore(QdrantSearch):
    """Documents in Qdrant with dense vectors, lexical weights and, to rerank, multi-vectors.

    Each text goes through the network once. A search is one query to Qdrant: the best ``fetch_k``
    documents of the dense and of the lexical ranking are fused there, and with ``rerank`` the best
    ``fetch_k`` of the fused ones are ordered by their multi-vectors.

    The score depends on what came last. ``fusion="rrf"``: sum of ``1 / (2 + rank)`` with ranks
    from 0, at most 1, which says nothing about similarity. ``fusion="dbsf"``: sum of both scores,
    each scaled by its distribution among the candidates. ``rerank``: M3's multi-vector score, the
    mean over the query's vectors of the largest cosine; Qdrant itself gives the sum, which is this
    times the number of the query's vectors.

    The collection is made if it does not exist. Without ``path``, ``url`` or a client, it is in
    memory and ends with the process. Asynchronous methods use ``async_client`` where there is
    one, else the synchronous client off the event loop. Safe under threads.

    Args:
        collection_name: The collection.
        rerank: Keep multi-vectors and rerank with them.
        fusion: By reciprocal rank, or by scores scaled to their distribution.
        fetch_k: Candidates of each ranking; by default four times ``k`` and at least 100.
        distance: Of dense vectors.
        long_multi_vectors: For texts above Qdrant's limit of 1,048,576 numbers in a multi-vector
            (1,023 tokens of 1,024 dimensions): ``"error"`` before anything is sent, or ``"pool"``:
            means of neighbouring vectors.
        location: ``":memory:"``, as of ``QdrantClient``.
        path: Folder of an embedded Qdrant.
        url: Of a server or cluster.
        api_key: Of the server.
        client: A client in place of the four above; it is not closed here.
        async_client: Likewise for asynchronous methods; alone, synchronous ones do not work.
        **options: Fields of ``M3Embeddings`` that say which model: ``model_name``, ``device``,
            ``query_instruction``, ``encoder`` and so on.

    Raises:
        StoreError: The collection exists and holds other vectors; with ``async_client`` alone, on
            first use.

    Example:
        .. code-block:: python

            store = QdrantHybridStore.from_texts(
                ["Pandas eat bamboo."], model_name="m3-tiny", rerank=True
            )
            documents = store.similarity_search("What do pandas eat?", k=1)
    """

    def __init__(
        self,
        collection_name: str = "m3",
        *,
        rerank: bool = False,
        fusion: Fusion = "rrf",
        fetch_k: int | None = None,
        distance: Distance = "cosine",
        long_multi_vectors: LongMultiVectors = "error",
        location: str | None = None,
        path: str | None = None,
        url: str | None = None,
        api_key: str | None = None,
        client: QdrantClient | None = None,
        async_client: AsyncQdrantClient | None = None,
        **options: Any,
    ) -> None:
        _check_choice("fusion", fusion, ("rrf", "dbsf"))
        _check_choice("distance", distance, ("cosine", "dot"))
        _check_choice("long_multi_vectors", long_multi_vectors, ("error", "pool"))
        self.collection_name = collection_name
        self.rerank = rerank
        self.fusion = fusion
        self.fetch_k = fetch_k if fetch_k is None else check_count("fetch_k", fetch_k)
        self.long_multi_vectors = long_multi_vectors
        self._model = StoreModel(**options, multi=rerank)
        encoder = self._model._model
        width = encoder.colbert_dimension
        layout = Layout(encoder.dimension, width if rerank else None, distance)
        places = {"location": location, "path": path, "url": url, "api_key": api_key}
        where = {name: value for name, value in places.items() if value is not None}
        self._connection = Connection(collection_name, layout, encoder, where, client, async_client)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Any = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a store of texts.

        Args:
            texts: The documents.
            embedding: None, or an ``M3Embeddings`` whose model is used.
            metadatas: One mapping a document.
            ids: One a document; random ones where there is none.
            **kwargs: Arguments of the store.

        Returns:
            The store.

        Raises:
            TypeError: ``embedding`` is of another class, which gives dense vectors only.
        """
        store = cls(**_with_model(embedding, kwargs))
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Any = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a store of texts, as ``from_texts``; only the model is loaded on the event loop."""
        store = cls(**_with_model(embedding, kwargs))
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Encode texts and add them; those whose id is known replace what was there.

        Args:
            texts: The documents.
            metadatas: One mapping a document, of what JSON has.
            ids: One a document, any strings; random ones where there is none.
            **kwargs: Ignored.

        Returns:
            The ids.

        Raises:
            TypeError: A text or an id is no string.
            ValueError: The lengths differ, an id comes twice, or a text is too long for Qdrant.
        """
        known, made = self._points(texts, metadatas, ids)
        for batch in requests(made):
            self._connection.call("upsert", points=batch)
        return known

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Do ``add_texts`` without blocking the event loop."""
        known, made = await self._model._model.run_async(self._points, texts, metadatas, ids)
        for batch in requests(made):
            await self._connection.acall("upsert", points=batch)
        return known

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
        return _sorted(asked, self._connection.call("retrieve", ids=asked))

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Do ``get_by_ids`` without blocking the event loop."""
        asked = [point_id(one) for one in check_ids(ids)]
        return _sorted(asked, await self._connection.acall("retrieve", ids=asked))

    def close(self) -> None:
        """Close the client, unless it was given."""
        self._connection.close()

    def _points(
        self,
        texts: Iterable[str],
        metadatas: Sequence[dict[str, Any]] | None,
        ids: Sequence[str | None] | None,
    ) -> tuple[list[str], list[models.PointStruct]]:
        listed = check_texts(texts)
        known = [str(uuid.uuid4()) if one is None else one for one in ids or [None] * len(listed)]
        others = [{}] * len(listed) if metadatas is None else [m or {} for m in metadatas]
        if not len(known) == len(others) == len(listed):
            raise ValueError(
                f"got {len(listed)} texts, {len(others)} metadatas and {len(known)} ids"
            )
        check_distinct(check_ids(known))
        if not listed:
            return [], []
        reps = self._model._source.documents(listed, show_progress=self._model.show_progress)
        return known, points(known, listed, others, reps, self.long_multi_vectors)


def _sorted(asked: Sequence[str], records: Iterable[models.Record]) -> list[Document]:
    found = {str(record.id): record for record in records}
    return [document(found[one].payload or {}) for one in asked if one in found]


def _selector(ids: Sequence[str] | None) -> models.PointsSelector:
    if ids is None:
        return models.FilterSelector(filter=models.Filter())
    return models.PointIdsList(points=[point_id(one) for one in check_ids(ids)])


def _with_model(embedding: Any, options: dict[str, Any]) -> dict[str, Any]:
    if embedding is None:
        return options
    if not isinstance(embedding, M3Embeddings):
        raise TypeError(
            f"embedding must be None or an M3Embeddings, whose model gives all three "
            f"representations; got {type(embedding).__name__}"
        )
    return {"encoder": embedding._model} | options


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
