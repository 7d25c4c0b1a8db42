"""M3's lexical weights as the sparse embeddings of langchain-qdrant."""

from __future__ import annotations

from langchain_qdrant.sparse_embeddings import SparseEmbeddings, SparseVector

from langchain_m3.options import EncoderFields
from m3_core.converters import convert_texts, to_qdrant
from m3_core.encoder.cached import aconverted
from m3_core.representations import Representations


class M3SparseEmbeddings(EncoderFields, SparseEmbeddings):
    """Lexical weights for ``QdrantVectorStore(sparse_embedding=...)``.

    Beside ``M3Embeddings`` over the same model, each text goes through the network once: both
    share recent encodings. Qdrant scores with the inner product, which is M3's lexical score.

    Example:
        .. code-block:: python

            store = QdrantVectorStore.from_texts(
                texts,
                embedding=M3Embeddings(),
                sparse_embedding=M3SparseEmbeddings(),
                retrieval_mode=RetrievalMode.HYBRID,
                location=":memory:",
            )
    """

    parts = ("sparse",)

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        """Weigh documents.

        Args:
            texts: The documents.

        Returns:
            One sparse vector a document, over token ids.
        """
        return _vectors(self._source.documents(texts, show_progress=self.show_progress))

    def embed_query(self, text: str) -> SparseVector:
        """Weigh a query.

        Args:
            text: The query.

        Returns:
            Its sparse vector, over token ids.
        """
        return _vectors(self._source.queries([text]))[0]

    async def aembed_documents(self, texts: list[str]) -> list[SparseVector]:
        """Do ``embed_documents`` without holding up the event loop.

        Args:
            texts: The documents.

        Returns:
            One sparse vector a document, over token ids.
        """
        reps = await self._source.adocuments(texts, show_progress=self.show_progress)
        return await aconverted(reps, _vectors)

    async def aembed_query(self, text: str) -> SparseVector:
        """Do ``embed_query`` without holding up the event loop.

        Args:
            text: The query.

        Returns:
            Its sparse vector, over token ids.
        """
        return _vectors(await self._source.aqueries([text]))[0]


def _vectors(reps: Representations) -> list[SparseVector]:
    return [SparseVector(**vector) for vector in convert_texts(reps, to_qdrant)]
