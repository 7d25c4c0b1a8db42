"""What the rerankers of this package share: copies with scores, callbacks, async."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager, Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field

if TYPE_CHECKING:
    from m3_core import Reranker
    from m3_core.adapter import AdapterEncoder


class ScoringCompressor(BaseDocumentCompressor):
    """A compressor that sorts documents by a score and keeps the best."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), frozen=True)

    event: ClassVar[str] = "bge_rerank"
    """Name of the custom event that callbacks get."""

    top_n: int | None = Field(default=None, ge=1)
    """Documents to keep; all, if ``None``."""
    score_threshold: float | None = None
    """The lowest score that is kept; a score equal to it stays."""
    show_progress: bool = False
    """Show a progress bar while texts are read."""

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Sort documents by their score for a query.

        Args:
            documents: The documents.
            query: The query.
            callbacks: Told of the result as a custom event, whose name is in ``event``.

        Returns:
            Copies with the score in ``metadata["relevance_score"]``, best first; of equal scores
            the one that came first.
        """
        kept = self._ranked(documents, query)
        if callbacks:
            manager = CallbackManager.configure(inheritable_callbacks=callbacks)
            manager.on_custom_event(self.event, self._event(query, documents, kept), run_id=uuid4())
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
        kept = await self._scorer.run_async(self._ranked, documents, query)
        if callbacks:
            manager = AsyncCallbackManager.configure(inheritable_callbacks=callbacks)
            event = self._event(query, documents, kept)
            await manager.on_custom_event(self.event, event, run_id=uuid4())
        return kept

    @property
    @abstractmethod
    def _scorer(self) -> Reranker | AdapterEncoder:
        """What gives the final score."""

    @abstractmethod
    def _scored(self, query: str, texts: list[str]) -> list[tuple[int, dict[str, float]]]:
        """Positions of the texts to keep, best first, each with its entries in the metadata."""

    def _ranked(self, documents: Sequence[Document], query: str) -> list[Document]:
        if not isinstance(documents, Sequence) or not all(
            isinstance(document, Document) for document in documents
        ):
            raise TypeError(f"documents must be a list of Document; got {documents!r:.80}")
        scored = self._scored(query, [document.page_content for document in documents])
        # Wholly copied, so that who changes a result does not change what was given.
        return [
            documents[i].model_copy(
                update={"metadata": {**copy.deepcopy(documents[i].metadata), **scores}}
            )
            for i, scores in scored
        ]

    def _event(
        self, query: str, documents: Sequence[Document], kept: Sequence[Document]
    ) -> dict[str, Any]:
        return {
            "model_name": self._scorer.name,
            "query": query,
            "top_n": self.top_n,
            "num_documents": len(documents),
            "scores": [document.metadata["relevance_score"] for document in kept],
        }

    def _changed(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        return {
            name: value
            for name, field in type(self).model_fields.items()
            if (value := getattr(self, name)) != field.default
        }


class CrossEncoderCompressor(ScoringCompressor):
    """A compressor whose score is a cross-encoder's."""

    normalize: bool = False
    """Put scores through the sigmoid, into 0 to 1; else they are raw logits. The threshold is
    compared with what this gives."""
