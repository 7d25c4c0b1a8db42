"""How ``QdrantHybridStore`` searches: one query for all rankings, scores, diversity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from qdrant_client import models

from langchain_m3.options import EncoderFields
from langchain_m3.qdrant_connection import Connection
from langchain_m3.qdrant_filters import Where, qdrant_filter
from langchain_m3.qdrant_points import (
    DENSE,
    ID,
    METADATA,
    TEXT,
    Fusion,
    LongMultiVectors,
    fit_multi_vector,
    hybrid_query,
)
from m3_core.arguments import check_count


class StoreModel(EncoderFields):
    """The options of the store's model."""

    multi: bool = False
    """Multi-vectors are needed too."""

    def _needed_parts(self) -> tuple[str, ...]:
        return ("dense", "sparse", "colbert") if self.multi else ("dense", "sparse")


class QdrantSearch(VectorStore):
    """The searching half of the store."""

    rerank: bool
    fusion: Fusion
    fetch_k: int | None
    long_multi_vectors: LongMultiVectors
    _model: StoreModel
    _connection: Connection

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Search; as ``similarity_search_with_score``, without scores."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Do ``similarity_search`` without blocking the event loop."""
        found = await self.asimilarity_search_with_score(query, k, **kwargs)
        return [document for document, _ in found]

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Where | None = None
    ) -> list[tuple[Document, float]]:
        """Search.

        Args:
            query: The query.
            k: Documents to return.
            filter: Only documents with such metadata, in the language of ``m3_core.filters``, as
                ``{"language": "de", "year": {"$gte": 2020}}``; or a filter of Qdrant.

        Returns:
            Documents with scores as the class describes them, best first.

        Raises:
            ValueError: ``k`` is below 1.
            TypeError: The filter is none.
            FilterError: It is not of the language, or Qdrant cannot express it.
        """
        asked, scale = self._query(query, k, filter)
        return _scored(self._connection.call("query_points", **asked), scale)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Where | None = None
    ) -> list[tuple[Document, float]]:
        """Do ``similarity_search_with_score`` without blocking the event loop."""
        asked, scale = await self._model._model.run_async(self._query, query, k, filter)
        return _scored(await self._connection.acall("query_points", **asked), scale)

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Where | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Search for documents that differ from each other (maximal marginal relevance).

        Args:
            query: The query.
            k: Documents to return.
            fetch_k: So many of the best documents of the search, and at least ``k``, to choose
                from.
            lambda_mult: From 0, most different, to 1, nearest to the query by dense vectors.
            filter: Only documents with such metadata, in the language of ``m3_core.filters``, as
                ``{"language": "de", "year": {"$gte": 2020}}``; or a filter of Qdrant.
            **kwargs: Ignored.

        Returns:
            The documents, in the order in which they were chosen.

        Raises:
            ValueError: ``k`` or ``fetch_k`` is below 1.
        """
        asked, vector = self._diverse_query(query, k, fetch_k, filter)
        return _diverse(self._connection.call("query_points", **asked), vector, k, lambda_mult)

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Where | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Do ``max_marginal_relevance_search`` without blocking the event loop."""
        asked, vector = await self._model._model.run_async(
            self._diverse_query, query, k, fetch_k, filter
        )
        found = await self._connection.acall("query_points", **asked)
        return _diverse(found, vector, k, lambda_mult)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        # The fused scores reach 1 by rank and about 2 by distribution; cosines may be negative.
        top = 2.0 if self.fusion == "dbsf" and not self.rerank else 1.0
        return lambda score: min(max(score / top, 0.0), 1.0)

    def _query(self, query: str, k: int, where: Where | None) -> tuple[dict[str, Any], float]:
        check_count("k", k)
        condition = qdrant_filter(where)
        reps = self._model._source.queries([query])
        multi, scale = None, 1.0
        if self.rerank and reps.colbert_vecs is not None:
            multi = fit_multi_vector(reps.colbert_vecs[0], self.long_multi_vectors, "the query")
            scale = 1.0 / len(multi)
        fetch_k = max(4 * k, 100) if self.fetch_k is None else max(self.fetch_k, k)
        return hybrid_query(reps, k, fetch_k, condition, self.fusion, multi), scale

    def _diverse_query(
        self, query: str, k: int, fetch_k: int, where: Where | None
    ) -> tuple[dict[str, Any], list[float]]:
        fetch_k = max(check_count("fetch_k", fetch_k), check_count("k", k))
        asked, _ = self._query(query, fetch_k, where)
        # The query's encoding comes out of the cache, unless that is off.
        vector = self._model._source.queries([query]).dense_lists()[0]
        return {**asked, "with_vectors": [DENSE]}, vector


def document(payload: dict[str, Any]) -> Document:
    """A document out of a point's payload.

    Args:
        payload: As ``points`` makes it.

    Returns:
        The document.
    """
    return Document(id=payload[ID], page_content=payload[TEXT], metadata=payload[METADATA])


def _scored(found: models.QueryResponse, scale: float) -> list[tuple[Document, float]]:
    return [(document(one.payload or {}), one.score * scale) for one in found.points]


def _diverse(
    found: models.QueryResponse, vector: list[float], k: int, lambda_mult: float
) -> list[Document]:
    vectors: list[Any] = [
        point.vector[DENSE] for point in found.points if isinstance(point.vector, dict)
    ]
    chosen = maximal_marginal_relevance(np.array(vector), vectors, lambda_mult, k)
    return [document(found.points[i].payload or {}) for i in chosen]
