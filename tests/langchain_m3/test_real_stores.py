"""Our dense and sparse classes inside the stores that LangChain has, over real text."""

from __future__ import annotations

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_milvus import Milvus
from langchain_qdrant import QdrantVectorStore, RetrievalMode
from pymilvus import Function, FunctionType
from qdrant_client import QdrantClient, models

from langchain_m3 import M3Embeddings, M3MilvusSparseEmbeddings, M3SparseEmbeddings
from m3_core.scoring import dense_scores, lexical_scores

K = 5


@pytest.fixture
def texts(corpus) -> list[str]:
    return [document["text"] for document in corpus["documents"]]


@pytest.fixture
def metadatas(corpus) -> list[dict[str, str]]:
    return [
        {name: document[name] for name in ("id", "language", "topic")}
        for document in corpus["documents"]
    ]


@pytest.fixture
def scores(table_encoder, corpus, texts) -> dict[str, np.ndarray]:
    """Brute force: each query with each document."""
    asked = [query["text"] for query in corpus["queries"]]
    queries = table_encoder.encode_queries(asked, return_sparse=True)
    documents = table_encoder.encode_documents(texts, return_sparse=True)
    return {
        "dense": dense_scores(queries.dense_vecs, documents.dense_vecs),
        "sparse": lexical_scores(queries.lexical_weights, documents.lexical_weights),
    }


def check(found: list[tuple[Document, float]], scores: np.ndarray, texts: list[str]) -> list[int]:
    """Positions of what was found, once its scores are those of brute force."""
    positions = [texts.index(document.page_content) for document, _ in found]
    best = [float(score) for score in np.sort(scores)[::-1][:K] if score > 0]
    assert [score for _, score in found] == pytest.approx(best, abs=1e-5)
    assert scores[positions].tolist() == pytest.approx(best, abs=1e-5)
    return positions


def fused(rankings: list[list[int]], offset: int) -> dict[int, float]:
    """Reciprocal rank fusion."""
    total: dict[int, float] = {}
    for ranking in rankings:
        for rank, i in enumerate(ranking):
            total[i] = total.get(i, 0.0) + 1.0 / (offset + rank)
    return total


def check_fused(
    found: list[tuple[Document, float]], expected: dict[int, float], texts: list[str]
) -> None:
    best = sorted(expected.values(), reverse=True)[: len(found)]
    assert [score for _, score in found] == pytest.approx(best, abs=1e-6)
    for document, score in found:
        assert score == pytest.approx(expected[texts.index(document.page_content)], abs=1e-6)


@pytest.fixture
def qdrant(fresh_table):
    client = QdrantClient(location=":memory:")
    client.create_collection(
        "demo",
        {"dense": models.VectorParams(size=fresh_table.dimension, distance=models.Distance.COSINE)},
        {"sparse": models.SparseVectorParams()},
    )
    yield QdrantVectorStore(
        client,
        "demo",
        M3Embeddings(encoder=fresh_table),
        retrieval_mode=RetrievalMode.HYBRID,
        vector_name="dense",
        sparse_embedding=M3SparseEmbeddings(encoder=fresh_table),
        sparse_vector_name="sparse",
    )
    client.close()


def test_qdrant_hybrid(qdrant, passes, corpus, texts, metadatas, scores) -> None:
    passes.clear()
    qdrant.add_texts(texts, metadatas)
    # Each of the 56 once: dense and sparse are asked for one after the other.
    assert sum(passes) == len(texts)
    for number, query in enumerate(corpus["queries"]):
        passes.clear()
        found = qdrant.similarity_search_with_score(query["text"], k=K)
        assert passes == [1]
        rankings = []
        for part, mode in (("dense", RetrievalMode.DENSE), ("sparse", RetrievalMode.SPARSE)):
            qdrant.retrieval_mode = mode
            alone = qdrant.similarity_search_with_score(query["text"], k=K)
            rankings.append(check(alone, scores[part][number], texts))
        qdrant.retrieval_mode = RetrievalMode.HYBRID
        check_fused(found, fused(rankings, offset=2), texts)
        # The corpus has each topic in eight languages.
        assert query["topic"] in {document.metadata["topic"] for document, _ in found}


async def test_qdrant_hybrid_from_async_code(qdrant, passes, corpus, texts, metadatas) -> None:
    passes.clear()
    await qdrant.aadd_texts(texts, metadatas)
    assert sum(passes) == len(texts)
    query = corpus["queries"][0]
    found = await qdrant.asimilarity_search(query["text"], k=K)
    assert found == qdrant.similarity_search(query["text"], k=K)


@pytest.fixture
def milvus(fresh_table, tmp_path) -> Milvus:
    return Milvus(
        [M3Embeddings(encoder=fresh_table), M3MilvusSparseEmbeddings(encoder=fresh_table)],
        connection_args={"uri": str(tmp_path / "milvus.db")},
        vector_field=["dense", "sparse"],
        index_params=[
            {"index_type": "FLAT", "metric_type": "IP", "params": {}},
            {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP", "params": {}},
        ],
        # By default langchain-milvus asks Milvus to leave out small weights.
        search_params=[{"metric_type": "IP", "params": {}}] * 2,
        auto_id=True,
    )


def alone(store: Milvus, field: str, vector: object) -> list[tuple[Document, float]]:
    """What Milvus finds by one of both fields."""
    (hits,) = store.client.search(
        store.collection_name, [vector], anns_field=field, limit=K, output_fields=["text"]
    )
    return [(Document(page_content=hit["entity"]["text"]), hit["distance"]) for hit in hits]


def rrf() -> Function:
    return Function(
        name="rrf",
        input_field_names=[],
        function_type=FunctionType.RERANK,
        params={"reranker": "rrf", "k": 60},
    )


def test_milvus_hybrid(fresh_table, milvus, passes, corpus, texts, metadatas, scores) -> None:
    milvus.add_texts(texts, metadatas)
    # The store asks each of the two for all texts, one after the other.
    assert sum(passes) == len(texts)
    for number, query in enumerate(corpus["queries"]):
        passes.clear()
        found = milvus.similarity_search_with_score(query["text"], k=K, fetch_k=K, reranker=rrf())
        assert passes == [1]
        reps = fresh_table.encode_queries([query["text"]], return_sparse=True)
        vectors = {"dense": reps.dense_vecs[0].tolist(), "sparse": reps.lexical_weights[0]}
        rankings = [
            check(alone(milvus, field, vector), scores[field][number], texts)
            for field, vector in vectors.items()
        ]
        check_fused(found, fused(rankings, offset=61), texts)
        assert query["topic"] in {document.metadata["topic"] for document, _ in found}


def test_caching_embeddings_by_namespace(fresh_table, passes, texts) -> None:
    from langchain_classic.embeddings import CacheBackedEmbeddings
    from langchain_core.stores import InMemoryByteStore

    store = InMemoryByteStore()

    def cached(**options) -> CacheBackedEmbeddings:
        embeddings = M3Embeddings(encoder=fresh_table.with_options(**options))
        return CacheBackedEmbeddings.from_bytes_store(
            embeddings, store, namespace=embeddings.cache_namespace, key_encoder="sha256"
        )

    first = cached().embed_documents(texts)
    assert sum(passes) == len(texts)
    passes.clear()
    assert cached().embed_documents(texts) == first
    assert passes == []
    # Other vectors must not come from the same place.
    shorter = cached(truncate_dim=8).embed_documents(texts)
    assert {len(vector) for vector in shorter} == {8}
    instructed = cached(document_instruction="passage: ").embed_documents(texts)
    assert np.abs(np.array(instructed) - np.array(first)).max() > 1e-3
