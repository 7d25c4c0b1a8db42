"""Fields that the embeddings of this package have besides those of every adapter."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from m3_core.adapters.fields import EncoderFields, VectorFields

__all__ = ["EmbeddingFields", "EncoderFields", "VectorFields"]


class EmbeddingFields(EncoderFields):
    """The options of a model, and LlamaIndex's own of batches, which change no result."""

    embed_batch_size: int = Field(
        default=1024,
        gt=0,
        le=2048,
        exclude=True,
        description="Texts handed over at a time; the core makes its own batches of them.",
    )
    num_workers: int | None = Field(
        default=None, exclude=True, description="Batches handed over at once by async calls."
    )

    def to_payload(self) -> dict[str, Any]:
        """Give what events say of the model.

        Returns:
            LlamaIndex's keys, and the instructions and the length that are in effect.
        """
        names = ("model_name", "embed_batch_size", "max_length")
        instructions = ("query_instruction", "document_instruction")
        payload = {name: getattr(self, name) for name in (*names, *instructions)}
        return {"class_name": type(self).class_name(), **payload}

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex stores."""
        return cls.__name__
