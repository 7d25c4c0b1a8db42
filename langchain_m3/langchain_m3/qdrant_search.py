"""How ``QdrantHybridStore`` searches: one query for all rankings, scores, diversity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.documents import Document

from langchain_m3.options import EncoderFields
from langchain_m3.qdrant_filters import Where
from langchain_m3.qdrant_points import LongMultiVectors, fit_multi_vector
from langchain_m3.qdrant_queries import Fusion, Search, hybrid_query
from langchain_m3.qdrant_vectors import QdrantVectorSearch
from m3_core.arguments import check_count
from m3_core.representations import Representations


class StoreModel(EncoderFields):
    """The options of the store's model."""

    roles = ("query",)

    needed: tuple[str, ...] = ("dense", "sparse")
    """What the collection keeps."""

    def _needed_parts(self) -> tuple[str, ...]:
        return self.needed


class QdrantSearch(QdrantVectorSearch):
    """The searching half of the store."""

    rerank: bool
    fusion: Fusion
    fetch_k: int | None
    long_multi_vectors: LongMultiVectors
    _model: StoreModel

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
        search = self._checked_search(k, Search(filter, **kwargs))
        asked, scale = self._request(self._model._source.queries([query]), k, search)
        return self._scored(self._connection.call("query_points", **asked), scale)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Do ``similarity_search_with_score`` without blocking the event loop."""
        search = self._checked_search(k, Search(filter, **kwargs))
        reps = await self._model._source.aqueries([query])
        asked, scale = self._request(reps, k, search)
        return self._scored(await self._connection.acall("query_points", **asked), scale)

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
        search = Search(filter, **kwargs)
        fetch_k = self._checked_fetch(k, fetch_k, search)
        reps = self._model._source.queries([query])
        asked, _ = self._request(reps, fetch_k, search)
        found = self._connection.call("query_points", **asked | self._with_vectors())
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
        search = Search(filter, **kwargs)
        fetch_k = self._checked_fetch(k, fetch_k, search)
        reps = await self._model._source.aqueries([query])
        asked, _ = self._request(reps, fetch_k, search)
        found = await self._connection.acall("query_points", **asked | self._with_vectors())
        return self._diverse(found, reps.dense_lists()[0], k, lambda_mult)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        if self.names.dense is None and not self.rerank:
            # A lexical score is not bounded.
            return lambda score: max(score, 0.0) / (1.0 + max(score, 0.0))
        # The fused scores reach 1 by rank and about 2 by distribution; cosines may be negative.
        is_fused = self.names.sparse is not None and not self.rerank
        top = 2.0 if self.fusion == "dbsf" and is_fused else 1.0
        return lambda score: min(max(score / top, 0.0), 1.0)

    def _checked_search(self, k: int, search: Search) -> Search:
        """Refuse what cannot be before the network runs."""
        check_count("k", k)
        search.condition(self.names)
        return search

    def _checked_fetch(self, k: int, fetch_k: int, search: Search) -> int:
        if self.names.dense is None:
            raise ValueError("this store has no dense vectors, since its vector_name is None")
        fetch_k = max(check_count("fetch_k", fetch_k), check_count("k", k))
        self._checked_search(fetch_k, search)
        return fetch_k

    def _request(
        self, reps: Representations, k: int, search: Search
    ) -> tuple[dict[str, Any], float]:
        """What Qdrant is asked for, and what its scores are multiplied with to be ours."""
        multi, scale = None, 1.0
        if self.rerank and reps.colbert_vecs is not None:
            multi = fit_multi_vector(reps.colbert_vecs[0], self.long_multi_vectors, "the query")
            scale = 1.0 / len(multi)
        wanted = k + search.offset
        fetch_k = max(4 * wanted, 100) if self.fetch_k is None else max(self.fetch_k, wanted)
        return hybrid_query(reps, k, fetch_k, self.names, search, self.fusion, multi), scale
