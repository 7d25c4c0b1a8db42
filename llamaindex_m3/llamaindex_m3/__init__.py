"""BGE-M3 and the BGE family for LlamaIndex.

The names below load on first use: importing the package loads neither LlamaIndex nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from llamaindex_m3.bge_reranker import BGEReranker
    from llamaindex_m3.cascade import M3CascadeReranker
    from llamaindex_m3.embeddings import M3Embedding
    from llamaindex_m3.index import M3Index
    from llamaindex_m3.milvus_sparse import M3MilvusSparseEmbeddingFunction
    from llamaindex_m3.milvus_store import M3MilvusVectorStore
    from llamaindex_m3.qdrant import QdrantHybridStore
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
    "QdrantHybridStore",
]

_HOMES = {
    "BGEReranker": "bge_reranker",
    "M3CascadeReranker": "cascade",
    "M3Embedding": "embeddings",
    "M3HybridRetriever": "retrievers",
    "M3Index": "index",
    "M3MilvusSparseEmbeddingFunction": "milvus_sparse",
    "M3MilvusVectorStore": "milvus_store",
    "M3Reranker": "reranker",
    "M3SparseEmbedding": "sparse",
    "M3SparseRetriever": "retrievers",
    "QdrantHybridStore": "qdrant",
}
# Of LlamaIndex's stores only Milvus's is imported here.
_EXTRAS = {
    "llama_index.vector_stores": "llamaindex-milvus",
    "llama_index": "llamaindex",
    "qdrant_client": "qdrant",
}

__getattr__ = lazy_names(__name__, _HOMES, _EXTRAS)


def __dir__() -> list[str]:
    return __all__
