"""The BGE rerankers as LlamaIndex's node postprocessor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr

from llamaindex_m3.postprocessors import CrossEncoderPostprocessor

if TYPE_CHECKING:
    from m3_core import Reranker


class BGEReranker(CrossEncoderPostprocessor):
    """Sort nodes by the score of a BGE reranker, any of the six.

    The model is loaded once a process for all objects with the same options. Safe under threads;
    the asynchronous methods compute off the event loop. Returned nodes are copies. Fields that
    change scores are serialised; device and progress are not.

    Example:
        .. code-block:: python

            reranker = BGEReranker(model_name="BAAI/bge-reranker-v2-m3", top_n=3)
            engine = index.as_query_engine(
                similarity_top_k=100, node_postprocessors=[reranker]
            )
    """

    model_name: str = Field(
        default="BAAI/bge-reranker-v2-m3", description="Local folder or hub repository."
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit.")
    dtype: str = Field(default="auto", description="Data type of the network.")
    max_length: int | None = Field(default=None, description="Tokens a pair at most; 512.")
    query_max_length: int | None = Field(
        default=None, description="Tokens a query at most; three quarters of max_length."
    )
    query_instruction: str | None = Field(
        default=None, description="Put before queries; by default the model's own, '' for none."
    )
    document_instruction: str | None = Field(
        default=None, description="Put before nodes; by default the model's own, '' for none."
    )
    cutoff_layers: int | tuple[int, ...] | None = Field(
        default=None, description="Layers that give scores; the last one named counts."
    )
    compress_layers: tuple[int, ...] | None = Field(
        default=None, description="Before which layers a document's tokens are merged."
    )
    compress_ratio: int | None = Field(
        default=None, description="How many tokens are merged into one."
    )
    trust_remote_code: bool = Field(
        default=False, description="Accepted; code of the checkpoint is never run."
    )
    device: str | None = Field(default=None, exclude=True, description="Where the network runs.")
    cache_folder: str | None = Field(default=None, exclude=True, description="For downloads.")
    token: str | None = Field(
        default=None, exclude=True, repr=False, description="Access token of the hub."
    )
    local_files_only: bool = Field(default=False, exclude=True, description="Ask no server.")
    reranker: Any = Field(
        default=None,
        exclude=True,
        repr=False,
        description="An m3_core.Reranker that is loaded already; then the options of loading "
        "must not be set.",
    )

    _reranker: Any = PrivateAttr(default=None)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex stores."""
        return "BGEReranker"

    def model_post_init(self, context: Any) -> None:
        """Load the model, or take the one that was given."""
        super().model_post_init(context)
        from m3_core.rerankers.adapter import adapter_reranker

        self._reranker = adapter_reranker(self.reranker, self.model_name, self._changed())

    @property
    def _scorer(self) -> Reranker:
        reranker: Reranker = self._reranker
        return reranker

    def _scored(self, query: str, texts: list[str]) -> list[tuple[int, float]]:
        from m3_core.rerankers.ranking import select_best

        pairs = [(query, text) for text in texts]
        scores = self._scorer.compute_score(pairs, self.normalize, show_progress=self.show_progress)
        return select_best(scores, self.top_n, self.score_threshold)
