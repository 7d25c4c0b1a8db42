"""FlagEmbedding's ``FlagAutoModel``: the class for a model by its name."""

from __future__ import annotations

from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from m3_core.errors import UnsupportedModelError
from m3_core.flagembedding.decoders import FlagICLModel, FlagLLMModel
from m3_core.flagembedding.dense import FlagModel
from m3_core.flagembedding.m3 import BGEM3FlagModel
from m3_core.network import find_known

if TYPE_CHECKING:
    from collections.abc import Sequence

_AnyEmbedder = BGEM3FlagModel | FlagModel | FlagLLMModel
_CLASSES: dict[str, type[_AnyEmbedder]] = {
    "encoder-only-base": FlagModel,
    "encoder-only-m3": BGEM3FlagModel,
    "decoder-only-base": FlagLLMModel,
    "decoder-only-icl": FlagICLModel,
}

# Formats of the decoders that FlagEmbedding's table names; all take the last token.
_BGE_FORMAT, _E5_FORMAT = "<instruct>{}\n<query>{}", "Instruct: {}\nQuery: {}"
_DECODERS: dict[str, tuple[type[FlagLLMModel], str]] = {
    "bge-reasoner-embed-qwen3-8b-0923": (FlagLLMModel, _E5_FORMAT),
    "bge-code-v1": (FlagLLMModel, _BGE_FORMAT),
    "bge-en-icl": (FlagICLModel, _BGE_FORMAT),
    "bge-multilingual-gemma2": (FlagLLMModel, _BGE_FORMAT),
    **{
        f"Qwen3-Embedding-{size}": (FlagLLMModel, "Instruct: {}\nQuery:{}")
        for size in ("0.6B", "4B", "8B")
    },
    "e5-mistral-7b-instruct": (FlagLLMModel, _E5_FORMAT),
    "SFR-Embedding-2_R": (FlagLLMModel, _E5_FORMAT),
    "SFR-Embedding-Mistral": (FlagLLMModel, _E5_FORMAT),
    "Linq-Embed-Mistral": (FlagLLMModel, _E5_FORMAT),
}
_NEED_OWN_CODE = ("gte-Qwen2-7B-instruct", "gte-Qwen2-1.5B-instruct", "gte-Qwen1.5-7B-instruct")

# Pooling of other encoders that FlagEmbedding's table names.
_OTHER_MODELS: dict[str, str] = {
    **{
        f"e5-{size}{version}": "mean"
        for size in ("large", "base", "small")
        for version in ("", "-v2")
    },
    **{f"multilingual-e5-{size}": "mean" for size in ("large", "base", "small")},
    "multilingual-e5-large-instruct": "mean",
    **{f"gte-{size}": "mean" for size in ("large", "base", "small")},
    **{f"gte-{size}-zh": "cls" for size in ("large", "base", "small")},
    "bce-embedding-base_v1": "cls",
}
_OTHER_FORMATS = {"multilingual-e5-large-instruct": "Instruct: {}\nQuery: {}"}


class FlagAutoModel:
    """Chooses among the four classes of embedders; made by ``from_finetuned`` only."""

    def __init__(self) -> None:
        raise OSError("use FlagAutoModel.from_finetuned(model_name_or_path)")

    @classmethod
    def from_finetuned(
        cls,
        model_name_or_path: str,
        model_class: str | Enum | None = None,
        normalize_embeddings: bool = True,
        use_fp16: bool = True,
        use_bf16: bool = False,
        query_instruction_for_retrieval: str | None = None,
        devices: str | int | Sequence[str] | Sequence[int] | None = None,
        pooling_method: str | None = None,
        trust_remote_code: bool | None = None,
        query_instruction_format: str | None = None,
        truncate_dim: int | None = None,
        **kwargs: Any,
    ) -> _AnyEmbedder:
        """Load a model with the class that fits its name.

        The arguments are those of ``FlagModel``. ``pooling_method`` and
        ``query_instruction_format`` are the known model's own if ``None``. A folder whose name
        holds that of a known model counts as that model; of ``checkpoint-...`` folders the one
        above counts. For other names ``model_class`` says what to load: ``"encoder-only-base"``,
        ``"encoder-only-m3"``, ``"decoder-only-base"`` or ``"decoder-only-icl"``. A name that says
        nothing without it is a ``ValueError``, and a model that is known to need code of its own an
        ``UnsupportedModelError``.
        """
        path = PurePath(model_name_or_path)
        name = path.parent.name if path.name.startswith("checkpoint-") else path.name
        pooling, template = "cls", "{}{}"
        if model_class is not None:
            asked = model_class.value if isinstance(model_class, Enum) else model_class
            if asked not in _CLASSES:
                raise ValueError(
                    f"model_class {asked!r} is none of {', '.join(map(repr, _CLASSES))}"
                )
            chosen = _CLASSES[asked]
            pooling = chosen.DEFAULT_POOLING_METHOD
        elif name in _NEED_OWN_CODE:
            raise UnsupportedModelError(
                f"{name!r} attends to later tokens by code of its own, which is not run here: "
                "load it with sentence-transformers"
            )
        elif name in _DECODERS:
            chosen, template = _DECODERS[name]
            pooling = chosen.DEFAULT_POOLING_METHOD
        elif name in _OTHER_MODELS:
            chosen, pooling = FlagModel, _OTHER_MODELS[name]
            template = _OTHER_FORMATS.get(name, template)
        else:
            chosen = _class_of_known(name)
        return chosen(
            model_name_or_path,
            normalize_embeddings=normalize_embeddings,
            use_fp16=use_fp16,
            use_bf16=use_bf16,
            query_instruction_for_retrieval=query_instruction_for_retrieval,
            query_instruction_format=query_instruction_format or template,
            devices=devices,
            pooling_method=pooling_method or pooling,
            trust_remote_code=bool(trust_remote_code),
            truncate_dim=truncate_dim,
            **kwargs,
        )


def _class_of_known(name: str) -> type[BGEM3FlagModel | FlagModel]:
    known = find_known(name)
    if known is None or known.pooling is None:
        raise ValueError(
            f"{name!r} is not the name of a known encoder: pass model_class='encoder-only-m3' for "
            "an M3 model or 'encoder-only-base' for a dense one"
        )
    return BGEM3FlagModel if known.kind == "m3" else FlagModel
