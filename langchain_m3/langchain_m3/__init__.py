"""BGE-M3 and the BGE family for LangChain.

The names below load on first use: importing the package loads neither LangChain nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

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
    "BGEReranker": "bge_reranker",
    "HuggingFaceBgeEmbeddings": "bge",
    "M3CascadeReranker": "cascade",
    "M3Embeddings": "embeddings",
    "M3HybridRetriever": "retrievers",
    "M3InMemoryVectorStore": "in_memory",
    "M3MilvusSparseEmbeddings": "milvus_sparse",
    "M3Reranker": "reranker",
    "M3SparseEmbeddings": "qdrant_sparse",
    "M3SparseRetriever": "retrievers",
    "QdrantHybridStore": "qdrant",
}
_EXTRAS = {
    "langchain_core": "langchain",
    "langchain_milvus": "milvus",
    "langchain_qdrant": "langchain-qdrant",
    "qdrant_client": "qdrant",
}

__getattr__ = lazy_names(__name__, _HOMES, _EXTRAS)


def __dir__() -> list[str]:
    return __all__
