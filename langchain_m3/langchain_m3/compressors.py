"""What the rerankers of this package share: copies with scores, callbacks, async."""

from __future__ import annotations

import asyncio
import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager, Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field

from m3_core.adapters import Assignable

if TYPE_CHECKING:
    from m3_core import Reranker
    from m3_core.encoder import CachedEncoder


class ScoringCompressor(Assignable, BaseDocumentCompressor):
    """A compressor that sorts documents by a score and keeps the best."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    event: ClassVar[str] = "bge_rerank"
    """Name of the custom event that callbacks get."""

    top_n: int | None = Field(default=None, ge=1)
    """Documents to keep; all, if ``None``."""
    score_threshold: float | None = None
    """The lowest score that is kept; a score equal to it stays."""
    show_progress: bool = Field(default=False, exclude=True)
    """Show a progress bar while texts are read."""

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Sort documents by their score for a query.

        Args:
            documents: The documents.
            query: The query.
            callbacks: Told of a run named after the class, a child of the run that they belong
                to, and in it of the result as a custom event, whose name is in ``event``.

        Returns:
            Copies with the score in ``metadata["relevance_score"]``, best first; of equal scores
            the one that came first.
        """
        own = self._snapshot()
        if not callbacks:
            return own._ranked(documents, query)
        manager = CallbackManager.configure(inheritable_callbacks=callbacks)
        run = manager.on_chain_start(None, own._asked(query, documents), name=type(own).__name__)
        try:
            kept = own._ranked(documents, query)
        except BaseException as error:
            run.on_chain_error(error)
            raise
        manager.on_custom_event(self.event, own._event(query, documents, kept), run_id=run.run_id)
        run.on_chain_end({"documents": kept})
        return kept

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Do ``compress_documents`` off the event loop; takes and gives the same."""
        own = self._snapshot()
        if not callbacks:
            return await asyncio.to_thread(own._ranked, documents, query)
        manager = AsyncCallbackManager.configure(inheritable_callbacks=callbacks)
        run = await manager.on_chain_start(
            None, own._asked(query, documents), name=type(own).__name__
        )
        try:
            kept = await asyncio.to_thread(own._ranked, documents, query)
        except BaseException as error:
            await run.on_chain_error(error)
            raise
        event = own._event(query, documents, kept)
        await manager.on_custom_event(self.event, event, run_id=run.run_id)
        await run.on_chain_end({"documents": kept})
        return kept

    @property
    @abstractmethod
    def _scorer(self) -> Reranker | CachedEncoder:
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

    def _asked(self, query: str, documents: Sequence[Document]) -> dict[str, Any]:
        return {"query": query, "documents": documents}

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


class CrossEncoderCompressor(ScoringCompressor):
    """A compressor whose score is a cross-encoder's."""

    normalize: bool = False
    """Put scores through the sigmoid, into 0 to 1; else they are raw logits. The threshold is
    compared with what this gives."""
