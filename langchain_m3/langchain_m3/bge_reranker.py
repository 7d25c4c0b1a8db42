"""The BGE rerankers as LangChain's document compressor and cross-encoder."""

from __future__ import annotations

from langchain_core.cross_encoders import BaseCrossEncoder

from langchain_m3.compressors import ScoringCompressor
from m3_core.adapters.reranker_fields import RerankerFields


class BGEReranker(RerankerFields, ScoringCompressor, BaseCrossEncoder):
    """Sort documents by the score of a BGE reranker, any of the six.

    The model is loaded once a process for all objects with the same options. Safe under threads;
    the asynchronous methods occupy no thread while they wait.

    Takes the keywords of ``HuggingFaceCrossEncoder`` and of LlamaIndex's rerankers too, or says
    what stands in their place. Scores are raw unless ``normalize=True``, and all documents are
    kept unless ``top_n`` says otherwise.

    Example:
        .. code-block:: python

            reranker = BGEReranker(model_name="BAAI/bge-reranker-v2-m3", top_n=3)
            retriever = ContextualCompressionRetriever(
                base_compressor=reranker,
                base_retriever=store.as_retriever(search_kwargs={"k": 100}),
            )
    """

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Score pairs; raw or normalised, as ``normalize`` says.

        Args:
            text_pairs: Queries with documents.

        Returns:
            One score a pair, as Python floats.
        """
        own = self._snapshot()
        return own._scorer.compute_score(text_pairs, own.normalize, show_progress=own.show_progress)
