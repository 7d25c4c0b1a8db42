"""The BGE rerankers as LangChain's document compressor and cross-encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.cross_encoders import BaseCrossEncoder
from pydantic import Field, PrivateAttr

from langchain_m3.compressors import CrossEncoderCompressor

if TYPE_CHECKING:
    from m3_core import Reranker


class BGEReranker(CrossEncoderCompressor, BaseCrossEncoder):
    """Sort documents by the score of a BGE reranker, any of the six.

    The model is loaded once a process for all objects with the same options. Safe under threads;
    the asynchronous methods compute off the event loop.

    Example:
        .. code-block:: python

            reranker = BGEReranker(model_name="BAAI/bge-reranker-v2-m3", top_n=3)
            retriever = ContextualCompressionRetriever(
                base_compressor=reranker,
                base_retriever=store.as_retriever(search_kwargs={"k": 100}),
            )
    """

    model_name: str = "BAAI/bge-reranker-v2-m3"
    """Local folder or hub repository."""
    revision: str | None = None
    """Branch, tag or commit of the repository."""
    device: str | None = None
    """``"cpu"``, ``"cuda"``, ``"mps"``; by default the best there is."""
    dtype: str = "auto"
    """Data type of the network; ``"float32"`` gives reference numbers."""
    max_length: int | None = None
    """Tokens a pair at most; by default 512."""
    query_max_length: int | None = None
    """Tokens a query at most; by default three quarters of ``max_length``."""
    query_instruction: str | None = None
    """Put before queries; by default the model's own, ``""`` for none."""
    document_instruction: str | None = None
    """Put before documents, likewise."""
    cutoff_layers: int | tuple[int, ...] | None = None
    """Layers of a layerwise or lightweight model that give scores; the last one named counts."""
    compress_layers: tuple[int, ...] | None = None
    """Before which layers of a lightweight model a document's tokens are merged."""
    compress_ratio: int | None = None
    """How many tokens are merged into one."""
    cache_folder: str | None = None
    """Where downloads are kept."""
    token: str | None = Field(default=None, repr=False, exclude=True)
    """Access token of the hub."""
    local_files_only: bool = False
    """Ask no server."""
    trust_remote_code: bool = False
    """Accepted, but no model here needs it: code of the checkpoint is never run."""
    reranker: Any = Field(default=None, repr=False, exclude=True)
    """An ``m3_core.Reranker`` that is loaded already; options of loading must not be set then."""

    _reranker: Any = PrivateAttr()

    def model_post_init(self, _: Any) -> None:
        """Load the model, or take the one that was given."""
        from m3_core.rerankers.adapter import adapter_reranker

        self._reranker = adapter_reranker(self.reranker, self.model_name, self._changed())

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Score pairs; raw or normalised, as ``normalize`` says.

        Args:
            text_pairs: Queries with documents.

        Returns:
            One score a pair, as Python floats.
        """
        return self._scorer.compute_score(
            text_pairs, self.normalize, show_progress=self.show_progress
        )

    @property
    def _scorer(self) -> Reranker:
        reranker: Reranker = self._reranker
        return reranker

    def _scored(self, query: str, texts: list[str]) -> list[tuple[int, dict[str, float]]]:
        from m3_core.rerankers.ranking import select_best

        scores = self.score([(query, text) for text in texts])
        best = select_best(scores, self.top_n, self.score_threshold)
        return [(i, {"relevance_score": score}) for i, score in best]
