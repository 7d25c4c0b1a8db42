"""The table of known models and the choice of instructions.

Instructions as BAAI publishes them: the model table of FlagEmbedding's README and
``research/C_MTEB/eval_MTEB.py`` for v1 and v1.5, ``research/llm_embedder`` for LLM-Embedder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["m3", "dense", "cross-encoder", "llm", "layerwise", "lightweight"]

QUERY_EN = "Represent this sentence for searching relevant passages: "
QUERY_ZH = "为这个句子生成表示以用于检索相关文章："

# LLM-Embedder: task -> (instruction of queries, instruction of keys).
LLM_EMBEDDER_TASKS: Mapping[str, tuple[str, str]] = {
    "qa": (
        "Represent this query for retrieving relevant documents: ",
        "Represent this document for retrieval: ",
    ),
    "icl": (
        "Convert this example into vector to look for useful examples: ",
        "Convert this example into vector for retrieval: ",
    ),
    "chat": (
        "Embed this dialogue to find useful historical dialogues: ",
        "Embed this historical dialogue for retrieval: ",
    ),
    "lrlm": (
        "Embed this text chunk for finding useful historical chunks: ",
        "Embed this historical text chunk for retrieval: ",
    ),
    "tool": (
        "Transform this user request for fetching helpful tool descriptions: ",
        "Transform this tool description for retrieval: ",
    ),
    "convsearch": (
        "Encode this query and context for searching relevant passages: ",
        "Encode this passage for retrieval: ",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """What its makers say of a model.

    Attributes:
        kind: Encoder with three representations, dense encoder, or kind of reranker.
        max_length: Tokens of a text (of a pair, for rerankers), special tokens included.
        pooling: How the dense vector is taken from the hidden states; ``None`` for rerankers.
        query_instruction: Put before queries; ``""`` for none.
        document_instruction: Put before documents; ``""`` for none.
        tasks: Instructions by task, where the model has several.
    """

    kind: Kind
    max_length: int
    pooling: Literal["cls", "mean"] | None = "cls"
    query_instruction: str = ""
    document_instruction: str = ""
    tasks: Mapping[str, tuple[str, str]] | None = None


KNOWN_MODELS: Mapping[str, KnownModel] = {
    "m3-small": KnownModel(kind="m3", max_length=512, pooling="mean"),
    "bge-m3": KnownModel(kind="m3", max_length=8192),
    "bge-m3-unsupervised": KnownModel(kind="dense", max_length=8192),
    "bge-m3-retromae": KnownModel(kind="dense", max_length=8192),
    **{
        f"bge-{size}-{language}{version}": KnownModel(
            kind="dense", max_length=512, query_instruction=instruction
        )
        for size in ("large", "base", "small")
        for language, instruction in (("en", QUERY_EN), ("zh", QUERY_ZH))
        for version in ("-v1.5", "")
    },
    "llm-embedder": KnownModel(
        kind="dense",
        max_length=512,
        query_instruction=LLM_EMBEDDER_TASKS["qa"][0],
        document_instruction=LLM_EMBEDDER_TASKS["qa"][1],
        tasks=LLM_EMBEDDER_TASKS,
    ),
    "bge-reranker-base": KnownModel(kind="cross-encoder", max_length=512, pooling=None),
    "bge-reranker-large": KnownModel(kind="cross-encoder", max_length=512, pooling=None),
    "bge-reranker-v2-m3": KnownModel(kind="cross-encoder", max_length=8192, pooling=None),
    "bge-reranker-v2-gemma": KnownModel(kind="llm", max_length=8192, pooling=None),
    "bge-reranker-v2-minicpm-layerwise": KnownModel(
        kind="layerwise", max_length=2048, pooling=None
    ),
    "bge-reranker-v2.5-gemma2-lightweight": KnownModel(
        kind="lightweight", max_length=8192, pooling=None
    ),
}

# Longest first, so that a copy of bge-base-en-v1.5 is not taken for bge-base-en.
_NAME_IN_TEXT = re.compile(
    "|".join(re.escape(name) for name in sorted(KNOWN_MODELS, key=len, reverse=True))
)


def find_known(*names: str | None) -> KnownModel | None:
    """Find the table's entry for a model or for a copy that still carries its name.

    Args:
        *names: Repository or folder names, the most reliable first; ``None`` is passed over.

    Returns:
        The entry of the first name that contains a known model's, else ``None``.

    Example:
        >>> find_known("BAAI/bge-small-zh-v1.5").query_instruction
        '为这个句子生成表示以用于检索相关文章：'
        >>> find_known("models/my-bge-m3-tuned").query_instruction
        ''
        >>> find_known("intfloat/multilingual-e5-small") is None
        True
    """
    for name in names:
        parts = re.split(r"[/\\]", name.rstrip("/\\").lower()) if name else [""]
        match = _NAME_IN_TEXT.search(parts[-1])
        if match:
            return KNOWN_MODELS[match.group()]
    return None


def choose_instructions(
    known: KnownModel | None,
    prompts: Mapping[str, str],
    query: str | None,
    document: str | None,
    task: str | None = None,
) -> tuple[str, str]:
    """Choose what is put before queries and documents: the user's, the checkpoint's, the table's.

    Args:
        known: The model's entry in the table, if it has one.
        prompts: ``prompts`` of ``config_sentence_transformers.json``.
        query: The user's query instruction; ``""`` switches it off, ``None`` leaves the choice.
        document: The user's document instruction, likewise.
        task: One of LLM-Embedder's tasks.

    Returns:
        The query instruction and the document instruction.

    Raises:
        ValueError: The model has no such task.

    Example:
        >>> choose_instructions(KNOWN_MODELS["bge-base-en-v1.5"], {}, None, None)
        ('Represent this sentence for searching relevant passages: ', '')
        >>> choose_instructions(None, {"query": "query: ", "passage": "passage: "}, "", None)
        ('', 'passage: ')
    """
    table = (known.query_instruction, known.document_instruction) if known else ("", "")
    if task is not None:
        tasks = (known.tasks if known else None) or {}
        if task not in tasks:
            offered = f"it knows {', '.join(tasks)}" if tasks else "it has no tasks"
            raise ValueError(f"task {task!r} was asked for, but for this model {offered}")
        table = tasks[task]
        prompts = {}
    if query is None:
        query = prompts.get("query", table[0])
    if document is None:
        document = next(
            (prompts[key] for key in ("document", "passage", "corpus") if key in prompts), table[1]
        )
    return query, document
