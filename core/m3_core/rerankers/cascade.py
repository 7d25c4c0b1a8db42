"""M3's own scores first, a cross-encoder on the best of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from m3_core.encoder import TextEncoder
from m3_core.rerankers.hybrid import HybridScorer
from m3_core.rerankers.protocol import TextReranker
from m3_core.rerankers.ranking import select_best
from m3_core.texts import CheckedPairs, pairs_of

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class CascadeScore:
    """What a cascade found out about a document.

    Attributes:
        index: Its position among the given documents.
        score: Of the reranker; results are sorted by it.
        first_score: M3's weighted score, which let it into the second step.
    """

    index: int
    score: float
    first_score: float


class Cascade:
    """Two steps as one object: an encoder's hybrid score, then a reranker on the few best.

    A reranker runs the network once for each document; M3's scores are cheaper and thin out what
    the reranker must read. BAAI recommends to retrieve 100 documents and to rerank them to 3.

    Args:
        encoder: The encoder of the first step.
        reranker: The reranker of the second.
        first: How many documents go from the first step to the second; others are dropped.
        weights: Of M3's dense, lexical and multi-vector scores; a part of weight 0 is not
            computed, so ``(1, 0, 0)`` works with dense encoders too.

    Raises:
        TypeError: The encoder or the reranker is of another type.
        ValueError: ``first`` is below 1, or the weights do not have a sum above 0.
        MissingRepresentationError: The encoder lacks a representation with a weight.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        reranker: TextReranker,
        *,
        first: int = 20,
        weights: tuple[float, float, float] = (1.0, 0.3, 1.0),
    ) -> None:
        if not isinstance(encoder, TextEncoder):
            raise TypeError(
                "encoder must be an m3_core.Encoder or another m3_core.TextEncoder; got "
                f"{type(encoder).__name__}"
            )
        if not isinstance(reranker, TextReranker):
            raise TypeError(
                "reranker must be an m3_core.Reranker or m3_core.RemoteReranker; got "
                f"{type(reranker).__name__}"
            )
        if first < 1:
            raise ValueError(f"first must be at least 1; got {first}")
        self._first = HybridScorer(encoder, weights)
        self.encoder = encoder
        self.reranker = reranker
        self.first = first
        self.weights = weights

    def first_scores(self, query: str, documents: Iterable[str]) -> list[float]:
        """Score documents with the encoder alone.

        Args:
            query: The query.
            documents: The documents; equal ones are encoded once, and those that an adapter over
                the same model has just encoded not again.

        Returns:
            M3's weighted score of each document.
        """
        return self._first.score(pairs_of(query, documents))

    def compute(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        *,
        threshold: float | None = None,
        normalize: bool = False,
        show_progress: bool = False,
    ) -> list[CascadeScore]:
        """Order documents and say how each step scored them.

        Args:
            query: The query.
            documents: The documents.
            top_n: How many to return at most; all of the second step if ``None``.
            threshold: The lowest score of the reranker that is kept.
            normalize: Put the reranker's scores through the sigmoid; the threshold is compared
                with the result.
            show_progress: Show a progress bar of the second step.

        Returns:
            The documents of the second step, the best first; an empty list for no documents.

        Raises:
            TypeError: A text is no string.
            ValueError: ``top_n`` is below 0.
            NonFiniteError: A network gave NaN or infinity.
        """
        all_pairs = pairs_of(query, documents)
        chosen = select_best(self._first.score(all_pairs), self.first)
        pairs = CheckedPairs(all_pairs[i] for i, _ in chosen)
        scores = self.reranker.compute_score(pairs, normalize, show_progress=show_progress)
        return _merged(chosen, select_best(scores, top_n, threshold))

    async def acompute(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        *,
        threshold: float | None = None,
        normalize: bool = False,
        show_progress: bool = False,
    ) -> list[CascadeScore]:
        """Do ``compute`` without holding up the event loop or occupying a thread."""
        all_pairs = pairs_of(query, documents)
        chosen = select_best(await self._first.ascore(all_pairs), self.first)
        pairs = CheckedPairs(all_pairs[i] for i, _ in chosen)
        scores = await self.reranker.acompute_score(pairs, normalize, show_progress=show_progress)
        return _merged(chosen, select_best(scores, top_n, threshold))

    def rank(
        self, query: str, documents: Iterable[str], top_n: int | None = None, **options: Any
    ) -> list[tuple[int, float]]:
        """Order documents, with the results of ``Reranker.rank``.

        Args:
            query: The query.
            documents: The documents.
            top_n: As of ``compute``.
            **options: Its other arguments.

        Returns:
            (position among the documents, the reranker's score), the best first.
        """
        return [(one.index, one.score) for one in self.compute(query, documents, top_n, **options)]

    async def arank(
        self, query: str, documents: Iterable[str], top_n: int | None = None, **options: Any
    ) -> list[tuple[int, float]]:
        """Do ``rank`` without holding up the event loop or occupying a thread."""
        found = await self.acompute(query, documents, top_n, **options)
        return [(one.index, one.score) for one in found]

    def __repr__(self) -> str:
        return (
            f"Cascade({self.encoder!r}, {self.reranker!r}, first={self.first}, "
            f"weights={self.weights})"
        )


def _merged(chosen: list[tuple[int, float]], kept: list[tuple[int, float]]) -> list[CascadeScore]:
    return [
        CascadeScore(chosen[position][0], score, chosen[position][1]) for position, score in kept
    ]
