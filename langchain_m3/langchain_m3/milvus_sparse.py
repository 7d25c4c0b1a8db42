"""M3's lexical weights as the sparse embeddings of langchain-milvus."""

from __future__ import annotations

from langchain_milvus.utils.sparse import BaseSparseEmbedding

from langchain_m3.options import EncoderFields
from m3_core.converters import convert_texts, to_milvus
from m3_core.encoder.cached import aconverted
from m3_core.representations import Representations


class M3MilvusSparseEmbeddings(EncoderFields, BaseSparseEmbedding):
    """Lexical weights for ``Milvus(embedding_function=[M3Embeddings(), ...])``.

    Beside ``M3Embeddings`` over the same model, each text goes through the network once: both
    share recent encodings. By default langchain-milvus asks Milvus to drop small weights, which
    changes scores and which Milvus Lite refuses: give ``index_params`` and ``search_params``
    without ``drop_ratio_build``, as below. The metric must be ``IP``.

    Example:
        .. code-block:: python

            store = Milvus.from_texts(
                texts,
                [M3Embeddings(), M3MilvusSparseEmbeddings()],
                vector_field=["dense", "sparse"],
                index_params=[
                    {"index_type": "FLAT", "metric_type": "IP", "params": {}},
                    {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP", "params": {}},
                ],
                search_params=[{"metric_type": "IP", "params": {}}] * 2,
                connection_args={"uri": "m3.db"},
            )
    """

    parts = ("sparse",)

    def embed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Weigh documents.

        Args:
            texts: The documents.

        Returns:
            One ``{token id: weight}`` a document.
        """
        return _rows(self._source.documents(texts, show_progress=self.show_progress))

    def embed_query(self, query: str) -> dict[int, float]:
        """Weigh a query.

        Args:
            query: The query.

        Returns:
            Its ``{token id: weight}``.
        """
        return _rows(self._source.queries([query]))[0]

    async def aembed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Do ``embed_documents`` without holding up the event loop.

        Args:
            texts: The documents.

        Returns:
            One ``{token id: weight}`` a document.
        """
        reps = await self._source.adocuments(texts, show_progress=self.show_progress)
        return await aconverted(reps, _rows)

    async def aembed_query(self, query: str) -> dict[int, float]:
        """Do ``embed_query`` without holding up the event loop.

        Args:
            query: The query.

        Returns:
            Its ``{token id: weight}``.
        """
        return _rows(await self._source.aqueries([query]))[0]


def _rows(reps: Representations) -> list[dict[int, float]]:
    return convert_texts(reps, to_milvus)
