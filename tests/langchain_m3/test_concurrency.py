"""Many coroutines at once: common forward passes, the serial results, and no threads that wait."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest
from langchain_core.documents import Document
from tests.conftest import make_text
from tests.table import table

from langchain_m3 import (
    BGEReranker,
    HuggingFaceBgeEmbeddings,
    M3CascadeReranker,
    M3Embeddings,
    M3HybridRetriever,
    M3InMemoryVectorStore,
    M3Reranker,
    M3SparseEmbeddings,
    M3SparseRetriever,
    QdrantHybridStore,
)
from m3_core import Reranker
from m3_core.testing.rerankers import tiny_reranker

MANY = 60
# Passes at most; the first takes until all have asked.
FEW = MANY // 6
QUERIES = [f"panda {make_text(i, 3)} {i}" for i in range(MANY)]
TEXTS = [f"{make_text(i, 8)} document {i}" for i in range(12)]
DOCUMENTS = [Document(text, id=str(i)) for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_reranker(tmp_path_factory.mktemp("concurrency") / "reranker")


def threads_for_calls() -> list[str]:
    """Threads in which asyncio runs what blocks."""
    return [one.name for one in threading.enumerate() if one.name.startswith("asyncio")]


def flat(result) -> list[float]:
    """The numbers of what an embedding gives."""
    if hasattr(result, "indices"):
        return [*map(float, result.indices), *result.values]
    if result and not isinstance(result[0], float):
        return [number for one in result for number in flat(one)]
    return list(result)


@pytest.mark.parametrize("kind", [M3Embeddings, M3SparseEmbeddings, HuggingFaceBgeEmbeddings])
async def test_embeddings(fresh_table, passes, kind) -> None:
    if kind is HuggingFaceBgeEmbeddings:
        embeddings = kind(model_name=str(table()), query_instruction="")
        embeddings.client = fresh_table
    else:
        embeddings = kind(encoder=fresh_table)
    passes.hold(MANY)
    queries = await asyncio.gather(*map(embeddings.aembed_query, QUERIES))
    passes.hold(len(TEXTS))
    documents = await asyncio.gather(*(embeddings.aembed_documents([one]) for one in TEXTS))
    assert sum(passes) == len(QUERIES) + len(TEXTS)
    assert len(passes) <= FEW
    assert threads_for_calls() == []
    alone = kind(encoder=fresh_table, reuse_encodings=False) if kind is M3Embeddings else embeddings
    for query, result in zip(QUERIES, queries, strict=True):
        np.testing.assert_allclose(flat(result), flat(alone.embed_query(query)), atol=1e-6)
    for text, result in zip(TEXTS, documents, strict=True):
        np.testing.assert_allclose(flat(result), flat(alone.embed_documents([text])), atol=1e-6)


@pytest.mark.parametrize("kind", [M3SparseRetriever, M3HybridRetriever, M3InMemoryVectorStore])
async def test_retrievers(fresh_table, passes, kind) -> None:
    rerank = {} if kind is M3SparseRetriever else {"rerank": True}
    retriever = kind(encoder=fresh_table, k=3, **rerank)
    passes.hold(len(DOCUMENTS))
    await asyncio.gather(*(retriever.aadd_documents([one]) for one in DOCUMENTS))
    assert len(passes) <= len(DOCUMENTS) // 2
    passes.clear()
    passes.hold(MANY)
    found = await asyncio.gather(*map(retriever.asearch_with_scores, QUERIES))
    assert sum(passes) == MANY
    assert len(passes) <= FEW
    invoked = await asyncio.gather(*map(retriever.ainvoke, QUERIES))
    alone = kind(collection=retriever.collection, k=3, reuse_encodings=False, **rerank)
    for query, results, documents in zip(QUERIES, found, invoked, strict=True):
        assert documents == [document for document, _, _ in results]
        expected = alone.search_with_scores(query)
        scores = [score for _, score, _ in results]
        assert scores == pytest.approx([score for _, score, _ in expected], abs=1e-5)


async def test_a_qdrant_store(fresh_table, passes) -> None:
    store = QdrantHybridStore.from_documents(DOCUMENTS, encoder=fresh_table)
    passes.clear()
    passes.hold(MANY)
    found = await asyncio.gather(
        *(store.asimilarity_search_with_score(query, k=3) for query in QUERIES)
    )
    assert sum(passes) == MANY
    assert len(passes) <= FEW
    for query, results in zip(QUERIES[:5], found, strict=False):
        expected = store.similarity_search_with_score(query, k=3)
        assert [document.id for document, _ in results] == [one.id for one, _ in expected]
    store.close()


def slow_down(model, monkeypatch) -> None:
    """Let a pass take as long as a large network's, so that others gather meanwhile."""
    compute = model.model.network.compute

    def slow(batch, tasks):
        time.sleep(0.05)
        return compute(batch, tasks)

    monkeypatch.setattr(model.model.network, "compute", slow)


@pytest.mark.parametrize("kind", [M3Reranker, BGEReranker, M3CascadeReranker])
async def test_rerankers(fresh_table, folder, kind, monkeypatch) -> None:
    core = Reranker.from_pretrained(folder, device="cpu", dtype="float32")
    given = {
        M3Reranker: {"encoder": fresh_table},
        BGEReranker: {"reranker": core},
        M3CascadeReranker: {"encoder": fresh_table, "reranker": core, "first": 4},
    }
    models = [one for one in given[kind].values() if not isinstance(one, int)]
    for model in models:
        slow_down(model, monkeypatch)
    compressor = kind(top_n=3, **given[kind])
    few = DOCUMENTS[:5]
    found = await asyncio.gather(*(compressor.acompress_documents(few, query) for query in QUERIES))
    for model in models:
        assert model.stats().batches <= FEW
    assert threads_for_calls() == []
    for query, results in zip(QUERIES, found, strict=True):
        expected = compressor.compress_documents(few, query)
        assert [one.metadata["relevance_score"] for one in results] == pytest.approx(
            [one.metadata["relevance_score"] for one in expected], abs=1e-5
        )
