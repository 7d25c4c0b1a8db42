"""What ``HuggingFaceEmbedding`` calls the options that ``M3Embedding`` has under other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_RENAMED = {"text_instruction": "document_instruction", "show_progress_bar": "show_progress"}

# Keywords with no counterpart: the values that ask for nothing, and what to do about others.
_WITHOUT: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "tokenizer_name": (("deprecated", None), "the tokenizer is the checkpoint's tokenizer.json"),
    "tokenizer": (("deprecated", None), "the tokenizer is the checkpoint's tokenizer.json"),
    "model": (("deprecated", None), "pass model_name, or a loaded m3_core.Encoder as encoder="),
    "parallel_process": (
        (False, None),
        "a model runs on one device, which it fills by itself; for several run one process each, "
        "as IngestionPipeline.run(num_workers=...) does",
    ),
    "target_devices": ((None,), "pass the one device as device="),
    "backend": (("torch",), "networks run in torch"),
    "model_kwargs": (({}, None), "pass the data type as dtype=, others have no counterpart"),
    "tokenizer_kwargs": (({}, None), "pass the length as max_length="),
    "config_kwargs": (({}, None), "the configuration is the checkpoint's"),
    "prompts": (({}, None), "pass query_instruction= and document_instruction="),
    "default_prompt_name": ((None,), "pass query_instruction= and document_instruction="),
    "similarity_fn_name": ((None,), "the vector store chooses how vectors are compared"),
    "use_auth_token": ((None,), "pass token="),
}


def accept_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Put the options of ``HuggingFaceEmbedding`` under the names that they have here.

    Args:
        options: Keywords of a constructor, of either class.

    Returns:
        The same with names of this package; those that ask for nothing are left out.

    Raises:
        ValueError: An option is there under both names, or asks for what there is not here.

    Example:
        >>> accept_names({"text_instruction": "d: ", "parallel_process": False, "device": "cpu"})
        {'device': 'cpu', 'document_instruction': 'd: '}
        >>> accept_names({"target_devices": ["cuda:0", "cuda:1"]})
        Traceback (most recent call last):
        ...
        ValueError: target_devices=['cuda:0', 'cuda:1'] cannot be honoured: pass the one device...
    """
    accepted = dict(options)
    for theirs, ours in _RENAMED.items():
        if theirs not in accepted:
            continue
        value = accepted.pop(theirs)
        if ours in accepted:
            raise ValueError(f"{theirs} is {ours} under another name: pass one of them")
        accepted[ours] = value
    for name, (idle, instead) in _WITHOUT.items():
        if name in accepted and (value := accepted.pop(name)) not in idle:
            raise ValueError(f"{name}={value!r} cannot be honoured: {instead}")
    if accepted.get("pooling") == "deprecated":
        del accepted["pooling"]
    return accepted
