"""Rerank nodes with M3's own scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ConfigDict, Field, field_validator

from llamaindex_m3.options import EncoderFields
from llamaindex_m3.postprocessors import ScoringPostprocessor

if TYPE_CHECKING:
    from m3_core.adapter import AdapterEncoder


class M3Reranker(EncoderFields, ScoringPostprocessor):
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

    weights: tuple[float, float, float] = Field(
        default=(1.0, 0.3, 1.0),
        frozen=True,
        description="Of dense, lexical and multi-vector scores; by default the M3 paper's.",
    )

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, weights: tuple[float, float, float]) -> tuple[float, float, float]:
        from m3_core.scoring import normalized_weights

        normalized_weights(weights)
        return weights

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex stores."""
        return "M3Reranker"

    def _needed_parts(self) -> tuple[str, ...]:
        from m3_core.hybrid import weighted_parts

        return weighted_parts(self.weights)

    @property
    def _scorer(self) -> AdapterEncoder:
        return self._source

    @property
    def _name(self) -> str:
        return self.model_name

    def _scored(self, query: str, texts: list[str]) -> list[tuple[int, float]]:
        from m3_core.hybrid import HybridScorer

        return HybridScorer(self._source, self.weights).rank(
            query,
            texts,
            self.top_n,
            threshold=self.score_threshold,
            show_progress=self.show_progress,
        )
