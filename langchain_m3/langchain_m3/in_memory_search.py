"""How ``M3InMemoryVectorStore`` searches: by text, by vector, for diversity."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from langchain_m3.documents import document
from langchain_m3.retrievers import HybridFields
from m3_core.arguments import check_count
from m3_core.collection.fusion import Found
from m3_core.filters import Filter

# Searching by a given vector: dense scores of all documents.
_BY_VECTOR: dict[str, Any] = {"weights": (1.0, 0.0, 0.0), "fusion": "weights", "exhaustive": True}


class InMemorySearch(HybridFields, VectorStore):
    """The searching half of the store."""

    def similarity_search(
        self, query: str, k: int = 4, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """Search.

        Args:
            query: The query.
            k: Documents to return.
            filter: As the field, in its place.
            **kwargs: ``weights``, ``fusion``, ``fetch_k``, ``exhaustive``.

        Returns:
            The documents, best first.
        """
        return [document(one) for one in self._found(query, k, filter, **kwargs)]

    async def asimilarity_search(
        self, query: str, k: int = 4, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """Do ``similarity_search`` without holding up the event loop."""
        return [document(one) for one in await self._afound(query, k, filter, **kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Search, as ``similarity_search``, with the score that documents are sorted by."""
        return [(document(one), one.score) for one in self._found(query, k, filter, **kwargs)]

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Do ``similarity_search_with_score`` without holding up the event loop."""
        found = await self._afound(query, k, filter, **kwargs)
        return [(document(one), one.score) for one in found]

    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Search by a dense vector alone.

        Args:
            embedding: The vector. Shape: (dim,).
            k: Documents to return.
            filter: As the field, in its place.
            **kwargs: There are none.

        Returns:
            The documents, best first.
        """
        found = self._found("", k, filter, vector=embedding, **_BY_VECTOR, **kwargs)
        return [document(one) for one in found]

    async def asimilarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Do ``similarity_search_by_vector`` without holding up the event loop."""
        found = await self._afound("", k, filter, vector=embedding, **_BY_VECTOR, **kwargs)
        return [document(one) for one in found]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Search for documents that differ from each other (maximal marginal relevance).

        Args:
            query: The query.
            k: Documents to return.
            fetch_k: So many of the best documents of the search, and at least ``k``, to choose
                from.
            lambda_mult: From 0, most different, to 1, nearest to the query by dense vectors.
            filter: As the field, in its place.
            **kwargs: ``weights``, ``fusion``, ``exhaustive``.

        Returns:
            The documents, in the order in which they were chosen.
        """
        fetch_k = max(check_count("fetch_k", fetch_k), check_count("k", k))
        # One pass: the search finds this encoding in the cache, unless that is off.
        vector = self._source.queries([query]).dense_lists()[0]
        found = self._found(query, fetch_k, filter, return_vectors=True, **kwargs)
        return _diverse(found, vector, k, lambda_mult)

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Do ``max_marginal_relevance_search`` without holding up the event loop."""
        fetch_k = max(check_count("fetch_k", fetch_k), check_count("k", k))
        vector = (await self._source.aqueries([query])).dense_lists()[0]
        found = await self._afound(query, fetch_k, filter, return_vectors=True, **kwargs)
        return _diverse(found, vector, k, lambda_mult)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Do ``max_marginal_relevance_search`` by a dense vector alone."""
        fetch_k = max(check_count("fetch_k", fetch_k), check_count("k", k))
        options = {**_BY_VECTOR, **kwargs, "return_vectors": True}
        found = self._found("", fetch_k, filter, vector=embedding, **options)
        return _diverse(found, embedding, k, lambda_mult)

    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Do ``max_marginal_relevance_search_by_vector`` without holding up the event loop."""
        fetch_k = max(check_count("fetch_k", fetch_k), check_count("k", k))
        options = {**_BY_VECTOR, **kwargs, "return_vectors": True}
        found = await self._afound("", fetch_k, filter, vector=embedding, **options)
        return _diverse(found, embedding, k, lambda_mult)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        # First in all rankings; the weights have the sum 1.
        top = 1.0 / 61 if self.fusion == "rrf" else 1.0
        return lambda score: min(max(score / top, 0.0), 1.0)


def _diverse(
    found: Iterable[Found], vector: list[float], k: int, lambda_mult: float
) -> list[Document]:
    kept = [one for one in found if one.vector is not None]
    vectors: list[Any] = [one.vector for one in kept]
    chosen = maximal_marginal_relevance(np.array(vector), vectors, lambda_mult, k)
    return [document(kept[i]) for i in chosen]
