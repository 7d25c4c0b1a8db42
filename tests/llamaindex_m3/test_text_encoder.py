"""Every adapter takes any ``TextEncoder`` as ``encoder=``."""

from __future__ import annotations

import pytest
from llama_index.core.schema import NodeWithScore, TextNode

from llamaindex_m3 import (
    M3Embedding,
    M3HybridRetriever,
    M3Index,
    M3MilvusSparseEmbeddingFunction,
    M3Reranker,
    M3SparseEmbedding,
    M3SparseRetriever,
)
from m3_core.testing import FakeEncoder

TEXTS = {"p": "Pandas eat bamboo.", "b": "Bears eat fish.", "r": "A river in the city."}
QUERY = "What do pandas eat?"


def nodes() -> list[TextNode]:
    return [TextNode(id_=one, text=text) for one, text in TEXTS.items()]


async def test_embeddings() -> None:
    encoder = FakeEncoder()
    dense, sparse = M3Embedding(encoder=encoder), M3SparseEmbedding(encoder=encoder)
    milvus = M3MilvusSparseEmbeddingFunction(encoder=encoder)
    assert dense.get_query_embedding(QUERY) == await dense.aget_query_embedding(QUERY)
    assert sparse.get_text_embedding(QUERY) == await sparse.aget_text_embedding(QUERY)
    assert milvus.encode_queries([QUERY]) == await milvus.async_encode_queries([QUERY])


@pytest.mark.parametrize("kind", [M3SparseRetriever, M3HybridRetriever, M3Index])
async def test_retrievers(kind) -> None:
    encoder = FakeEncoder()
    made = M3Index(nodes(), encoder=encoder) if kind is M3Index else None
    retriever = made.as_retriever() if made else kind.from_nodes(nodes(), encoder=encoder)
    assert encoder.calls == [("document", 3)]
    (first, *_), (same, *_) = retriever.retrieve(QUERY), await retriever.aretrieve(QUERY)
    assert first == same
    assert first.node.node_id == "p"
    assert encoder.calls == [("document", 3), ("query", 1)]
    # A living index makes nobody else compute multi-vectors of documents.
    asked = []
    encode = encoder.encode_documents
    encoder.encode_documents = lambda texts, *flags, **options: (
        asked.append(options) or encode(texts, *flags, **options)
    )
    M3Embedding(encoder=encoder).get_text_embedding("another text")
    assert not asked[0]["return_colbert_vecs"]
    await (made or retriever).ainsert_nodes([TextNode(id_="n", text="new pandas")])
    assert encoder.calls[-1] == ("document", 1)
    assert len(made or retriever) == 4


async def test_a_reranker() -> None:
    given = [NodeWithScore(node=node, score=0.0) for node in nodes()[::-1]]
    reranker = M3Reranker(encoder=FakeEncoder(), top_n=1)
    (best,) = await reranker.apostprocess_nodes(given, query_str=QUERY)
    assert best.node.node_id == "p"
