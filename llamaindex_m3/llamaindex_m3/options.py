"""Fields that the embeddings of this package have besides those of every adapter."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, model_validator

from m3_core.adapters import EncoderFields, VectorFields

__all__ = [
    "EmbeddingFields",
    "EncoderFields",
    "VectorFields",
    "check_assignable",
    "hint",
    "refuse_replaced",
]


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


def hint(name: str, names: Iterable[str]) -> str:
    """Say which of some names may have been meant.

    Args:
        name: What was given.
        names: What there is.

    Returns:
        A remark to put into an error; empty if none is similar.

    Example:
        >>> hint("similarity_topk", ["mode", "similarity_top_k"])
        " (is 'similarity_top_k' meant?)"
    """
    close = difflib.get_close_matches(name, names, n=1)
    return f" (is {close[0]!r} meant?)" if close else ""


def check_assignable(one: Any, name: str, elsewhere: Mapping[str, str]) -> None:
    """Check that an assignment to an object of this package has an effect.

    Args:
        one: The object. What classes derived from ours add is their own.
        name: The attribute.
        elsewhere: What users may think it has, and what to do instead.

    Raises:
        AttributeError: It has no such attribute.

    Example:
        >>> check_assignable(object(), "mode", {"mode": "assign weights"})
        Traceback (most recent call last):
        ...
        AttributeError: object has no 'mode' to assign: assign weights
    """
    kind = type(one)
    if hasattr(kind, name):
        return
    if name in elsewhere:
        raise AttributeError(f"{kind.__name__} has no {name!r} to assign: {elsewhere[name]}")
    is_ours = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
    made = (vars(base).get("__init__") for base in kind.__mro__[:-1])
    named = {key for init in made if init for key in inspect.signature(init).parameters}
    known = {key for key in (named | set(dir(kind))) if not key.startswith("_")}
    if is_ours and not name.startswith("_") and name not in known:
        raise AttributeError(
            f"{kind.__name__} has no {name!r} to assign, and it would have no effect"
            f"{hint(name, known)}"
        )


class LlamaIndexNames(BaseModel):
    """What all pydantic classes of this package accept as LlamaIndex's own do."""

    # Type checkers and editors shall see the fields by their names, as of any pydantic class.
    if not TYPE_CHECKING:

        def __init__(self, *args: Any, **options: Any) -> None:
            if len(args) > 1 or not all(isinstance(one, str) for one in args):
                given = ", ".join(f"{one!r:.60}" for one in args)
                raise TypeError(
                    f"{type(self).__name__} takes its options by name, and only model_name may "
                    f"stand first without; got {given}"
                )
            if args and "model_name" in options:
                raise TypeError(f"{type(self).__name__} got model_name twice")
            super().__init__(**options, **dict(zip(("model_name",), args, strict=False)))

    @model_validator(mode="before")
    @classmethod
    def _accept_what_was_dumped(cls, values: Any) -> Any:
        """Take ``class_name`` out, which LlamaIndex writes into every dump."""
        if not isinstance(values, dict) or "class_name" not in values:
            return values
        dumped = values["class_name"]
        if dumped != cls.class_name():
            raise ValueError(f"this is the dump of a {dumped}, not of a {cls.class_name()}")
        return {name: value for name, value in values.items() if name != "class_name"}

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex stores."""
        return cls.__name__


class EmbeddingFields(LlamaIndexNames, EncoderFields):
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
