"""Dense vectors of M3 and the BGE family as LlamaIndex's ``BaseEmbedding``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import Field, PrivateAttr

if TYPE_CHECKING:
    from m3_core import Encoder


class M3Embedding(BaseEmbedding):
    """Embed queries and nodes with a BGE encoder.

    The model is loaded once a process for all objects with the same options. Safe under threads;
    the asynchronous methods compute off the event loop. Fields that change vectors are
    serialised, so an ingestion cache notices them; device and progress are not.

    Example:
        .. code-block:: python

            embedding = M3Embedding(model_name="BAAI/bge-m3")
            index = VectorStoreIndex.from_documents(documents, embed_model=embedding)
    """

    model_name: str = Field(default="BAAI/bge-m3", description="Local folder or hub repository.")
    embed_batch_size: int = Field(
        default=256,
        gt=0,
        le=2048,
        exclude=True,
        description="Nodes handed over at a time; the core makes its own batches of them.",
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit.")
    dtype: str = Field(default="auto", description="Data type of the network.")
    max_length: int | None = Field(default=None, description="Tokens a text at most.")
    query_instruction: str | None = Field(
        default=None, description="Put before queries; by default the model's own, '' for none."
    )
    document_instruction: str | None = Field(
        default=None, description="Put before nodes; by default the model's own, '' for none."
    )
    truncate_dim: int | None = Field(default=None, description="Keep so many leading values.")
    normalize: bool = Field(default=True, description="Scale vectors to length 1.")
    trust_remote_code: bool = Field(default=False, description="Run the checkpoint's model code.")
    device: str | None = Field(default=None, exclude=True, description="Where the network runs.")
    cache_folder: str | None = Field(default=None, exclude=True, description="For downloads.")
    token: str | None = Field(
        default=None, exclude=True, repr=False, description="Access token of the hub."
    )
    local_files_only: bool = Field(default=False, exclude=True, description="Ask no server.")
    encoder: Any = Field(
        default=None,
        exclude=True,
        repr=False,
        description="An m3_core.Encoder that is loaded already; then the options of loading "
        "must not be set.",
    )

    _encoder: Any = PrivateAttr(default=None)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex stores."""
        return "M3Embedding"

    def model_post_init(self, context: Any) -> None:
        """Load the model, or take the one that was given."""
        super().model_post_init(context)
        from m3_core.registry import adapter_encoder

        self._encoder = adapter_encoder(
            self.encoder,
            self.model_name,
            {name: getattr(self, name) for name in self.model_fields_set},
        )

    @property
    def _model(self) -> Encoder:
        encoder: Encoder = self._encoder
        return encoder

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._model.encode_queries([query]).dense_lists()[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._model.aencode_queries([query])).dense_lists()[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._model.encode_documents(texts).dense_lists()

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return (await self._model.aencode_documents(texts)).dense_lists()
