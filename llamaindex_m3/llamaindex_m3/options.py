"""Fields that the embeddings of this package have besides those of every adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from m3_core.adapters import EncoderFields, VectorFields

__all__ = ["EmbeddingFields", "EncoderFields", "VectorFields", "refuse_replaced"]


def refuse_replaced(
    options: Mapping[str, Any], replaced: Mapping[str, tuple[tuple[Any, ...], str]]
) -> dict[str, Any]:
    """Take keywords of a class that ours stands for out of a constructor's options.

    Args:
        options: The options.
        replaced: By keyword, the values that ask for nothing, and what to do about others.

    Returns:
        The options without these keywords.

    Raises:
        ValueError: One of them asks for what there is not here.

    Example:
        >>> refuse_replaced({"use_fp16": True}, {"use_fp16": ((), "pass dtype='float16'")})
        Traceback (most recent call last):
        ...
        ValueError: use_fp16=True cannot be honoured: pass dtype='float16'
    """
    for name in options.keys() & replaced.keys():
        idle, instead = replaced[name]
        if options[name] not in idle:
            raise ValueError(f"{name}={options[name]!r} cannot be honoured: {instead}")
    return {name: value for name, value in options.items() if name not in replaced}


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
