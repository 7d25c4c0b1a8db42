"""Keywords of ``langchain_huggingface.HuggingFaceEmbeddings``, as far as they mean something."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from m3_core.adapters import loading_options, merged

if TYPE_CHECKING:
    from m3_core import Encoder

_ENCODING = ("normalize_embeddings", "prompt", "prompt_name")
# These choose a speed or a container there; vectors are the same with or without them.
_IDLE = ("batch_size", "convert_to_numpy", "convert_to_tensor", "device")
# Other outputs: taken only with the value that changes nothing.
_FIXED: Mapping[str, Any] = {
    "output_value": "sentence_embedding",
    "precision": "float32",
    "truncate_dim": None,
}


class EncodingOptions(NamedTuple):
    """What ``encode_kwargs`` ask for.

    Attributes:
        prompt: What stands before every text; ``None`` if nothing is said.
        normalize: Whether vectors are scaled to length 1; ``None`` if nothing is said.
        always_normalized: The checkpoint lists a module that does so whatever is said.
    """

    prompt: str | None
    normalize: bool | None
    always_normalized: bool


def refuse_unknown(what: str, keys: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuse keywords that are not known.

    Args:
        what: Where they are.
        keys: The keywords.
        known: Those that are known.

    Raises:
        TypeError: There is another one.
    """
    unknown = sorted(set(keys) - set(known))
    if unknown:
        raise TypeError(
            f"{what} has unknown keys: {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )


def refuse_other_values(what: str, found: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    """Refuse keywords with another value than the one that changes nothing.

    Args:
        what: Where they are.
        found: The keywords.
        fixed: The only value of each.

    Raises:
        ValueError: One has another value.
    """
    for key, only in fixed.items():
        if found.get(key, only) != only:
            raise ValueError(f"{what}[{key!r}] is {found[key]!r}; only {only!r} is supported")


def encoding_options(what: str, found: Mapping[str, Any], encoder: Encoder) -> EncodingOptions:
    """Read keywords that are handed to sentence-transformers' ``encode``.

    Args:
        what: What they are called.
        found: The keywords.
        encoder: Its checkpoint has the prompts' names and the list of modules.

    Returns:
        What they ask for.

    Raises:
        TypeError: A keyword is unknown.
        ValueError: One asks for what there is not here.
    """
    refuse_unknown(what, found, (*_ENCODING, *_IDLE, *_FIXED))
    refuse_other_values(what, found, _FIXED)
    checkpoint = encoder.model.checkpoint
    prompt, name = found.get("prompt"), found.get("prompt_name")
    if prompt is None and name is not None:
        if name not in checkpoint.prompts:
            raise ValueError(
                f"{what}['prompt_name'] is {name!r}; {encoder.name!r} has the prompts "
                f"{sorted(checkpoint.prompts)}"
            )
        prompt = checkpoint.prompts[name]
    modules = checkpoint.folder / "modules.json"
    listed = json.loads(modules.read_text(encoding="utf-8")) if modules.is_file() else []
    always = any(str(module.get("type", "")).endswith("Normalize") for module in listed)
    normalize = found.get("normalize_embeddings")
    return EncodingOptions(prompt, None if normalize is None else bool(normalize), always)


def accept_names(options: Mapping[str, Any], default_model: str) -> dict[str, Any]:
    """Put the options of ``HuggingFaceEmbeddings`` under the names that they have here.

    Args:
        options: Keywords of a constructor, of either class.
        default_model: The model if none is named.

    Returns:
        The same with names of this package; those that ask for nothing are left out.

    Raises:
        TypeError: A keyword within one of the dictionaries is unknown.
        ValueError: An option is there twice, or asks for what there is not here.

    Example:
        >>> accept_names({"model": "m3-small", "model_kwargs": {"device": "cpu"}}, "")
        {'model_name': 'm3-small', 'device': 'cpu'}
    """
    accepted = dict(options)
    if "model" in accepted:
        accepted = merged(accepted, {"model_name": accepted.pop("model")}, "model=")
    if accepted.pop("multi_process", False):
        raise ValueError(
            "multi_process=True cannot be honoured: a model runs on one device, which it fills "
            "by itself; for several run one process each, with device="
        )
    if "model_kwargs" in accepted:
        found = loading_options(accepted.pop("model_kwargs") or {}, ("truncate_dim",))
        accepted = merged(accepted, found, "model_kwargs=")
    documents = accepted.pop("encode_kwargs", None) or {}
    queries = accepted.pop("query_encode_kwargs", None) or {}
    if documents or queries:
        asked = _encoding(accepted, documents, queries, default_model)
        accepted = merged(accepted, asked, "encode_kwargs= or query_encode_kwargs=")
    return accepted


def _encoding(
    options: Mapping[str, Any],
    documents: Mapping[str, Any],
    queries: Mapping[str, Any],
    default_model: str,
) -> dict[str, Any]:
    from m3_core import Encoder
    from m3_core.encoder import adapter_encoder

    # Loaded once, for the object that is being made too: names of prompts are the checkpoint's.
    name = str(options.get("model_name", default_model))
    encoder = adapter_encoder(options.get("encoder"), name, options)
    if not isinstance(encoder, Encoder):
        raise ValueError(
            "encode_kwargs= and query_encode_kwargs= are about a checkpoint, which an encoder= of "
            f"type {type(encoder).__name__} does not have here: set its own options"
        )
    of_documents = encoding_options("encode_kwargs", documents, encoder)
    of_queries = of_documents
    if queries:
        of_queries = encoding_options("query_encode_kwargs", queries, encoder)
    found: dict[str, Any] = {}
    if of_documents.prompt is not None:
        found["document_instruction"] = of_documents.prompt
    if of_queries.prompt is not None:
        found["query_instruction"] = of_queries.prompt
    scaled = {
        of_documents.always_normalized or one.normalize
        for one in (of_documents, of_queries)
        if one.normalize is not None
    }
    if len(scaled) > 1:
        raise ValueError(
            "normalize_embeddings differs between encode_kwargs and query_encode_kwargs, and "
            "normalize= counts for both: make one object for documents and one for queries"
        )
    if scaled:
        found["normalize"] = scaled.pop()
    return found
