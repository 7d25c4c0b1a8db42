"""How ``M3InMemoryVectorStore`` searches: by text, by vector, for diversity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from langchain_m3.documents import check_retriever_keywords, document, refuse_keywords
from langchain_m3.retrievers import HybridFields
from m3_core.arguments import check_count
from m3_core.collection import Hit
from m3_core.filters import Filter

# Keywords of searches besides k and filter.
_FOR_TEXTS = ("weights", "fusion", "fetch_k", "exhaustive", "score_threshold")
_FOR_DIVERSITY = ("weights", "fusion", "exhaustive", "score_threshold")
_FOR_VECTORS = ("score_threshold",)
# Searching by a given vector: dense scores of all documents.
_BY_VECTOR: dict[str, Any] = {"weights": (1.0, 0.0, 0.0), "fusion": "weights", "exhaustive": True}


class InMemorySearch(HybridFields, VectorStore):
    """The searching half of the store."""

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

    def similarity_search(
        self, query: str, k: int | None = None, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """Search.

        Args:
            query: The query.
            k: Documents to return; by default the field.
            filter: As the field, in its place.
            **kwargs: ``weights``, ``fusion``, ``fetch_k``, ``exhaustive``; ``score_threshold``, the
                lowest score that is returned.

        Returns:
            The documents, best first.
        """
        _refuse_others("similarity_search", kwargs)
        return [document(one) for one in self._found(query, k, filter, **kwargs)]

    async def asimilarity_search(
        self, query: str, k: int | None = None, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """Do ``similarity_search`` without holding up the event loop."""
        _refuse_others("asimilarity_search", kwargs)
        return [document(one) for one in await self._afound(query, k, filter, **kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int | None = None, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Search, as ``similarity_search``, with the score that documents are sorted by."""
        _refuse_others("similarity_search_with_score", kwargs)
        return [(document(one), one.score) for one in self._found(query, k, filter, **kwargs)]

    async def asimilarity_search_with_score(
        self, query: str, k: int | None = None, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Do ``similarity_search_with_score`` without holding up the event loop."""
        _refuse_others("asimilarity_search_with_score", kwargs)
        found = await self._afound(query, k, filter, **kwargs)
        return [(document(one), one.score) for one in found]

    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int | None = None,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Search by a dense vector alone.

        Args:
            embedding: The vector. Shape: (dim,).
            k: Documents to return; by default the field.
            filter: As the field, in its place.
            **kwargs: ``score_threshold``.

        Returns:
            The documents, best first.
        """
        _refuse_others("similarity_search_by_vector", kwargs, _FOR_VECTORS)
        found = self._found("", k, filter, vector=embedding, **_BY_VECTOR, **kwargs)
        return [document(one) for one in found]

    async def asimilarity_search_by_vector(
        self,
        embedding: list[float],
        k: int | None = None,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Do ``similarity_search_by_vector`` without holding up the event loop."""
        _refuse_others("asimilarity_search_by_vector", kwargs, _FOR_VECTORS)
        found = await self._afound("", k, filter, vector=embedding, **_BY_VECTOR, **kwargs)
        return [document(one) for one in found]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int | None = None,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Search for documents that differ from each other (maximal marginal relevance).

        Args:
            query: The query.
            k: Documents to return; by default the field.
            fetch_k: So many of the best documents of the search, and at least ``k``, to choose
                from.
            lambda_mult: From 0, most different, to 1, nearest to the query by dense vectors.
            filter: As the field, in its place.
            **kwargs: ``weights``, ``fusion``, ``exhaustive``, ``score_threshold``.

        Returns:
            The documents, in the order in which they were chosen.
        """
        _refuse_others("max_marginal_relevance_search", kwargs, _FOR_DIVERSITY)
        k = self.k if k is None else k
        fetch_k = max(check_count("fetch_k", fetch_k), check_count("k", k))
        # One pass: the search finds this encoding in the cache, unless that is off.
        vector = self._source.queries([query]).dense_lists()[0]
        found = self._found(query, fetch_k, filter, return_vectors=True, **kwargs)
        return _diverse(found, vector, k, lambda_mult)

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int | None = None,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Do ``max_marginal_relevance_search`` without holding up the event loop."""
        _refuse_others("amax_marginal_relevance_search", kwargs, _FOR_DIVERSITY)
        k = self.k if k is None else k
        fetch_k = max(check_count("fetch_k", fetch_k), check_count("k", k))
        vector = (await self._source.aqueries([query])).dense_lists()[0]
        found = await self._afound(query, fetch_k, filter, return_vectors=True, **kwargs)
        return _diverse(found, vector, k, lambda_mult)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int | None = None,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Do ``max_marginal_relevance_search`` by a dense vector alone."""
        _refuse_others("max_marginal_relevance_search_by_vector", kwargs, _FOR_VECTORS)
        k = self.k if k is None else k
        fetch_k = max(check_count("fetch_k", fetch_k), check_count("k", k))
        options = {**_BY_VECTOR, **kwargs, "return_vectors": True}
        found = self._found("", fetch_k, filter, vector=embedding, **options)
        return _diverse(found, embedding, k, lambda_mult)

    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int | None = None,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Do ``max_marginal_relevance_search_by_vector`` without holding up the event loop."""
        _refuse_others("amax_marginal_relevance_search_by_vector", kwargs, _FOR_VECTORS)
        k = self.k if k is None else k
        fetch_k = max(check_count("fetch_k", fetch_k), check_count("k", k))
        options = {**_BY_VECTOR, **kwargs, "return_vectors": True}
        found = await self._afound("", fetch_k, filter, vector=embedding, **options)
        return _diverse(found, embedding, k, lambda_mult)

    def similarity_search_with_relevance_scores(
        self, query: str, k: int | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Search, as ``similarity_search``, with relevance scores, from 0 to 1.

        Args:
            query: The query.
            k: Documents to return; by default the field.
            **kwargs: As there; ``score_threshold`` is compared with relevance scores here.

        Returns:
            The documents and their relevance scores, best first.
        """
        own = self.k if k is None else k
        return super().similarity_search_with_relevance_scores(query, own, **kwargs)

    async def asimilarity_search_with_relevance_scores(
        self, query: str, k: int | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Do ``similarity_search_with_relevance_scores`` without holding up the event loop."""
        own = self.k if k is None else k
        return await super().asimilarity_search_with_relevance_scores(query, own, **kwargs)

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        found = self.similarity_search_with_score(query, k, **kwargs)
        relevance = self._relevance(kwargs)
        return [(one, relevance(score)) for one, score in found]

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        found = await self.asimilarity_search_with_score(query, k, **kwargs)
        relevance = self._relevance(kwargs)
        return [(one, relevance(score)) for one, score in found]

    def _relevance(self, options: Mapping[str, Any]) -> Callable[[float], float]:
        # The scores are those of the fusion that this search used.
        own = options.get("fusion", self.fusion) == self.fusion
        return self._select_relevance_score_fn() if own else _relevance_by(options["fusion"])

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return _relevance_by(self.fusion)

    def _found(
        self,
        query: str,
        k: int | None,
        where: Filter | None,
        *,
        score_threshold: float | None = None,
        **options: Any,
    ) -> list[Hit]:
        return _above(score_threshold, super()._found(query, k, where, **options))

    async def _afound(
        self,
        query: str,
        k: int | None,
        where: Filter | None,
        *,
        score_threshold: float | None = None,
        **options: Any,
    ) -> list[Hit]:
        return _above(score_threshold, await super()._afound(query, k, where, **options))


def _refuse_others(
    call: str, options: Mapping[str, Any], known: Sequence[str] = _FOR_TEXTS
) -> None:
    """Refuse keywords of a search that it does not take.

    Args:
        call: What was called.
        options: The keywords.
        known: Those that it takes.
    """
    unknown = {name: value for name, value in options.items() if name not in known}
    refuse_keywords(call, unknown, ("k", "filter", *known))
    threshold = options.get("score_threshold")
    if threshold is not None and not isinstance(threshold, (int, float, np.number)):
        raise TypeError(f"score_threshold must be a number; got {threshold!r}")


def _relevance_by(fusion: str) -> Callable[[float], float]:
    # First in all rankings; the weights have the sum 1.
    top = 1.0 / 61 if fusion == "rrf" else 1.0
    return lambda score: min(max(score / top, 0.0), 1.0)


def _above(threshold: float | None, found: list[Hit]) -> list[Hit]:
    return [one for one in found if threshold is None or one.score >= threshold]


def _diverse(
    found: Iterable[Hit], vector: list[float], k: int, lambda_mult: float
) -> list[Document]:
    kept = [one for one in found if one.vector is not None]
    vectors: list[Any] = [one.vector for one in kept]
    chosen = maximal_marginal_relevance(np.array(vector), vectors, lambda_mult, k)
    return [document(kept[i]) for i in chosen]
