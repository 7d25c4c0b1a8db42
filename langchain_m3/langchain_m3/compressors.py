"""What the rerankers of this package share: copies with scores, callbacks, async."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager, Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict

from langchain_m3.documents import DocumentExplaining
from m3_core.adapters import Ranked, RankingFields
from m3_core.beside import beside
from m3_core.rerankers import select_best

if TYPE_CHECKING:
    from m3_core.encoder import CachedEncoder
    from m3_core.rerankers import TextReranker


class ScoringCompressor(DocumentExplaining, RankingFields, BaseDocumentCompressor):
    """A compressor that sorts documents by a score and keeps the best."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    event: ClassVar[str] = "bge_rerank"
    """Name of the custom event that callbacks get."""

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
        """Do ``compress_documents`` without holding up the event loop; takes and gives the same."""
        own = self._snapshot()
        if not callbacks:
            return await own._aranked(documents, query)
        manager = AsyncCallbackManager.configure(inheritable_callbacks=callbacks)
        run = await manager.on_chain_start(
            None, own._asked(query, documents), name=type(own).__name__
        )
        try:
            kept = await own._aranked(documents, query)
        except BaseException as error:
            await run.on_chain_error(error)
            raise
        event = own._event(query, documents, kept)
        await manager.on_custom_event(self.event, event, run_id=run.run_id)
        await run.on_chain_end({"documents": kept})
        return kept

    @property
    @abstractmethod
    def _scorer(self) -> TextReranker | CachedEncoder:
        """What gives the final score."""

    def _ranked(self, documents: Sequence[Document], query: str) -> list[Document]:
        texts = _texts(documents)
        rank = self._by_replaced_score if self._is_score_replaced() else self._rank
        return _copies(documents, rank(query, texts))

    async def _aranked(self, documents: Sequence[Document], query: str) -> list[Document]:
        texts = _texts(documents)
        if self._is_score_replaced():
            return _copies(documents, await beside(self._by_replaced_score, query, texts))
        return _copies(documents, await self._arank(query, texts))

    def _is_score_replaced(self) -> bool:
        """Whether a subclass outside of this package scores pairs in its own way."""
        owner = next((kind for kind in type(self).__mro__ if "score" in vars(kind)), None)
        return owner is not None and owner.__module__.split(".")[0] != __name__.split(".")[0]

    def _by_replaced_score(self, query: str, texts: list[str]) -> Ranked:
        own: Any = self
        scores = own.score([(query, text) for text in texts])
        return [(*one, {}) for one in select_best(scores, self.top_n, self.score_threshold)]

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


def _texts(documents: Sequence[Document]) -> list[str]:
    if not isinstance(documents, Sequence) or not all(
        isinstance(document, Document) for document in documents
    ):
        raise TypeError(f"documents must be a list of Document; got {documents!r:.80}")
    return [document.page_content for document in documents]


def _copies(documents: Sequence[Document], kept: Ranked) -> list[Document]:
    from m3_core.collection import copied_metadata

    # Wholly copied, so that who changes a result does not change what was given.
    return [
        documents[i].model_copy(
            update={
                "metadata": {
                    **copied_metadata(documents[i].id or f"number {i}", documents[i].metadata),
                    "relevance_score": score,
                    **others,
                }
            }
        )
        for i, score, others in kept
    ]
