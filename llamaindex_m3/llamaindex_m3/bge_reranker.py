"""The BGE rerankers as LlamaIndex's node postprocessor."""

from __future__ import annotations

from pydantic import ConfigDict

from llamaindex_m3.postprocessors import ScoringPostprocessor
from m3_core.adapters.reranker_fields import RerankerFields


class BGEReranker(RerankerFields, ScoringPostprocessor):
    """Sort nodes by the score of a BGE reranker, any of the six.

    The model is loaded once a process for all objects with the same options. Safe under threads;
    the asynchronous methods occupy no thread while they wait. Returned nodes are copies.
    Fields that change scores are serialised; device and progress are not.

    Takes the keywords of ``FlagEmbeddingReranker`` and ``SentenceTransformerRerank`` too, or says
    what stands in their place. Scores are raw unless ``normalize=True``, and all nodes are kept
    unless ``top_n`` says otherwise.

    Example:
        .. code-block:: python

            reranker = BGEReranker(model_name="BAAI/bge-reranker-v2-m3", top_n=3)
            engine = index.as_query_engine(
                similarity_top_k=100, node_postprocessors=[reranker]
            )
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex stores."""
        return "BGEReranker"
