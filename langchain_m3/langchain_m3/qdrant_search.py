"""How ``QdrantHybridStore`` searches: one query for all rankings, scores, diversity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.documents import Document
from qdrant_client import models

from langchain_m3.qdrant_vectors import QdrantVectorSearch, document, search_options
from m3_core.arguments import check_count
from m3_core.stores.qdrant import Search, Where, read_point


class QdrantSearch(QdrantVectorSearch):
    """The searching half of the store."""

    def similarity_search(
        self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[Document]:
        """Search; as ``similarity_search_with_score``, without scores."""
        found = self.similarity_search_with_score(query, k, filter, **kwargs)
        return [document for document, _ in found]

    async def asimilarity_search(
        self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[Document]:
        """Do ``similarity_search`` without blocking the event loop."""
        found = await self.asimilarity_search_with_score(query, k, filter, **kwargs)
        return [document for document, _ in found]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Search.

        Args:
            query: The query.
            k: Documents to return.
            filter: Only documents with such metadata, in the language of ``m3_core.filters``, as
                ``{"language": "de", "year": {"$gte": 2020}}``; or a filter of Qdrant.
            **kwargs: ``score_threshold``, only documents with this score or a higher one;
                ``offset``, so many of the best are left out; ``hybrid_fusion``, of Qdrant, in
                place of the store's fusion; ``search_params``, ``consistency``, ``timeout`` and
                ``shard_key_selector`` of Qdrant.

        Returns:
            Documents with scores as the class describes them, best first.

        Raises:
            ValueError: ``k`` is below 1.
            TypeError: The filter is none, or there is no such keyword.
            FilterError: It is not of the language, or Qdrant cannot express it.
        """
        search = search_options(filter, kwargs)
        return self._documents(self._collection.search(query, k, search, self._rankings))

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Do ``similarity_search_with_score`` without blocking the event loop."""
        search = search_options(filter, kwargs)
        return self._documents(await self._collection.asearch(query, k, search, self._rankings))

    def search_with_scores(
        self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[tuple[Document, float, dict[str, float]]]:
        """Search, and say what each representation says about the documents that were found.

        Args:
            query: The query.
            k: Documents to return.
            filter: As of ``similarity_search_with_score``.
            **kwargs: Likewise.

        Returns:
            Documents, their scores as of ``similarity_search_with_score``, and those by
            ``"dense"``, ``"sparse"`` and, with ``rerank``, ``"colbert"``; best first.
        """
        search = search_options(filter, kwargs)
        found = self._collection.search_with_scores(query, k, search, self._rankings)
        return [
            (document(read_point(one, self.names)), score, scores) for one, score, scores in found
        ]

    async def asearch_with_scores(
        self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[tuple[Document, float, dict[str, float]]]:
        """Do ``search_with_scores`` without blocking the event loop."""
        search = search_options(filter, kwargs)
        found = await self._collection.asearch_with_scores(query, k, search, self._rankings)
        return [
            (document(read_point(one, self.names)), score, scores) for one, score, scores in found
        ]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
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
            filter: As of ``similarity_search_with_score``.
            **kwargs: As there.

        Returns:
            The documents, in the order in which they were chosen.

        Raises:
            ValueError: ``k`` or ``fetch_k`` is below 1, or the store has no dense vectors.
        """
        search = search_options(filter, kwargs)
        fetch_k = self._checked_fetch(k, fetch_k, search)
        collection, rankings = self._collection, self._rankings
        reps = collection.encode(query, rankings)
        assert reps is not None
        found = collection.search_encoded(
            reps, fetch_k, search, rankings, with_vectors=collection.with_dense()
        )
        return self._diverse(found, reps.dense_lists()[0], k, lambda_mult)

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Where | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Do ``max_marginal_relevance_search`` without blocking the event loop."""
        search = search_options(filter, kwargs)
        fetch_k = self._checked_fetch(k, fetch_k, search)
        collection, rankings = self._collection, self._rankings
        reps = await collection.aencode(query, rankings)
        assert reps is not None
        found = await collection.asearch_encoded(
            reps, fetch_k, search, rankings, with_vectors=collection.with_dense()
        )
        return self._diverse(found, reps.dense_lists()[0], k, lambda_mult)

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        found = self.similarity_search_with_score(query, k, **kwargs)
        relevance = self._relevance(kwargs.get("hybrid_fusion"))
        return [(one, relevance(score)) for one, score in found]

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        found = await self.asimilarity_search_with_score(query, k, **kwargs)
        relevance = self._relevance(kwargs.get("hybrid_fusion"))
        return [(one, relevance(score)) for one, score in found]

    def _relevance(
        self, fusion: models.FusionQuery | models.RrfQuery | None
    ) -> Callable[[float], float]:
        # The scores are those of the fusion that this search used.
        if fusion is None or not self._is_fused:
            return self._select_relevance_score_fn()
        if isinstance(fusion, models.FusionQuery):
            return _relevance_to(2.0 if fusion.fusion == models.Fusion.DBSF else 1.0)
        # First in both rankings.
        return _relevance_to(2.0 / (fusion.rrf.k or 2))

    @property
    def _is_fused(self) -> bool:
        return None not in (self.names.dense, self.names.sparse) and not self.rerank

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        if self.names.dense is None and not self.rerank:
            # A lexical score is not bounded.
            return lambda score: max(score, 0.0) / (1.0 + max(score, 0.0))
        # The fused scores reach 1 by rank and about 2 by distribution; cosines may be negative.
        return _relevance_to(2.0 if self.fusion == "dbsf" and self._is_fused else 1.0)

    def _checked_fetch(self, k: int, fetch_k: int, search: Search) -> int:
        if self.names.dense is None:
            raise ValueError("this store has no dense vectors, since its vector_name is None")
        fetch_k = max(check_count("fetch_k", fetch_k), check_count("k", k))
        self._collection.check(fetch_k, search, self._rankings)
        return fetch_k


def _relevance_to(top: float) -> Callable[[float], float]:
    return lambda score: min(max(score / top, 0.0), 1.0)
