"""M3's own scores first, a BGE reranker on the best of them, as one postprocessor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr

from llamaindex_m3.postprocessors import CrossEncoderPostprocessor

if TYPE_CHECKING:
    from m3_core import Cascade, Reranker

_LOADING = ("device", "dtype", "cache_folder", "token", "local_files_only")


class M3CascadeReranker(CrossEncoderPostprocessor):
    """Thin out nodes by M3's hybrid score, then sort the best with a cross-encoder.

    BAAI's recipe is to retrieve 100 and to rerank to 3.

    Example:
        .. code-block:: python

            reranker = M3CascadeReranker(first=20, top_n=3)
            engine = index.as_query_engine(
                similarity_top_k=100, node_postprocessors=[reranker]
            )
    """

    model_name: str = Field(default="BAAI/bge-m3", description="The encoder: folder or repository.")
    reranker_name: str = Field(
        default="BAAI/bge-reranker-v2-m3", description="The reranker, likewise."
    )
    first: int = Field(
        default=20, ge=1, description="Nodes that the cross-encoder reads; others are dropped."
    )
    weights: tuple[float, float, float] = Field(
        default=(1.0, 0.3, 1.0), description="Of M3's dense, lexical and multi-vector scores."
    )
    dtype: str = Field(default="auto", description="Data type of both networks.")
    device: str | None = Field(default=None, exclude=True, description="Where they run.")
    cache_folder: str | None = Field(default=None, exclude=True, description="For downloads.")
    token: str | None = Field(
        default=None, exclude=True, repr=False, description="Access token of the hub."
    )
    local_files_only: bool = Field(default=False, exclude=True, description="Ask no server.")
    encoder: Any = Field(
        default=None, exclude=True, repr=False, description="A loaded m3_core.Encoder."
    )
    reranker: Any = Field(
        default=None, exclude=True, repr=False, description="A loaded m3_core.Reranker."
    )

    _cascade: Any = PrivateAttr(default=None)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex stores."""
        return "M3CascadeReranker"

    def model_post_init(self, context: Any) -> None:
        """Load both models, or take those that were given."""
        super().model_post_init(context)
        from m3_core import Cascade
        from m3_core.encoder.registry import adapter_encoder
        from m3_core.rerankers.adapter import adapter_reranker

        # These are for the model that is not given.
        loading = {name: getattr(self, name) for name in _LOADING}
        self._cascade = Cascade(
            adapter_encoder(self.encoder, self.model_name, {} if self.encoder else loading),
            adapter_reranker(self.reranker, self.reranker_name, {} if self.reranker else loading),
            first=self.first,
            weights=self.weights,
        )

    @property
    def _steps(self) -> Cascade:
        cascade: Cascade = self._cascade
        return cascade

    @property
    def _scorer(self) -> Reranker:
        return self._steps.reranker

    def _scored(self, query: str, texts: list[str]) -> list[tuple[int, float]]:
        return self._steps.rank(
            query,
            texts,
            self.top_n,
            threshold=self.score_threshold,
            normalize=self.normalize,
            show_progress=self.show_progress,
        )
