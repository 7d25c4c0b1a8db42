"""M3's own scores first, a BGE reranker on the best of them, as one compressor."""

from __future__ import annotations

from langchain_m3.compressors import CrossEncoderCompressor
from m3_core.adapters import CascadeFields


class M3CascadeReranker(CascadeFields, CrossEncoderCompressor):
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
