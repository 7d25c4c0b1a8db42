"""Dense vectors of M3 and the BGE family as LangChain's ``Embeddings``."""

from __future__ import annotations

from typing import Any

from langchain_core.embeddings import Embeddings
from pydantic import model_validator

from langchain_m3.huggingface import accept_names
from langchain_m3.options import EncoderFields
from m3_core.adapters.fields import VectorFields
from m3_core.encoder.cached import aconverted
from m3_core.representations import Representations


class M3Embeddings(VectorFields, EncoderFields, Embeddings):
    """Embed queries and documents with a BGE encoder.

    The model is loaded once a process for all objects with the same options. Safe under threads;
    the asynchronous methods occupy no thread while they wait.

    Takes the keywords of ``langchain_huggingface.HuggingFaceEmbeddings`` too, or says what stands
    in their place. Texts are encoded as they are; that class puts spaces for newlines before,
    which the tokenizers of M3 and the BGE models do themselves.

    Example:
        .. code-block:: python

            embeddings = M3Embeddings(model_name="BAAI/bge-m3")
            vectors = embeddings.embed_documents(["Pandas eat bamboo."])
    """

    @model_validator(mode="before")
    @classmethod
    def _accept_names_of_huggingface(cls, values: Any) -> Any:
        default = cls.model_fields["model_name"].default
        return accept_names(values, default) if isinstance(values, dict) else values

    @property
    def cache_namespace(self) -> str:
        """Name of everything that changes the vectors, for ``CacheBackedEmbeddings``.

        Equal wherever the same checkpoint is used with the same options: weights, maximum length,
        instructions, pooling, truncation and normalisation count; device and data type do not.
        """
        return self._source.fingerprint(self.parts, queries=True)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents.

        Args:
            texts: The documents.

        Returns:
            One vector a document, as Python floats.
        """
        return self._source.documents(texts, show_progress=self.show_progress).dense_lists()

    def embed_query(self, text: str) -> list[float]:
        """Embed a query, with the query instruction before it.

        Args:
            text: The query.

        Returns:
            Its vector, as Python floats.
        """
        return self._source.queries([text]).dense_lists()[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents without holding up the event loop.

        Args:
            texts: The documents.

        Returns:
            One vector a document, as Python floats.
        """
        reps = await self._source.adocuments(texts, show_progress=self.show_progress)
        return await aconverted(reps, Representations.dense_lists)

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a query without holding up the event loop.

        Args:
            text: The query.

        Returns:
            Its vector, as Python floats.
        """
        return (await self._source.aqueries([text])).dense_lists()[0]
