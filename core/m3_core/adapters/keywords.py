"""Keywords of classes that the adapters stand in for: taken under our names, or answered."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from m3_core.adapters.spellings import as_text

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# Of sentence-transformers' constructors: options of the same name and meaning here.
_SAME = ("revision", "token", "local_files_only", "trust_remote_code", "cache_folder")
# Others: the values that ask for nothing, and what to do about other values.
_LOADING: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "backend": (("torch",), "networks run in torch"),
    "modules": ((None,), "pass the folder or repository as model_name="),
    "prompts": (({}, None), "pass query_instruction= and document_instruction="),
    "default_prompt_name": ((None,), "pass query_instruction= and document_instruction="),
    "tokenizer_kwargs": (({}, None), "pass the length as max_length="),
    "processor_kwargs": (({}, None), "pass the length as max_length="),
    "config_kwargs": (({}, None), "the configuration is the checkpoint's"),
    "use_auth_token": ((None,), "pass token="),
    "num_labels": ((1, None), "BGE rerankers give one score a pair"),
    "activation_fn": ((None,), "pass normalize=True for the sigmoid, False for raw scores"),
    "default_activation_function": (
        (None,),
        "pass normalize=True for the sigmoid, False for raw scores",
    ),
    "keep_in_fp32_modules": ((None,), "pass dtype='float32'"),
}
# These choose how the network is computed or how vectors are compared elsewhere.
_IDLE = ("similarity_fn_name", "model_card_data")
_NETWORK_IDLE = ("attn_implementation", "low_cpu_mem_usage", "use_safetensors")

# Keywords of BGEM3FlagModel, FastEmbed's and pymilvus' classes, HuggingFaceEmbeddings and others.
_ELSEWHERE: Mapping[str, str] = {
    "model": "pass model_name=",
    "model_name_or_path": "pass model_name=",
    "model_kwargs": "pass device=, dtype=, revision= and so on themselves",
    "encode_kwargs": "pass normalize=, query_instruction=, document_instruction= themselves",
    "query_encode_kwargs": "pass query_instruction=",
    "use_fp16": "pass dtype='auto' for half precision where it is fast, dtype='float32' for none",
    "use_bf16": "pass dtype='bfloat16'",
    "torch_dtype": "pass dtype=",
    "batch_size": "leave it out: batches are filled by tokens",
    "devices": "pass the one device as device=",
    "target_devices": "pass the one device as device=",
    "multi_process": "one model fills one device; for several run one process each",
    "parallel_process": "one model fills one device; for several run one process each",
    "parallel": "one model fills one device; for several run one process each",
    "cache_dir": "pass cache_folder=",
    "use_auth_token": "pass token=",
    "normalize_embeddings": "pass normalize= where there are dense vectors",
    "query_instruction_for_retrieval": "pass query_instruction=",
    "text_instruction": "pass document_instruction=",
    "embed_instruction": "pass document_instruction=",
    "query_max_length": "pass max_length=",
    "passage_max_length": "pass max_length=",
    "show_progress_bar": "pass show_progress=",
    "top_k": "pass top_n= to rerankers, k= or similarity_top_k= to retrievers",
    "search_kwargs": "pass k= and filter= themselves",
    "embedding": "pass model_name=: objects with the same model share it",
    "embeddings": "pass model_name=: objects with the same model share it",
    "embed_model": "pass model_name=: objects with the same model share it",
    "documents": "pass them to from_documents or add_documents",
    "texts": "pass them to from_texts or add_texts",
    "weights_for_different_modes": "pass weights=, in the order dense, lexical, multi-vector",
}


def refuse_elsewhere(options: Mapping[str, Any], known: Collection[str]) -> None:
    """Answer keywords that other packages' classes have for what is called otherwise here.

    Args:
        options: Keywords of a constructor.
        known: Those that it has.

    Raises:
        ValueError: One of them is another package's; the message names ours.

    Example:
        >>> refuse_elsewhere({"use_fp16": True}, {"dtype"})
        Traceback (most recent call last):
        ...
        ValueError: use_fp16=True cannot be honoured: pass dtype='auto' for half precision where...
    """
    for name, value in options.items():
        if name in _ELSEWHERE and name not in known:
            raise ValueError(f"{name}={value!r} cannot be honoured: {_ELSEWHERE[name]}")


def refuse_unknown(owner: str, options: Collection[str], known: Collection[str]) -> None:
    """Refuse keywords that a class does not have, with those that it has.

    Args:
        owner: The class's name.
        options: Keywords of its constructor.
        known: Those that it has.

    Raises:
        ValueError: One is unknown.

    Example:
        >>> refuse_unknown("M3Reranker", {"topn"}, {"model_name", "top_n"})
        Traceback (most recent call last):
        ...
        ValueError: M3Reranker has no option 'topn' (is 'top_n' meant?): it takes model_name, top_n
    """
    unknown = sorted(map(str, set(options) - set(known)))
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        raise ValueError(
            f"{owner} has no option {', '.join(map(repr, unknown))}"
            f"{f' (is {close[0]!r} meant?)' if close else ''}: it takes {', '.join(sorted(known))}"
        )


def merged(options: Mapping[str, Any], more: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Put options beside others, none of them twice.

    Args:
        options: Options.
        more: Others.
        where: Where the others were found.

    Returns:
        Both.

    Raises:
        ValueError: An option is in both.
    """
    twice = sorted(options.keys() & more.keys())
    if twice:
        raise ValueError(f"{', '.join(twice)} is set twice, once by {where}: set it once")
    return {**options, **more}


def loading_options(found: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    """Translate ``model_kwargs`` that are handed to sentence-transformers' constructors.

    Args:
        found: The keywords.
        own: Further options of the same name and meaning here.

    Returns:
        Our options.

    Raises:
        TypeError: A keyword is unknown.
        ValueError: One asks for what there is not here; the message says what there is.

    Example:
        >>> loading_options({"device": "cpu", "model_kwargs": {"torch_dtype": "float32"}}, ())
        {'device': 'cpu', 'dtype': 'float32'}
    """
    options: dict[str, Any] = {}
    for key, value in found.items():
        if key == "device":
            options[key] = None if value is None else str(value)
        elif key in _SAME or key in own:
            options[key] = value
        elif key in ("model_kwargs", "automodel_args"):
            options |= _network_options(f"model_kwargs[{key!r}]", value or {})
        elif key in _LOADING:
            idle, instead = _LOADING[key]
            if value not in idle:
                raise ValueError(f"model_kwargs[{key!r}]={value!r} cannot be honoured: {instead}")
        elif key not in _IDLE:
            known = sorted(("device", *_SAME, *own))
            raise TypeError(f"model_kwargs has unknown keys: {key}; known are {', '.join(known)}")
    return {key: value for key, value in options.items() if value is not None}


def accept_reranker_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Put options of other packages' rerankers under the names that they have here.

    These are ``FlagEmbeddingReranker``, ``SentenceTransformerRerank``, ``HuggingFaceCrossEncoder``
    and langchain-classic's ``CrossEncoderReranker``.

    Args:
        options: Keywords of a constructor.

    Returns:
        The same with names of this package.

    Raises:
        TypeError: A keyword within ``model_kwargs`` is unknown.
        ValueError: An option is there twice, or asks for what there is not here.

    Example:
        >>> accept_reranker_names({"model": "BAAI/bge-reranker-base", "use_fp16": False})
        {'model_name': 'BAAI/bge-reranker-base', 'dtype': 'float32'}
    """
    accepted = dict(options)
    if "model" in accepted:
        model = as_text(accepted.pop("model"))
        if not isinstance(model, str):
            raise ValueError(
                f"model must be a folder or repository; got {type(model).__name__}: a loaded "
                "m3_core.Reranker is passed as reranker="
            )
        accepted = merged(accepted, {"model_name": model}, "model=")
    if "use_fp16" in accepted:
        half = accepted.pop("use_fp16")
        # As in m3_core.flagembedding: half precision where the device has instructions for it.
        accepted = merged(accepted, {"dtype": "auto" if half else "float32"}, "use_fp16=")
    for name in ("model_kwargs", "cross_encoder_kwargs"):
        if name in accepted:
            found = loading_options(accepted.pop(name) or {}, ("max_length",))
            accepted = merged(accepted, found, f"{name}=")
    refuse_elsewhere(accepted, ("query_max_length",))
    return accepted


def _network_options(what: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """What is handed on to transformers: of it only the data type means something here."""
    dtypes = [found[key] for key in ("torch_dtype", "dtype") if found.get(key) is not None]
    unknown = sorted(found.keys() - {"torch_dtype", "dtype", *_NETWORK_IDLE})
    if unknown:
        raise ValueError(
            f"{what} has {', '.join(unknown)}, which cannot be honoured: the data type is passed "
            "as dtype=, others have no counterpart"
        )
    return {"dtype": str(dtypes[0]).removeprefix("torch.")} if dtypes else {}
