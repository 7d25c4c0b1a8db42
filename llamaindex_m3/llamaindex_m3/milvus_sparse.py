"""M3's lexical weights as the sparse embedding function of LlamaIndex's Milvus store."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar

from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction

from llamaindex_m3.options import EncoderFields
from m3_core.converters import convert_texts, to_milvus
from m3_core.encoder.cached import aconverted
from m3_core.representations import Representations

# Weights of the nodes that M3MilvusVectorStore adds right now, in the order in which it asks.
weighed_beforehand: ContextVar[Iterator[dict[int, float]] | None] = ContextVar(
    "weighed_beforehand", default=None
)


class M3MilvusSparseEmbeddingFunction(EncoderFields, BaseSparseEmbeddingFunction):
    """Lexical weights for ``M3MilvusVectorStore(sparse_embedding_function=...)``.

    Beside ``M3Embedding`` over the same model, each text goes through the network once: both
    share recent encodings. LlamaIndex's own ``MilvusVectorStore`` takes it too, but weighs a
    node's text without the metadata that ``M3Embedding`` reads: a node with such metadata goes
    through the network twice there, unless ``excluded_embed_metadata_keys`` names them all.
    In its sparse mode the store leaves out a fifth of a query's weights, the smallest ones, and
    Milvus Lite refuses that; its hybrid mode uses them all.

    Example:
        .. code-block:: python

            store = M3MilvusVectorStore(
                uri="m3.db",
                dim=1024,
                similarity_metric="IP",
                enable_sparse=True,
                sparse_embedding_function=M3MilvusSparseEmbeddingFunction(),
            )
    """

    parts = ("sparse",)

    def encode_queries(self, queries: list[str]) -> list[dict[int, float]]:
        """Weigh queries.

        Args:
            queries: The queries.

        Returns:
            One ``{token id: weight}`` a query.
        """
        return _rows(self._source.queries(queries))

    def encode_documents(self, documents: list[str]) -> list[dict[int, float]]:
        """Weigh documents.

        Args:
            documents: The documents.

        Returns:
            One ``{token id: weight}`` a document.
        """
        ready = weighed_beforehand.get()
        if ready is not None:
            return [next(ready) for _ in documents]
        return _rows(self._source.documents(documents, show_progress=self.show_progress))

    async def async_encode_queries(self, queries: list[str]) -> list[dict[int, float]]:
        """Do ``encode_queries`` without holding up the event loop.

        Args:
            queries: The queries.

        Returns:
            One ``{token id: weight}`` a query.
        """
        return await aconverted(await self._source.aqueries(queries), _rows)

    async def async_encode_documents(self, documents: list[str]) -> list[dict[int, float]]:
        """Do ``encode_documents`` without holding up the event loop.

        Args:
            documents: The documents.

        Returns:
            One ``{token id: weight}`` a document.
        """
        ready = weighed_beforehand.get()
        if ready is not None:
            return [next(ready) for _ in documents]
        reps = await self._source.adocuments(documents, show_progress=self.show_progress)
        return await aconverted(reps, _rows)


def _rows(reps: Representations) -> list[dict[int, float]]:
    return convert_texts(reps, to_milvus)
