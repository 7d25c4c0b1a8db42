"""M3's own scores first, a BGE reranker on the best of them, as one postprocessor."""

from __future__ import annotations

from pydantic import ConfigDict

from llamaindex_m3.postprocessors import ScoringPostprocessor
from m3_core.adapters import CascadeFields


class M3CascadeReranker(CascadeFields, ScoringPostprocessor):
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
