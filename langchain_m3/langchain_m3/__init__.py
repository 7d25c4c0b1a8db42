"""BGE-M3 and the BGE family for LangChain.

The names below load on first use: importing the package loads neither LangChain nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_m3.bge import HuggingFaceBgeEmbeddings
    from langchain_m3.bge_reranker import BGEReranker
    from langchain_m3.cascade import M3CascadeReranker
    from langchain_m3.embeddings import M3Embeddings
    from langchain_m3.in_memory import M3InMemoryVectorStore
    from langchain_m3.milvus_sparse import M3MilvusSparseEmbeddings
    from langchain_m3.qdrant import QdrantHybridStore
    from langchain_m3.qdrant_sparse import M3SparseEmbeddings
    from langchain_m3.reranker import M3Reranker
    from langchain_m3.retrievers import M3HybridRetriever, M3SparseRetriever

__all__ = [
    "BGEReranker",
    "HuggingFaceBgeEmbeddings",
    "M3CascadeReranker",
    "M3Embeddings",
    "M3HybridRetriever",
    "M3InMemoryVectorStore",
    "M3MilvusSparseEmbeddings",
    "M3Reranker",
    "M3SparseEmbeddings",
    "M3SparseRetriever",
    "QdrantHybridStore",
]

_HOMES = {
    "BGEReranker": "langchain_m3.bge_reranker",
    "HuggingFaceBgeEmbeddings": "langchain_m3.bge",
    "M3CascadeReranker": "langchain_m3.cascade",
    "M3Embeddings": "langchain_m3.embeddings",
    "M3HybridRetriever": "langchain_m3.retrievers",
    "M3InMemoryVectorStore": "langchain_m3.in_memory",
    "M3MilvusSparseEmbeddings": "langchain_m3.milvus_sparse",
    "M3Reranker": "langchain_m3.reranker",
    "M3SparseEmbeddings": "langchain_m3.qdrant_sparse",
    "M3SparseRetriever": "langchain_m3.retrievers",
    "QdrantHybridStore": "langchain_m3.qdrant",
}
_EXTRAS = {
    "langchain_core": "langchain",
    "langchain_milvus": "milvus",
    "langchain_qdrant": "qdrant",
    "qdrant_client": "qdrant",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise ImportError(
            f"{name} needs {error.name}: pip install 'm3-retrieval[{extra}]'", name=error.name
        ) from error


def __dir__() -> list[str]:
    return __all__
