"""Rerank documents with M3's own scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager, Callbacks
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, field_validator

from langchain_m3.options import EncoderFields

if TYPE_CHECKING:
    from m3_core.representations import Representations

EVENT = "m3_rerank"


class M3Reranker(EncoderFields, BaseDocumentCompressor, BaseCrossEncoder):
    """Sort documents by the weighted mean of M3's dense, lexical and multi-vector scores.

    Texts that another adapter over the same model has just encoded are not encoded again. The
    score is the mean of the scores with a weight above 0; it is a cosine for weights of
    ``(1, 0, 0)``, which also dense models can give. Returned documents are copies with the score
    in ``metadata["relevance_score"]``. Callbacks get the custom event ``"m3_rerank"``.

    Also a ``BaseCrossEncoder``: ``score`` gives the scores of pairs.

    Example:
        .. code-block:: python

            reranker = M3Reranker(top_n=3)
            retriever = ContextualCompressionRetriever(
                base_compressor=reranker, base_retriever=store.as_retriever()
            )
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), frozen=True)

    top_n: int | None = Field(default=None, ge=1)
    """Documents to keep; all, if ``None``."""
    weights: tuple[float, float, float] = (1.0, 0.3, 1.0)
    """Of dense, lexical and multi-vector scores; the default is that of the M3 paper."""
    score_threshold: float | None = None
    """Drop documents whose score is below it."""

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, weights: tuple[float, float, float]) -> tuple[float, float, float]:
        from m3_core.scoring import normalized_weights

        normalized_weights(weights)
        return weights

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Sort documents by their score for a query.

        Args:
            documents: The documents.
            query: The query.
            callbacks: Told of the result as a custom event.

        Returns:
            Copies, best first; of equal scores the one that came first.
        """
        kept = self._ranked(documents, query)
        if callbacks:
            manager = CallbackManager.configure(inheritable_callbacks=callbacks)
            manager.on_custom_event(EVENT, self._event(query, documents, kept), run_id=uuid4())
        return kept

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Do ``compress_documents`` off the event loop.

        Args:
            documents: As there.
            query: As there.
            callbacks: As there.

        Returns:
            Copies, best first.
        """
        kept = await self._model.run_async(self._ranked, documents, query)
        if callbacks:
            manager = AsyncCallbackManager.configure(inheritable_callbacks=callbacks)
            event = self._event(query, documents, kept)
            await manager.on_custom_event(EVENT, event, run_id=uuid4())
        return kept

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Score pairs.

        Args:
            text_pairs: Queries with documents.

        Returns:
            One score a pair, as Python floats.
        """
        from m3_core.scoring import hybrid_scores
        from m3_core.texts import check_pairs, distinct

        queries, documents = check_pairs(text_pairs)
        if not queries:
            return []
        query_rows, distinct_queries = distinct(queries)
        document_rows, distinct_documents = distinct(documents)
        query_reps = self._source.queries(distinct_queries)
        document_reps = self._documents(distinct_documents)
        scores = [0.0] * len(queries)
        for row in range(len(distinct_queries)):
            pairs = [i for i, own in enumerate(query_rows.tolist()) if own == row]
            asked = document_reps[document_rows[pairs]]
            found = hybrid_scores(query_reps[row], asked, self.weights)[0].tolist()
            for i, score in zip(pairs, found, strict=True):
                scores[i] = score
        return scores

    def _needed_parts(self) -> tuple[str, ...]:
        names = ("dense", "sparse", "colbert")
        return tuple(name for name, w in zip(names, self.weights, strict=True) if w > 0)

    def _documents(self, texts: list[str]) -> Representations:
        return self._source.documents(texts, show_progress=self.show_progress)

    def _ranked(self, documents: Sequence[Document], query: str) -> list[Document]:
        scores = self.score([(query, document.page_content) for document in documents])
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        kept = [
            documents[i].model_copy(
                update={"metadata": {**documents[i].metadata, "relevance_score": scores[i]}}
            )
            for i in order
            if self.score_threshold is None or scores[i] >= self.score_threshold
        ]
        return kept[: self.top_n]

    def _event(
        self, query: str, documents: Sequence[Document], kept: Sequence[Document]
    ) -> dict[str, Any]:
        return {
            "model_name": self._model.name,
            "query": query,
            "top_n": self.top_n,
            "num_documents": len(documents),
            "scores": [document.metadata["relevance_score"] for document in kept],
        }
