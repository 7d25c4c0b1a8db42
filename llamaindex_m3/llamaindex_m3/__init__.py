"""BGE-M3 and the BGE family for LlamaIndex.

The names below load on first use: importing the package loads neither LlamaIndex nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamaindex_m3.bge_reranker import BGEReranker
    from llamaindex_m3.cascade import M3CascadeReranker
    from llamaindex_m3.embeddings import M3Embedding
    from llamaindex_m3.index import M3Index
    from llamaindex_m3.milvus_sparse import M3MilvusSparseEmbeddingFunction
    from llamaindex_m3.milvus_store import M3MilvusVectorStore
    from llamaindex_m3.reranker import M3Reranker
    from llamaindex_m3.retrievers import M3HybridRetriever, M3SparseRetriever
    from llamaindex_m3.sparse import M3SparseEmbedding

__all__ = [
    "BGEReranker",
    "M3CascadeReranker",
    "M3Embedding",
    "M3HybridRetriever",
    "M3Index",
    "M3MilvusSparseEmbeddingFunction",
    "M3MilvusVectorStore",
    "M3Reranker",
    "M3SparseEmbedding",
    "M3SparseRetriever",
]

_HOMES = {
    "BGEReranker": "llamaindex_m3.bge_reranker",
    "M3CascadeReranker": "llamaindex_m3.cascade",
    "M3Embedding": "llamaindex_m3.embeddings",
    "M3HybridRetriever": "llamaindex_m3.retrievers",
    "M3Index": "llamaindex_m3.index",
    "M3MilvusSparseEmbeddingFunction": "llamaindex_m3.milvus_sparse",
    "M3MilvusVectorStore": "llamaindex_m3.milvus_store",
    "M3Reranker": "llamaindex_m3.reranker",
    "M3SparseEmbedding": "llamaindex_m3.sparse",
    "M3SparseRetriever": "llamaindex_m3.retrievers",
}
# Of LlamaIndex's stores only Milvus's is imported here.
_EXTRAS = {
    "llama_index.vector_stores": "llamaindex-milvus",
    "llama_index": "llamaindex",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        missing = f"{error.name}."
        extra = next((e for one, e in _EXTRAS.items() if missing.startswith(f"{one}.")), None)
        if extra is None:
            raise
        raise ImportError(
            f"{name} needs {error.name}: pip install 'm3-retrieval[{extra}]'", name=error.name
        ) from error


def __dir__() -> list[str]:
    return __all__
