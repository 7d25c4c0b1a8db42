"""Every adapter takes any ``TextEncoder`` as ``encoder=``."""

from __future__ import annotations

import pickle

import pytest
from langchain_core.documents import Document

from langchain_m3 import (
    M3CascadeReranker,
    M3Embeddings,
    M3HybridRetriever,
    M3InMemoryVectorStore,
    M3MilvusSparseEmbeddings,
    M3Reranker,
    M3SparseEmbeddings,
    M3SparseRetriever,
    QdrantHybridStore,
)
from m3_core import Reranker
from m3_core.testing import FakeEncoder
from m3_core.testing.rerankers import tiny_reranker

DOCUMENTS = [
    Document("Pandas eat bamboo.", id="p"),
    Document("Bears eat fish.", id="b"),
    Document("A river in the city.", id="r"),
]
QUERY = "What do pandas eat?"


async def test_embeddings() -> None:
    encoder = FakeEncoder()
    vector = M3Embeddings(encoder=encoder).embed_query(QUERY)
    assert vector == await M3Embeddings(encoder=encoder).aembed_query(QUERY)
    sparse = M3SparseEmbeddings(encoder=encoder)
    assert sparse.embed_query(QUERY) == await sparse.aembed_query(QUERY)
    milvus = M3MilvusSparseEmbeddings(encoder=encoder)
    assert milvus.embed_documents([QUERY]) == await milvus.aembed_documents([QUERY])
    many = [f"document {i}" for i in range(100)]
    dense = M3Embeddings(encoder=encoder)
    assert await dense.aembed_documents(many) == dense.embed_documents(many)


@pytest.mark.parametrize("kind", [M3SparseRetriever, M3HybridRetriever, M3InMemoryVectorStore])
async def test_retrievers(kind) -> None:
    encoder = FakeEncoder()
    retriever = kind.from_documents(DOCUMENTS, encoder=encoder, k=1)
    assert encoder.calls == [("document", 3)]
    assert retriever.invoke(QUERY) == await retriever.ainvoke(QUERY) == DOCUMENTS[:1]
    assert encoder.calls == [("document", 3), ("query", 1)]
    # What was stored did not go through the cache, and the adapter beside does not compute for it.
    M3Embeddings(encoder=encoder).embed_documents(["Pandas eat bamboo."])
    assert encoder.calls[2:] == [("document", 1)]
    with pytest.raises(ValueError, match="whose options are its own"):
        retriever.max_length = 5
    assert await retriever.adelete(["p"])
    assert len(retriever) == 2


def test_a_store_of_qdrant() -> None:
    store = QdrantHybridStore.from_documents(DOCUMENTS, encoder=FakeEncoder(), rerank=True)
    assert store.similarity_search(QUERY, k=1) == DOCUMENTS[:1]
    assert len(store.max_marginal_relevance_search(QUERY, k=2)) == 2
    store.close()


async def test_rerankers(tmp_path) -> None:
    encoder = FakeEncoder()
    reranker = M3Reranker(encoder=encoder, top_n=1)
    (best,) = await reranker.acompress_documents(DOCUMENTS[::-1], QUERY)
    assert best.id == "p"
    core = Reranker.from_pretrained(tiny_reranker(tmp_path / "r"), device="cpu")
    cascade = M3CascadeReranker(encoder=encoder, reranker=core, first=2)
    assert {one.id for one in cascade.compress_documents(DOCUMENTS, QUERY)} == {"p", "b"}


def test_pickled() -> None:
    embeddings = M3Embeddings(encoder=FakeEncoder())
    again = pickle.loads(pickle.dumps(embeddings))
    assert again.embed_query(QUERY) == embeddings.embed_query(QUERY)
