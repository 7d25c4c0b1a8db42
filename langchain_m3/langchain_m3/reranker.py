"""Rerank documents with M3's own scores."""

from __future__ import annotations

from langchain_core.cross_encoders import BaseCrossEncoder

from langchain_m3.compressors import ScoringCompressor
from langchain_m3.options import EncoderFields
from m3_core.adapters import ScoreFields
from m3_core.encoder import CachedEncoder


class M3Reranker(ScoreFields, EncoderFields, ScoringCompressor, BaseCrossEncoder):
    """Sort documents by the weighted mean of M3's dense, lexical and multi-vector scores.

    Texts that another adapter over the same model has just encoded are not encoded again. The
    score is the mean of the scores with a weight above 0; it is a cosine for weights of
    ``(1, 0, 0)``, which also dense models can give. Returned documents are copies with the score
    in ``metadata["relevance_score"]``. Callbacks get the custom event ``"m3_rerank"``.

    Also a ``BaseCrossEncoder``: ``score`` gives the scores of pairs.

    Example:
        .. code-block:: python

            reranker = M3Reranker(top_n=3)
            retriever = ContextualCompressionRetriever(
                base_compressor=reranker, base_retriever=store.as_retriever()
            )
    """

    event = "m3_rerank"

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Score pairs.

        Args:
            text_pairs: Queries with documents.

        Returns:
            One score a pair, as Python floats.
        """
        return self._hybrid.score(text_pairs, show_progress=self.show_progress)

    @property
    def _scorer(self) -> CachedEncoder:
        return self._source
