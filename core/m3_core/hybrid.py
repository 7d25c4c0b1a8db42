"""M3's own scores of queries with documents, for rerankers and the first step of cascades."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m3_core.adapter import AdapterEncoder
from m3_core.ranking import select_best
from m3_core.scoring import hybrid_scores, normalized_weights
from m3_core.texts import check_pairs, check_texts, distinct

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from m3_core.encoder import Encoder
    from m3_core.encoding import Role

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
    shares = normalized_weights(weights)
    parts = ("dense", "sparse", "colbert")
    return tuple(part for part, share in zip(parts, shares, strict=True) if share > 0)


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

    def __init__(self, encoder: Encoder | AdapterEncoder, weights: Sequence[float]) -> None:
        parts = weighted_parts(weights)
        self.weights = tuple(weights)
        self.encodings = (
            encoder
            if isinstance(encoder, AdapterEncoder)
            else AdapterEncoder(encoder, parts, roles=SCORED_ROLES)
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
        queries, documents = check_pairs(pairs)
        if not queries:
            return []
        query_rows, distinct_queries = distinct(queries)
        document_rows, distinct_documents = distinct(documents)
        query_reps = self.encodings.queries(distinct_queries)
        document_reps = self.encodings.documents(distinct_documents, show_progress=show_progress)
        scores = np.empty(len(queries), np.float32)
        for row in range(len(distinct_queries)):
            own = np.flatnonzero(query_rows == row)
            asked = document_reps[document_rows[own]]
            scores[own] = hybrid_scores(query_reps[row], asked, self.weights)[0]
        found: list[float] = scores.tolist()
        return found

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
        (query,) = check_texts([query])
        pairs = [(query, document) for document in check_texts(documents)]
        return select_best(self.score(pairs, show_progress=show_progress), top_n, threshold)
