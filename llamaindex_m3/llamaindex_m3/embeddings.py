"""Dense vectors of M3 and the BGE family as LlamaIndex's ``BaseEmbedding``."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import ConfigDict, Field, model_validator

from llamaindex_m3.huggingface import accept_names
from llamaindex_m3.options import EmbeddingFields, VectorFields
from m3_core.encoder.cached import aconverted
from m3_core.representations import Representations


class M3Embedding(EmbeddingFields, VectorFields, BaseEmbedding):
    """Embed queries and nodes with a BGE encoder.

    The model is loaded once a process for all objects with the same options. Safe under threads;
    the asynchronous methods occupy no thread while they wait. Fields that change vectors are
    serialised, so an ingestion cache notices them; device, batch size and progress are not.

    Takes the keywords of ``HuggingFaceEmbedding`` too, or says what stands in their place.

    Example:
        .. code-block:: python

            embedding = M3Embedding(model_name="BAAI/bge-m3")
            index = VectorStoreIndex.from_documents(documents, embed_model=embedding)
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True)

    embeddings_cache: Any | None = Field(
        default=None,
        exclude=True,
        description="LlamaIndex's store of vectors by text; for one model without instructions.",
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_names_of_huggingface(cls, values: Any) -> Any:
        return accept_names(values) if isinstance(values, dict) else values

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex stores."""
        return "M3Embedding"

    def model_post_init(self, context: Any) -> None:
        """Load the model, or take the one that was given."""
        super().model_post_init(context)
        if self.embeddings_cache is not None and (
            self.query_instruction or self.document_instruction
        ):
            from m3_core.network.loaded import level_of_caller

            warnings.warn(
                "embeddings_cache finds vectors by the text alone, but this model puts "
                f"{self.query_instruction!r} before queries and {self.document_instruction!r} "
                "before documents: a query and a document of the same text would get one vector. "
                "Leave embeddings_cache out: IngestionPipeline(cache=...) knows the instructions, "
                "and recent vectors are remembered anyway",
                UserWarning,
                stacklevel=level_of_caller(),
            )

    def _follow(self, names: Collection[str]) -> None:
        before = self._source
        super()._follow(names)
        if self.embeddings_cache is not None and self._source.encoder is not before.encoder:
            raise ValueError(
                f"embeddings_cache finds vectors by the text alone, and {', '.join(names)} changes "
                "them: make a new object with another cache, or assign embeddings_cache = None "
                "before"
            )

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._source.queries([query]).dense_lists()[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._source.aqueries([query])).dense_lists()[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._source.documents(texts, show_progress=self.show_progress).dense_lists()

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        reps = await self._source.adocuments(texts, show_progress=self.show_progress)
        return await aconverted(reps, Representations.dense_lists)
