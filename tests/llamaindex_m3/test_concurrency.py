"""Many coroutines at once: common forward passes, the serial results, and no threads that wait."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import VectorStoreQuery
from tests.conftest import make_text
from tests.llamaindex_m3.nodes import make_nodes

from llamaindex_m3 import (
    M3Embedding,
    M3HybridRetriever,
    M3Index,
    M3MilvusSparseEmbeddingFunction,
    M3Reranker,
    M3SparseEmbedding,
    M3SparseRetriever,
)

MANY = 60
# Passes at most; the first takes until all have asked.
FEW = MANY // 6
QUERIES = [f"panda {make_text(i, 3)} {i}" for i in range(MANY)]


def threads_for_calls() -> list[str]:
    """Threads in which asyncio runs what blocks."""
    return [one.name for one in threading.enumerate() if one.name.startswith("asyncio")]


async def test_embeddings(fresh_table, passes) -> None:
    dense, sparse = M3Embedding(encoder=fresh_table), M3SparseEmbedding(encoder=fresh_table)
    milvus = M3MilvusSparseEmbeddingFunction(encoder=fresh_table)
    passes.hold(MANY)
    vectors = await asyncio.gather(*map(dense.aget_query_embedding, QUERIES))
    weights = await asyncio.gather(*map(sparse.aget_query_embedding, QUERIES))
    rows = await asyncio.gather(*(milvus.async_encode_queries([one]) for one in QUERIES))
    assert sum(passes) == MANY
    assert len(passes) <= FEW
    assert threads_for_calls() == []
    assert [row for (row,) in rows] == weights
    expected = fresh_table.encode_queries(QUERIES, return_sparse=True)
    np.testing.assert_allclose(vectors, expected.dense_vecs, atol=1e-6)
    for ours, theirs in zip(weights, expected.lexical_weights, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("kind", [M3SparseRetriever, M3HybridRetriever, M3Index])
async def test_retrievers(fresh_table, passes, kind) -> None:
    nodes = make_nodes()
    options = {M3HybridRetriever: {"rerank": True}, M3Index: {"nodes": []}}.get(kind, {})
    held = kind(encoder=fresh_table, **options)
    passes.hold(len(nodes))
    await asyncio.gather(*(held.ainsert_nodes([node]) for node in nodes))
    assert len(held) == len(nodes)
    assert len(passes) <= len(nodes) // 2
    retriever = held.as_retriever() if kind is M3Index else held
    passes.clear()
    passes.hold(MANY)
    found = await asyncio.gather(*map(retriever.aretrieve, QUERIES))
    assert sum(passes) == MANY
    assert len(passes) <= FEW
    for query, results in zip(QUERIES, found, strict=True):
        expected = retriever.retrieve(query)
        assert [one.node.node_id for one in results] == [one.node.node_id for one in expected]
    if kind is M3Index:
        asked = [VectorStoreQuery(query_str=query, similarity_top_k=2) for query in QUERIES]
        results = await asyncio.gather(*map(held.vector_store.aquery, asked))
        assert [one.ids for one in results] == [held.vector_store.query(one).ids for one in asked]


async def test_a_reranker(fresh_table, passes) -> None:
    nodes = [NodeWithScore(node=node, score=0.0) for node in make_nodes()[:5]]
    reranker = M3Reranker(encoder=fresh_table, top_n=3)
    passes.hold(MANY)
    found = await asyncio.gather(
        *(reranker.apostprocess_nodes(nodes, QueryBundle(query)) for query in QUERIES)
    )
    assert len(passes) <= FEW
    assert threads_for_calls() == []
    for query, results in zip(QUERIES, found, strict=True):
        expected = reranker.postprocess_nodes(nodes, QueryBundle(query))
        assert [one.score for one in results] == pytest.approx(
            [one.score for one in expected], abs=1e-5
        )
