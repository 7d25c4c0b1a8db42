"""M3's own scores first, a BGE reranker on the best of them, as one compressor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr

from langchain_m3.compressors import CrossEncoderCompressor

if TYPE_CHECKING:
    from m3_core import Cascade, Reranker

_LOADING = ("device", "dtype", "cache_folder", "token", "local_files_only")


class M3CascadeReranker(CrossEncoderCompressor):
    """Thin out documents by M3's hybrid score, then sort the best with a cross-encoder.

    Of the returned copies ``metadata["relevance_score"]`` is the cross-encoder's score and
    ``metadata["first_score"]`` M3's. BAAI's recipe is to retrieve 100 and to rerank to 3.

    Example:
        .. code-block:: python

            retriever = ContextualCompressionRetriever(
                base_compressor=M3CascadeReranker(first=20, top_n=3),
                base_retriever=store.as_retriever(search_kwargs={"k": 100}),
            )
    """

    model_name: str = "BAAI/bge-m3"
    """The encoder: local folder or hub repository."""
    reranker_name: str = "BAAI/bge-reranker-v2-m3"
    """The reranker, likewise."""
    first: int = Field(default=20, ge=1)
    """Documents that the cross-encoder reads; others are dropped."""
    weights: tuple[float, float, float] = (1.0, 0.3, 1.0)
    """Of M3's dense, lexical and multi-vector scores."""
    device: str | None = None
    """``"cpu"``, ``"cuda"``, ``"mps"``; by default the best there is."""
    dtype: str = "auto"
    """Data type of both networks; ``"float32"`` gives reference numbers."""
    cache_folder: str | None = None
    """Where downloads are kept."""
    token: str | None = Field(default=None, repr=False, exclude=True)
    """Access token of the hub."""
    local_files_only: bool = False
    """Ask no server."""
    encoder: Any = Field(default=None, repr=False, exclude=True)
    """An ``m3_core.Encoder`` that is loaded already, with options of its own."""
    reranker: Any = Field(default=None, repr=False, exclude=True)
    """An ``m3_core.Reranker`` that is loaded already, with options of its own."""

    _cascade: Any = PrivateAttr()

    def model_post_init(self, _: Any) -> None:
        """Load both models, or take those that were given."""
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

    def _scored(self, query: str, texts: list[str]) -> list[tuple[int, dict[str, float]]]:
        found = self._steps.compute(
            query,
            texts,
            self.top_n,
            threshold=self.score_threshold,
            normalize=self.normalize,
            show_progress=self.show_progress,
        )
        return [
            (one.index, {"relevance_score": one.score, "first_score": one.first_score})
            for one in found
        ]
