"""How ``QdrantHybridStore`` searches by a dense vector that the caller has."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from pydantic import ConfigDict
from qdrant_client import models

from langchain_m3.documents import DocumentExplaining, check_retriever_keywords, refuse_keywords
from langchain_m3.embeddings import M3Embeddings
from langchain_m3.options import EncoderFields
from m3_core.adapters import explained_search
from m3_core.arguments import check_count, check_vector
from m3_core.encoder import CachedEncoder, TextEncoder
from m3_core.errors import StoreError
from m3_core.stores.qdrant import (
    Connection,
    Fusion,
    LongMultiVectors,
    Names,
    QdrantCollection,
    Rankings,
    ScoredPoint,
    Search,
    Stored,
    Where,
    read_point,
)


class StoreModel(EncoderFields):
    """The options of the store's model."""

    model_config = ConfigDict(title="QdrantHybridStore")

    roles = ("query",)
    hidden = frozenset({"origin", "needed"})

    needed: tuple[str, ...] = ("dense", "sparse")
    """What the collection keeps."""

    def _needed_parts(self) -> tuple[str, ...]:
        return self.needed


class QdrantVectorSearch(DocumentExplaining, VectorStore):
    """Searches by dense vectors alone; their score is the similarity of the two vectors."""

    names: Names
    rerank: bool
    fusion: Fusion
    fetch_k: int | None
    long_multi_vectors: LongMultiVectors
    _connection: Connection
    _model: StoreModel
    _embeddings: M3Embeddings
    _is_following: bool

    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:
        """Give a retriever over the store.

        Args:
            **kwargs: ``search_type``, ``search_kwargs`` and other fields of the retriever.

        Returns:
            The retriever.

        Raises:
            TypeError: It has no such field.
        """
        check_retriever_keywords(kwargs)
        return super().as_retriever(**kwargs)

    @property
    def _source(self) -> CachedEncoder:
        """The model; its options are those of the embeddings, also when they are assigned later."""
        own, model = self._model, self._embeddings._model
        if not self._is_following or model is own._model:
            return own._source
        new = StoreModel(
            encoder=model,
            needed=own.needed,
            show_progress=own.show_progress,
            reuse_encodings=own.reuse_encodings,
        )
        if new._source.fingerprint(new.needed) != own._source.fingerprint(own.needed):
            raise StoreError(
                "an option that was assigned to the store's embeddings encodes documents "
                "otherwise than those that it has stored: assign the former value, or make a new "
                "store"
            )
        self._model = new
        return new._source

    @property
    def _collection(self) -> QdrantCollection:
        # Made for each call, since what it is made of can be assigned.
        return QdrantCollection(
            self._source,
            self._connection,
            self.fusion,
            self.fetch_k,
            self.long_multi_vectors,
        )

    def _explained(self) -> tuple[TextEncoder, dict[str, Any]]:
        collection = self._collection
        return collection.encoder, explained_search(*collection.scored(self._rankings))

    @property
    def _rankings(self) -> Rankings:
        return Rankings(multi=self.rerank)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[Document]:
        """Search; as ``similarity_search_with_score_by_vector``, without scores."""
        found = self.similarity_search_with_score_by_vector(embedding, k, filter, **kwargs)
        return [document for document, _ in found]

    async def asimilarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[Document]:
        """Do ``similarity_search_by_vector`` without blocking the event loop."""
        found = await self.asimilarity_search_with_score_by_vector(embedding, k, filter, **kwargs)
        return [document for document, _ in found]

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Search by a dense vector.

        Args:
            embedding: The vector, as ``M3Embeddings.embed_query`` gives it.
            k: Documents to return.
            filter: As of ``similarity_search_with_score``.
            **kwargs: As there, without ``hybrid_fusion``.

        Returns:
            Documents with their similarity to the vector, best first.

        Raises:
            ValueError: ``k`` is below 1, the vector is none, or the store has no dense vectors.
        """
        search = search_options(filter, kwargs)
        rankings = self._by_vector(embedding, k, search)
        return self._documents(self._collection.search_encoded(None, k, search, rankings))

    async def asimilarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Do ``similarity_search_with_score_by_vector`` without blocking the event loop."""
        search = search_options(filter, kwargs)
        rankings = self._by_vector(embedding, k, search)
        return self._documents(await self._collection.asearch_encoded(None, k, search, rankings))

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Where | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Search by a dense vector for documents that differ from each other.

        Args:
            embedding: The vector.
            k: Documents to return.
            fetch_k: So many of the nearest documents, and at least ``k``, to choose from.
            lambda_mult: From 0, most different, to 1, nearest.
            filter: As of ``similarity_search_with_score``.
            **kwargs: As there, without ``hybrid_fusion``.

        Returns:
            The documents, in the order in which they were chosen.
        """
        search = search_options(filter, kwargs)
        fetch_k = max(check_count("fetch_k", fetch_k), check_count("k", k))
        rankings, collection = self._by_vector(embedding, fetch_k, search), self._collection
        vectors = collection.with_dense()
        found = collection.search_encoded(None, fetch_k, search, rankings, with_vectors=vectors)
        return self._diverse(found, embedding, k, lambda_mult)

    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Where | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Do ``max_marginal_relevance_search_by_vector`` without blocking the event loop."""
        search = search_options(filter, kwargs)
        fetch_k = max(check_count("fetch_k", fetch_k), check_count("k", k))
        rankings, collection = self._by_vector(embedding, fetch_k, search), self._collection
        vectors = collection.with_dense()
        found = await collection.asearch_encoded(
            None, fetch_k, search, rankings, with_vectors=vectors
        )
        return self._diverse(found, embedding, k, lambda_mult)

    def _by_vector(self, embedding: list[float], k: int, search: Search) -> Rankings:
        if self.names.dense is None:
            raise ValueError("this store has no dense vectors, since its vector_name is None")
        if search.hybrid_fusion is not None:
            raise ValueError("hybrid_fusion is for searches by text; a vector has but one ranking")
        vector = check_vector(embedding).tolist()
        rankings = Rankings(sparse=False, multi=False, vector=vector)
        self._collection.check(k, search, rankings)
        return rankings

    def _documents(self, found: list[ScoredPoint]) -> list[tuple[Document, float]]:
        return [(document(read_point(one, self.names)), score) for one, score in found]

    def _diverse(
        self, found: list[ScoredPoint], vector: list[float], k: int, lambda_mult: float
    ) -> list[Document]:
        pairs = [(point, self._collection.dense_of(point)) for point, _ in found]
        # Points of others may have no dense vector to compare by.
        comparable: list[tuple[models.ScoredPoint, Any]] = [one for one in pairs if one[1]]
        vectors = [one for _, one in comparable]
        chosen = maximal_marginal_relevance(np.array(vector), vectors, lambda_mult, k)
        return [document(read_point(comparable[i][0], self.names)) for i in chosen]


def search_options(where: Where | None, options: dict[str, Any]) -> Search:
    """Read keywords of a search.

    Args:
        where: Its filter.
        options: The others.

    Returns:
        What is asked for.
    """
    known = [field.name for field in fields(Search) if field.name != "filter"]
    unknown = {name: value for name, value in options.items() if name not in known}
    refuse_keywords("a search of QdrantHybridStore", unknown, ("k", "filter", *known))
    return Search(where, **options)


def document(stored: Stored) -> Document:
    """Make a document of LangChain.

    Args:
        stored: What a point holds.

    Returns:
        The document.
    """
    return Document(id=stored.id, page_content=stored.text, metadata=stored.metadata)
