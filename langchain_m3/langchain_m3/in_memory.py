"""A vector store and document index in memory, with hybrid search."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from os import PathLike
from typing import Any

from langchain_core.documents import Document
from langchain_core.indexing import UpsertResponse
from langchain_core.indexing.base import DeleteResponse, DocumentIndex
from pydantic import ConfigDict, PrivateAttr
from typing_extensions import Self

from langchain_m3.embeddings import M3Embeddings
from langchain_m3.in_memory_search import InMemorySearch
from langchain_m3.retrievers import M3HybridRetriever
from m3_core.beside import beside
from m3_core.encoder import CachedEncoder, TextEncoder

# Options of the model that embeddings have too.
_OWN = frozenset({"max_length", "query_instruction", "document_instruction"})


class M3InMemoryVectorStore(InMemorySearch, DocumentIndex):
    """Documents in memory with dense vectors, lexical weights and, to rerank, multi-vectors.

    A ``VectorStore``, for indexing with a record manager, parent documents and example selectors;
    a ``DocumentIndex``; and by that a retriever itself. It searches as ``M3HybridRetriever`` does,
    with the same fields and the same scores, over the same collection: ``hybrid_retriever()``
    gives that class over these documents, and ``collection=`` takes a retriever's.

    Searches take ``weights=``, ``fusion=``, ``fetch_k=`` and ``exhaustive=`` in place of the
    fields. Relevance scores are the scores cut to 0 to 1; by rank they are divided by the largest
    possible first. Returned documents are copies. Safe under threads.

    Args:
        embedding: None, or an ``M3Embeddings`` whose model is used; what is assigned to its
            options later counts for the store too, unless the store has options of its own.
        **options: Fields, such as ``model_name``, ``encoder``, ``rerank``, ``weights``.

    Raises:
        TypeError: ``embedding`` is of another class, which gives dense vectors only.

    Example:
        .. code-block:: python

            store = M3InMemoryVectorStore(model_name="m3-small")
            store.add_texts(["Pandas eat bamboo.", "Bears eat fish."])
            documents = store.similarity_search("What do pandas eat?", k=1)
    """

    # DocumentIndex, which comes last, would ignore options that there are not.
    model_config = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True)

    _embeddings: Any = PrivateAttr(default=None)
    _given: Any = PrivateAttr(default=None)

    def __init__(self, embedding: Any = None, **options: Any) -> None:
        if embedding is not None:
            if not isinstance(embedding, M3Embeddings):
                raise TypeError(
                    "embedding must be None or an M3Embeddings, whose model gives the other "
                    f"representations too; got {type(embedding).__name__}"
                )
            if options.keys() & {"encoder", "model_name", "base_url"}:
                raise ValueError(
                    "name the model once: by embedding=, or by encoder=, base_url= or model_name="
                )
            options = {"encoder": embedding._model} | options
        super().__init__(**options)
        if _OWN.isdisjoint(options):
            self._embeddings = self._given = embedding

    def __eq__(self, other: object) -> bool:
        """A store is equal to itself alone, as LangChain's are, and so it can be a key."""
        return self is other

    __hash__ = object.__hash__

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
            embedding: As of the class.
            metadatas: One mapping a document.
            ids: One a document; random ones where there is none.
            **kwargs: As of the class.

        Returns:
            The store.
        """
        store = cls(embedding, **kwargs)
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
        store = cls(embedding, **kwargs)
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    def from_documents(
        cls,
        documents: list[Document],
        embedding: Any = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a store of documents.

        Args:
            documents: The documents; those with an ``id`` keep it.
            embedding: As of the class.
            ids: In place of the documents' own.
            **kwargs: As of the class.

        Returns:
            The store.
        """
        store = cls(embedding, **kwargs)
        store.add_documents(documents, ids=ids)
        return store

    @classmethod
    async def afrom_documents(
        cls,
        documents: list[Document],
        embedding: Any = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a store of documents, as ``from_documents``, which blocks only while loading."""
        store = cls(embedding, **kwargs)
        await store.aadd_documents(documents, ids=ids)
        return store

    @classmethod
    def load(cls, path: str | PathLike[str], embedding: Any = None, **options: Any) -> Self:
        """Read what ``save`` of the store or of an ``M3HybridRetriever`` has written.

        Args:
            path: The folder.
            embedding: As of the class.
            **options: As of the class; the model must be the one it was made with.

        Returns:
            The store.
        """
        return super().load(path, embedding=embedding, **options)

    @property
    def embeddings(self) -> M3Embeddings:
        """Dense vectors of the same model: the object that was given, else one of the store's own.

        Options that are assigned to it count for the store too.
        """
        if self._embeddings is None:
            self._embeddings = M3Embeddings(encoder=self._model)
        embeddings: M3Embeddings = self._embeddings
        return embeddings

    @property
    def _source(self) -> CachedEncoder:
        model = None if self._embeddings is None else self._embeddings._model
        if model is not None and model is not super()._source.encoder:
            self._change(lambda draft: draft._adopt(model))
        return super()._source

    def _adopt(self, model: TextEncoder) -> None:
        """Take the model of the embeddings, whose options were assigned."""
        before = super()._source
        self.__dict__["encoder"] = model
        self._encodings = CachedEncoder(model, before.parts, reuse=before.reuse, roles=before.roles)
        self._show_what_is_in_effect()

    def _follow(self, names: Collection[str]) -> None:
        assigned = sorted(_OWN.intersection(names))
        if assigned and self._given is not None:
            raise ValueError(
                f"{assigned[0]} is an option of the store's embeddings, which others may share: "
                f"assign store.embeddings.{assigned[0]}, which counts for the store too"
            )
        if assigned:
            self._embeddings = None
        super()._follow(names)

    def hybrid_retriever(self, **options: Any) -> M3HybridRetriever:
        """Give a retriever over the same documents: what is added to one, both find.

        Args:
            **options: Its fields; by default the store's.

        Returns:
            The retriever.
        """
        documents = self._documents
        own = {
            name: getattr(self, name)
            for name in M3HybridRetriever.model_fields
            if name not in ("name", "tags", "metadata")
        }
        own["collection"] = documents
        return M3HybridRetriever(**(own | options))

    def upsert(self, items: Sequence[Document], /, **kwargs: Any) -> UpsertResponse:
        """Add documents; those whose id is known replace what was there.

        Args:
            items: The documents; random ids where there is none.
            **kwargs: As of ``add_texts``.

        Returns:
            Their ids.
        """
        return UpsertResponse(succeeded=self.add_documents(items, **kwargs), failed=[])

    async def aupsert(self, items: Sequence[Document], /, **kwargs: Any) -> UpsertResponse:
        """Do ``upsert`` without holding up the event loop."""
        return UpsertResponse(succeeded=await self.aadd_documents(items, **kwargs), failed=[])

    def get(self, ids: Sequence[str], /, **kwargs: Any) -> list[Document]:
        """Do ``get_by_ids``, as document indexes call it."""
        return self.get_by_ids(ids, **kwargs)

    async def aget(self, ids: Sequence[str], /, **kwargs: Any) -> list[Document]:
        """Do ``get`` without holding up the event loop."""
        return await self.aget_by_ids(ids, **kwargs)

    # A DocumentIndex says what was deleted; of a VectorStore only False has a meaning.
    def delete(  # type: ignore[override]  # the two base classes differ in what it returns
        self, ids: Sequence[str] | None = None, **kwargs: Any
    ) -> DeleteResponse:
        """Delete documents.

        Args:
            ids: Their ids; unknown ones are ignored.
            **kwargs: There are none.

        Returns:
            Which were there.

        Raises:
            TypeError: There are such arguments.
            ValueError: There are no ids; nothing is deleted.
        """
        if kwargs:
            raise TypeError(f"delete takes ids alone; got {', '.join(sorted(kwargs))}")
        if ids is None:
            raise ValueError("ids must be given: without, nothing is deleted")
        gone = self._documents.remove(ids)
        return DeleteResponse(succeeded=gone, num_deleted=len(gone), failed=[], num_failed=0)

    async def adelete(  # type: ignore[override]  # likewise
        self, ids: Sequence[str] | None = None, **kwargs: Any
    ) -> DeleteResponse:
        """Do ``delete`` without holding up the event loop."""
        return await beside(self.delete, ids, **kwargs)
