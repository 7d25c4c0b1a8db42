"""How ``QdrantHybridStore`` searches by a dense vector that the caller has."""

from __future__ import annotations

from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from qdrant_client import models

from m3_core.arguments import check_count, check_vector
from m3_core.stores.qdrant import (
    Connection,
    Names,
    ScoredPoint,
    Search,
    Stored,
    Where,
    read_point,
    vector_query,
)


class QdrantVectorSearch(VectorStore):
    """Searches by dense vectors alone; their score is the similarity of the two vectors."""

    names: Names
    _connection: Connection

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
        asked = self._vector_query(embedding, k, Search(filter, **kwargs))
        return self._documents(_scored(self._connection.call("query_points", **asked)))

    async def asimilarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Do ``similarity_search_with_score_by_vector`` without blocking the event loop."""
        asked = self._vector_query(embedding, k, Search(filter, **kwargs))
        return self._documents(_scored(await self._connection.acall("query_points", **asked)))

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
        asked = self._diverse_by_vector(embedding, k, fetch_k, Search(filter, **kwargs))
        found = self._connection.call("query_points", **asked)
        return self._diverse(_scored(found), embedding, k, lambda_mult)

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
        asked = self._diverse_by_vector(embedding, k, fetch_k, Search(filter, **kwargs))
        found = await self._connection.acall("query_points", **asked)
        return self._diverse(_scored(found), embedding, k, lambda_mult)

    def _vector_query(self, embedding: list[float], k: int, search: Search) -> dict[str, Any]:
        return vector_query(check_vector(embedding).tolist(), k, self.names, search)

    def _diverse_by_vector(
        self, embedding: list[float], k: int, fetch_k: int, search: Search
    ) -> dict[str, Any]:
        fetch_k = max(check_count("fetch_k", fetch_k), check_count("k", k))
        return self._vector_query(embedding, fetch_k, search) | self._with_vectors()

    def _with_vectors(self) -> dict[str, Any]:
        # The unnamed vector cannot be asked for by its name.
        return {"with_vectors": [self.names.dense] if self.names.dense else True}

    def _documents(self, found: list[ScoredPoint]) -> list[tuple[Document, float]]:
        return [(document(read_point(one, self.names)), score) for one, score in found]

    def _diverse(
        self, found: list[ScoredPoint], vector: list[float], k: int, lambda_mult: float
    ) -> list[Document]:
        name = self.names.dense or ""
        pairs = [
            (point, point.vector.get(name) if isinstance(point.vector, dict) else point.vector)
            for point, _ in found
        ]
        # Points of others may have no dense vector to compare by.
        comparable: list[tuple[models.ScoredPoint, Any]] = [one for one in pairs if one[1]]
        vectors = [one for _, one in comparable]
        chosen = maximal_marginal_relevance(np.array(vector), vectors, lambda_mult, k)
        return [document(read_point(comparable[i][0], self.names)) for i in chosen]


def _scored(found: models.QueryResponse) -> list[ScoredPoint]:
    return [(one, one.score) for one in found.points]


def document(stored: Stored) -> Document:
    """Make a document of LangChain.

    Args:
        stored: What a point holds.

    Returns:
        The document.
    """
    return Document(id=stored.id, page_content=stored.text, metadata=stored.metadata)
