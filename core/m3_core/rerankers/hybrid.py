"""M3's own scores of queries with documents, for rerankers and the first step of cascades."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from m3_core.beside import beside
from m3_core.encoder import TEXTS_ON_THE_LOOP, CachedEncoder
from m3_core.rerankers.ranking import select_best
from m3_core.scoring import hybrid_scores, normalized_weights
from m3_core.texts import check_pairs, distinct, pairs_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from m3_core.encoder import Role, TextEncoder
    from m3_core.representations import Representations
    from m3_core.texts import CheckedTexts

# Whoever encodes a query computes what its candidates will be scored with. Of documents that is
# left for the candidates: the multi-vectors of a whole collection would fill the cache.
SCORED_ROLES: tuple[Role, ...] = ("query",)


def weighted_parts(weights: Sequence[float]) -> tuple[str, ...]:
    """Say which representations a weighted score needs.

    Args:
        weights: Of dense, lexical and multi-vector scores.

    Returns:
        Of ``"dense"``, ``"sparse"`` and ``"colbert"`` those with a weight above 0.

    Raises:
        ValueError: The weights are not three numbers of at least 0 with a sum above 0.

    Example:
        >>> weighted_parts((1.0, 0.3, 0.0))
        ('dense', 'sparse')
    """
    normalized = normalized_weights(weights)
    parts = ("dense", "sparse", "colbert")
    return tuple(part for part, weight in zip(parts, normalized, strict=True) if weight > 0)


class HybridScorer:
    """Scores pairs of texts by the weighted mean of M3's dense, lexical and multi-vector scores.

    A part of weight 0 is not computed, so ``(1, 0, 0)``, a cosine, works with dense encoders too.
    Texts that another adapter over the same model has just encoded are not encoded again.

    Args:
        encoder: The encoder, or an adapter's view with the parts that the weights need.
        weights: Of dense, lexical and multi-vector scores.

    Raises:
        ValueError: The weights are not three numbers of at least 0 with a sum above 0.
        MissingRepresentationError: The encoder lacks a representation with a weight.
    """

    def __init__(self, encoder: TextEncoder, weights: Sequence[float]) -> None:
        parts = weighted_parts(weights)
        self.weights = tuple(weights)
        self.encodings = (
            encoder
            if isinstance(encoder, CachedEncoder)
            else CachedEncoder(encoder, parts, roles=SCORED_ROLES)
        )

    def score(
        self, pairs: Iterable[tuple[str, str]], *, show_progress: bool = False
    ) -> list[float]:
        """Score pairs, each query against its own documents only.

        Args:
            pairs: Queries with documents; equal texts are encoded once.
            show_progress: Show a progress bar while documents are encoded.

        Returns:
            One score a pair.

        Raises:
            TypeError: An element is no pair of strings.
            ValueError: A text holds a lone surrogate.
        """
        asked = _Asked(*check_pairs(pairs))
        if not asked.documents:
            return []
        return asked.scores(
            self.encodings.queries(asked.queries),
            self.encodings.documents(asked.documents, show_progress=show_progress),
            self.weights,
        )

    async def ascore(
        self, pairs: Iterable[tuple[str, str]], *, show_progress: bool = False
    ) -> list[float]:
        """Do ``score`` without holding up the event loop or occupying a thread."""
        asked = _Asked(*check_pairs(pairs))
        if not asked.documents:
            return []
        queries, documents = await asyncio.gather(
            self.encodings.aqueries(asked.queries),
            self.encodings.adocuments(asked.documents, show_progress=show_progress),
        )
        if len(documents) <= TEXTS_ON_THE_LOOP:
            return asked.scores(queries, documents, self.weights)
        return await beside(asked.scores, queries, documents, self.weights)

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        *,
        threshold: float | None = None,
        show_progress: bool = False,
    ) -> list[tuple[int, float]]:
        """Order documents by their score for a query.

        Args:
            query: The query.
            documents: The documents.
            top_n: How many to keep at most; all if ``None``.
            threshold: The lowest score that is kept: a score equal to it stays.
            show_progress: Show a progress bar while documents are encoded.

        Returns:
            (position among the documents, score), the best first; ties in the given order.

        Raises:
            TypeError: A text is no string.
            ValueError: ``top_n`` is below 0, or a text holds a lone surrogate.
        """
        pairs = pairs_of(query, documents)
        return select_best(self.score(pairs, show_progress=show_progress), top_n, threshold)

    async def arank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        *,
        threshold: float | None = None,
        show_progress: bool = False,
    ) -> list[tuple[int, float]]:
        """Do ``rank`` without holding up the event loop or occupying a thread."""
        pairs = pairs_of(query, documents)
        return select_best(await self.ascore(pairs, show_progress=show_progress), top_n, threshold)


class _Asked:
    """Distinct texts of pairs, and which pair has which."""

    def __init__(self, queries: CheckedTexts, documents: CheckedTexts) -> None:
        self._query_rows, self.queries = distinct(queries)
        self._document_rows, self.documents = distinct(documents)

    def scores(
        self, queries: Representations, documents: Representations, weights: Sequence[float]
    ) -> list[float]:
        scores = np.empty(len(self._query_rows), np.float32)
        for row in range(len(self.queries)):
            own = np.flatnonzero(self._query_rows == row)
            asked = documents[self._document_rows[own]]
            scores[own] = hybrid_scores(queries[row], asked, weights)[0]
        found: list[float] = scores.tolist()
        return found
