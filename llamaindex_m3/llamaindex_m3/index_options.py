"""What ``M3Index`` is asked for: by its own names, LlamaIndex's, and the managed index's."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

from llama_index.core.vector_stores.types import VectorStoreQueryMode

from llamaindex_m3.options import hint
from m3_core.arguments import check_count

Mode = Literal["dense", "sparse", "colbert", "hybrid"]
Weights = tuple[float, float, float]

WEIGHTS: dict[str, Weights] = {
    "dense": (1.0, 0.0, 0.0),
    "sparse": (0.0, 1.0, 0.0),
    "colbert": (0.0, 0.0, 1.0),
}
_QUERY_MODES: dict[VectorStoreQueryMode, Mode] = {
    VectorStoreQueryMode.DEFAULT: "dense",
    VectorStoreQueryMode.SPARSE: "sparse",
    VectorStoreQueryMode.TEXT_SEARCH: "sparse",
    VectorStoreQueryMode.HYBRID: "hybrid",
    VectorStoreQueryMode.SEMANTIC_HYBRID: "hybrid",
}
# Keywords of the managed index and of VectorStoreIndex that have no place in the constructor.
REPLACED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "use_fp16": ((), "pass dtype='float16' or dtype='float32'; by default the best there is"),
    "batch_size": ((), "leave it out: batches are filled by tokens"),
    "doc_maxlen": ((), "pass max_length=, for documents and queries alike"),
    "query_maxlen": ((), "pass max_length=, for documents and queries alike"),
    "pooling_method": (("cls",), "dense vectors are pooled as the checkpoint says"),
    "normalize_embeddings": ((True,), "vectors have the length 1, so that scores are cosines"),
    "use_async": ((False,), "await ainsert_nodes; encoding fills the device either way"),
    "insert_batch_size": ((2048,), "leave it out: batches are filled by tokens"),
    "store_nodes_override": ((False, True), ""),
    "service_context": ((None,), "pass transformations= and callback_manager= themselves"),
    "embed_model": (
        (None,),
        "name the model by model_name=, or pass a loaded m3_core.Encoder as encoder=",
    ),
}
# Keywords of LlamaIndex's retriever over VectorStoreIndex, and of the managed index's.
REPLACED_OF_RETRIEVERS: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "embed_model": (
        (None,),
        "queries are encoded by the index's own model; to search with another vector, retrieve "
        "QueryBundle(query, embedding=vector)",
    ),
    "vector_store_kwargs": ((None, {}), "pass fetch_k= and exhaustive= themselves"),
    "bge_m3_kwargs": ((None, {}), "pass similarity_top_k= in the place of top_k"),
    "top_k": ((), "pass similarity_top_k="),
}


def same_or_either(names: str, first: Any, second: Any) -> Any:
    """Give what was passed under one of two names of the same option.

    Args:
        names: The two names, for errors.
        first: What was passed under the first, or ``None``.
        second: The same of the second.

    Returns:
        The one that is not ``None``.

    Raises:
        ValueError: Both were passed.
    """
    if first is not None and second is not None:
        raise ValueError(f"{names} are two names of one option: pass one of them")
    return second if first is None else first


def query_mode(mode: VectorStoreQueryMode | str) -> Mode:
    """Give the mode of ``M3Index`` for one of LlamaIndex's vector stores.

    Args:
        mode: The mode, or its name.

    Returns:
        ``"dense"`` for the default mode, as in LlamaIndex's own stores.

    Raises:
        ValueError: There is no such mode here.

    Example:
        >>> query_mode("text_search")
        'sparse'
    """
    for known, own in _QUERY_MODES.items():
        if mode in (known, known.value):
            return own
    asked = mode.value if isinstance(mode, VectorStoreQueryMode) else mode
    raise ValueError(
        f"vector_store_query_mode must be one of {', '.join(m.value for m in _QUERY_MODES)}; got "
        f"{asked!r}; multi-vectors alone are the mode 'colbert' of M3Index.as_retriever"
    )


def search_options(
    mode: Mode,
    hybrid: Weights,
    *,
    similarity_top_k: int,
    weights: Sequence[float] | None = None,
    alpha: float | None = None,
    sparse_top_k: int | None = None,
    hybrid_top_k: int | None = None,
    fetch_k: int | None = None,
) -> dict[str, Any]:
    """Translate LlamaIndex's options of a search into those of a retriever over an ``M3Index``.

    Args:
        mode: Of ``M3Index``.
        hybrid: The weights of its hybrid mode.
        similarity_top_k: How many nodes at most.
        weights: In place of the mode's.
        alpha: In hybrid mode, 1 for dense alone, 0 for lexical alone: the weights
            ``(alpha, 1 - alpha, 0)``.
        sparse_top_k: In sparse mode, how many nodes at most; in hybrid mode, candidates of the
            lexical ranking, and so of the dense one.
        hybrid_top_k: In hybrid mode, how many nodes at most.
        fetch_k: Candidates of each ranking.

    Returns:
        ``similarity_top_k``, ``weights`` and ``fetch_k``.

    Raises:
        ValueError: There is no such mode, options contradict each other, have no place in the
            mode, or are out of their range.

    Example:
        >>> search_options("hybrid", (1, 0.3, 1), similarity_top_k=2, alpha=0.75, hybrid_top_k=5)
        {'similarity_top_k': 5, 'weights': (0.75, 0.25, 0.0), 'fetch_k': None}
    """
    known = {**WEIGHTS, "hybrid": hybrid}
    if mode not in known:
        raise ValueError(f"mode must be one of {', '.join(known)}; got {mode!r}")
    is_hybrid = mode == "hybrid" or weights is not None
    for name, value in (("alpha", alpha), ("hybrid_top_k", hybrid_top_k)):
        if value is not None and not is_hybrid:
            raise ValueError(f"{name}={value!r} is of the hybrid mode; the mode is {mode!r}")
    if sparse_top_k is not None:
        check_count("sparse_top_k", sparse_top_k)
        if is_hybrid:
            fetch_k = same_or_either("fetch_k and sparse_top_k", fetch_k, sparse_top_k)
        elif mode == "sparse":
            similarity_top_k = sparse_top_k
        else:
            raise ValueError(
                f"sparse_top_k={sparse_top_k!r} is of the modes sparse and hybrid; the mode is "
                f"{mode!r}"
            )
    if hybrid_top_k is not None:
        similarity_top_k = check_count("hybrid_top_k", hybrid_top_k)
    if alpha is not None:
        is_number = isinstance(alpha, (int, float)) and not isinstance(alpha, bool)
        if not is_number or not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be from 0 (lexical) to 1 (dense); got {alpha!r}")
        weights = same_or_either("weights and alpha", weights, (alpha, 1 - alpha, 0.0))
    return {
        "similarity_top_k": similarity_top_k,
        "weights": known[mode] if weights is None else tuple(weights),
        "fetch_k": fetch_k,
    }


def check_engine_options(options: Mapping[str, Any], own: Sequence[str]) -> None:
    """Check that keywords of ``as_retriever`` that are not its own are those of an engine.

    LlamaIndex hands all keywords of ``as_query_engine`` and ``as_chat_engine`` to
    ``as_retriever`` and to the engine alike.

    Args:
        options: The keywords.
        own: What ``as_retriever`` takes.

    Raises:
        ValueError: One is neither.
    """
    unknown = sorted(options.keys() - _engine_names())
    if unknown:
        raise ValueError(
            f"M3Index.as_retriever has no option {', '.join(map(repr, unknown))}"
            f"{hint(unknown[0], (*own, *_engine_names()))}: it takes {', '.join(own)}; query and "
            f"chat engines take {', '.join(sorted(_engine_names()))} besides"
        )


@cache
def _engine_names() -> frozenset[str]:
    from llama_index.core import chat_engine
    from llama_index.core.query_engine import RetrieverQueryEngine

    made = (
        RetrieverQueryEngine.from_args,
        chat_engine.CondensePlusContextChatEngine.from_defaults,
        chat_engine.CondenseQuestionChatEngine.from_defaults,
        chat_engine.ContextChatEngine.from_defaults,
        chat_engine.SimpleChatEngine.from_defaults,
    )
    names = {name for one in made for name in inspect.signature(one).parameters}
    return frozenset(names - {"retriever", "query_engine", "kwargs"})
