"""M3's own scores first, a BGE reranker on the best of them, as one postprocessor."""

from __future__ import annotations

from pydantic import ConfigDict

from llamaindex_m3.postprocessors import CrossEncoderPostprocessor
from m3_core.adapters import CascadeFields


class M3CascadeReranker(CascadeFields, CrossEncoderPostprocessor):
    """Thin out nodes by M3's hybrid score, then sort the best with a cross-encoder.

    BAAI's recipe is to retrieve 100 and to rerank to 3.

    Example:
        .. code-block:: python

            reranker = M3CascadeReranker(first=20, top_n=3)
            engine = index.as_query_engine(
                similarity_top_k=100, node_postprocessors=[reranker]
            )
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex stores."""
        return "M3CascadeReranker"

    def _scored(self, query: str, texts: list[str]) -> list[tuple[int, float]]:
        return self._steps.rank(
            query,
            texts,
            self.top_n,
            threshold=self.score_threshold,
            normalize=self.normalize,
            show_progress=self.show_progress,
        )
