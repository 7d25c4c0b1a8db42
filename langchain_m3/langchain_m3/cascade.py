"""M3's own scores first, a BGE reranker on the best of them, as one compressor."""

from __future__ import annotations

from langchain_m3.compressors import ScoringCompressor
from m3_core.adapters import CascadeFields


class M3CascadeReranker(CascadeFields, ScoringCompressor):
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
