"""Rerank nodes with M3's own scores."""

from __future__ import annotations

from pydantic import ConfigDict

from llamaindex_m3.postprocessors import ScoringPostprocessor
from m3_core.adapters import ScoreFields
from m3_core.encoder import CachedEncoder


class M3Reranker(ScoreFields, ScoringPostprocessor):
    """Sort nodes by the weighted mean of M3's dense, lexical and multi-vector scores.

    Texts that another adapter over the same model has just encoded are not encoded again. The
    score is the mean of the scores with a weight above 0; it is a cosine for weights of
    ``(1, 0, 0)``, which also dense models can give. Returned nodes are copies.

    Example:
        .. code-block:: python

            engine = index.as_query_engine(
                similarity_top_k=100, node_postprocessors=[M3Reranker(top_n=3)]
            )
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex stores."""
        return "M3Reranker"

    @property
    def _scorer(self) -> CachedEncoder:
        return self._source

    @property
    def _name(self) -> str:
        return self.model_name
