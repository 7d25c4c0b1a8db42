"""M3's lexical weights as LlamaIndex's ``BaseSparseEmbedding``, and as Qdrant's store asks."""

from __future__ import annotations

from llama_index.core.base.embeddings.base_sparse import BaseSparseEmbedding
from pydantic import ConfigDict

from llamaindex_m3.options import EmbeddingFields
from m3_core.converters import convert_texts, to_milvus, to_qdrant
from m3_core.encoder.cached import aconverted
from m3_core.representations import Representations


class M3SparseEmbedding(EmbeddingFields, BaseSparseEmbedding):
    """Weigh the tokens of queries and nodes.

    Beside ``M3Embedding`` over the same model, each text goes through the network once: both
    share recent encodings. The similarity is the inner product, which is M3's lexical score.
    Safe under threads; the asynchronous methods occupy no thread while they wait.

    ``sparse_doc_fn`` and ``sparse_query_fn`` are what ``QdrantVectorStore`` takes. Its
    asynchronous methods call them on the event loop, but, except in its sparse mode, after
    ``M3Embedding``, which has then computed the weights already.

    Example:
        .. code-block:: python

            sparse = M3SparseEmbedding()
            store = QdrantVectorStore(
                "documents",
                client=QdrantClient(":memory:"),
                enable_hybrid=True,
                sparse_doc_fn=sparse.sparse_doc_fn,
                sparse_query_fn=sparse.sparse_query_fn,
            )
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True)

    parts = ("sparse",)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex stores."""
        return "M3SparseEmbedding"

    def sparse_doc_fn(self, texts: list[str]) -> tuple[list[list[int]], list[list[float]]]:
        """Weigh documents for ``QdrantVectorStore(sparse_doc_fn=...)``.

        Args:
            texts: The documents.

        Returns:
            The token ids of each, and their weights.
        """
        return _columns(self._source.documents(texts, show_progress=self.show_progress))

    def sparse_query_fn(self, texts: list[str]) -> tuple[list[list[int]], list[list[float]]]:
        """Weigh queries for ``QdrantVectorStore(sparse_query_fn=...)``.

        Args:
            texts: The queries.

        Returns:
            The token ids of each, and their weights.
        """
        return _columns(self._source.queries(texts))

    def similarity(self, embedding1: dict[int, float], embedding2: dict[int, float]) -> float:
        """Score two texts by the tokens that they share.

        Args:
            embedding1: ``{token id: weight}`` of one.
            embedding2: Of the other.

        Returns:
            The inner product.
        """
        few, many = sorted((embedding1, embedding2), key=len)
        return float(sum(weight * many[token] for token, weight in few.items() if token in many))

    def _get_query_embedding(self, query: str) -> dict[int, float]:
        return _rows(self._source.queries([query]))[0]

    async def _aget_query_embedding(self, query: str) -> dict[int, float]:
        return _rows(await self._source.aqueries([query]))[0]

    def _get_text_embedding(self, text: str) -> dict[int, float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> dict[int, float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[dict[int, float]]:
        return _rows(self._source.documents(texts, show_progress=self.show_progress))

    async def _aget_text_embeddings(self, texts: list[str]) -> list[dict[int, float]]:
        reps = await self._source.adocuments(texts, show_progress=self.show_progress)
        return await aconverted(reps, _rows)


def _rows(reps: Representations) -> list[dict[int, float]]:
    return convert_texts(reps, to_milvus)


def _columns(reps: Representations) -> tuple[list[list[int]], list[list[float]]]:
    vectors = convert_texts(reps, to_qdrant)
    return [one["indices"] for one in vectors], [one["values"] for one in vectors]
