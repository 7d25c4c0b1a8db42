"""Dense and sparse in LlamaIndex's own Qdrant and Milvus stores, over real text."""

from __future__ import annotations

import numpy as np
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import MetadataMode, TextNode
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from llama_index.vector_stores.milvus import MilvusVectorStore
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import AsyncQdrantClient, QdrantClient

from llamaindex_m3 import (
    M3Embedding,
    M3MilvusSparseEmbeddingFunction,
    M3MilvusVectorStore,
    M3SparseEmbedding,
)
from m3_core.scoring import dense_scores, lexical_scores

K = 5
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local")


@pytest.fixture
def nodes(corpus) -> list[TextNode]:
    # Both stores weigh what the dense model reads: the texts alone.
    names = ("language", "topic")
    return [
        TextNode(
            text=document["text"],
            id_=f"00000000-0000-0000-0000-{row:012}",
            metadata={name: document[name] for name in names},
            excluded_embed_metadata_keys=list(names),
        )
        for row, document in enumerate(corpus["documents"])
    ]


@pytest.fixture
def scores(table_encoder, corpus, nodes) -> dict[str, np.ndarray]:
    """Brute force: each query with each node."""
    asked = [query["text"] for query in corpus["queries"]]
    queries = table_encoder.encode_queries(asked, return_sparse=True)
    documents = table_encoder.encode_documents([node.text for node in nodes], return_sparse=True)
    return {
        "default": dense_scores(queries.dense_vecs, documents.dense_vecs),
        "sparse": lexical_scores(queries.lexical_weights, documents.lexical_weights),
    }


def row_of(found) -> int:
    return int(found.node_id.rpartition("-")[2])


def index_over(store, nodes, encoder) -> VectorStoreIndex:
    context = StorageContext.from_defaults(vector_store=store)
    return VectorStoreIndex(
        nodes, storage_context=context, embed_model=M3Embedding(encoder=encoder)
    )


def search(index: VectorStoreIndex, mode: str, text: str, **options) -> list[tuple[int, float]]:
    retriever = index.as_retriever(
        similarity_top_k=K, vector_store_query_mode=VectorStoreQueryMode(mode), **options
    )
    return [(row_of(found), found.score) for found in retriever.retrieve(text)]


def check(found: list[tuple[int, float]], scores: np.ndarray) -> None:
    """The best by brute force, with their scores."""
    best = [float(score) for score in np.sort(scores)[::-1][:K] if score > 0]
    assert [score for _, score in found] == pytest.approx(best, abs=1e-5)
    assert scores[[row for row, _ in found]].tolist() == pytest.approx(best, abs=1e-5)


def scaled(ranking: list[tuple[int, float]]) -> dict[int, float]:
    low, high = ranking[-1][1], ranking[0][1]
    return {row: (score - low) / (high - low) for row, score in ranking}


def relative(*rankings: list[tuple[int, float]]) -> dict[int, float]:
    """The default of Qdrant's store: scaled from 0 to 1 over what each found, half of each."""
    fused: dict[int, float] = {}
    for ranking in rankings:
        for row, score in scaled(ranking).items():
            fused[row] = fused.get(row, 0.0) + 0.5 * score
    return fused


def expect(found: list[tuple[int, float]], expected: dict[int, float]) -> None:
    best = sorted(expected.values(), reverse=True)[: len(found)]
    assert len(found) == K
    assert [score for _, score in found] == pytest.approx(best, abs=1e-4)
    assert [expected[row] for row, _ in found] == pytest.approx(best, abs=1e-4)


def qdrant_store(encoder, **clients) -> QdrantVectorStore:
    sparse = M3SparseEmbedding(encoder=encoder)
    return QdrantVectorStore(
        "demo",
        **clients,
        enable_hybrid=True,
        sparse_doc_fn=sparse.sparse_doc_fn,
        sparse_query_fn=sparse.sparse_query_fn,
    )


def test_qdrant(fresh_table, passes, corpus, nodes, scores) -> None:
    client = QdrantClient(":memory:")
    index = index_over(qdrant_store(fresh_table, client=client), nodes, fresh_table)
    assert sum(passes) == len(nodes)
    for number, query in enumerate(corpus["queries"]):
        passes.clear()
        found = search(index, "hybrid", query["text"], sparse_top_k=K)
        dense, sparse = (search(index, mode, query["text"]) for mode in ("default", "sparse"))
        assert passes == [1]
        check(dense, scores["default"][number])
        check(sparse, scores["sparse"][number])
        expect(found, relative(dense, sparse))
        assert query["topic"] in {nodes[row].metadata["topic"] for row, _ in found}
    client.close()


async def test_qdrant_from_async_code(fresh_table, passes, corpus, nodes, scores) -> None:
    client = AsyncQdrantClient(":memory:")
    # The store asks for a synchronous client even where only the other one is used.
    unused = QdrantClient(":memory:")
    store = qdrant_store(fresh_table, client=unused, aclient=client)
    embedding = M3Embedding(encoder=fresh_table)
    await store.async_add(await embedding.acall(nodes))
    index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
    assert sum(passes) == len(nodes)
    passes.clear()
    retriever = index.as_retriever(similarity_top_k=K, vector_store_query_mode="hybrid")
    found = await retriever.aretrieve(corpus["queries"][0]["text"])
    # The store asks for weights on the event loop, but they are computed by then.
    assert passes == [1]
    assert all(name.startswith("m3-processor") for name in passes.threads)
    ranked = []
    for each in (scores["default"][0], scores["sparse"][0]):
        best = np.argsort(-each, kind="stable")[:K].tolist()
        ranked.append([(row, float(each[row])) for row in best if each[row] > 0])
    expect([(row_of(one), one.score) for one in found], relative(*ranked))
    await client.close()
    unused.close()


def milvus_store(
    encoder, path, kind: type[MilvusVectorStore] = MilvusVectorStore, **options
) -> MilvusVectorStore:
    return kind(
        uri=str(path),
        dim=encoder.dimension,
        similarity_metric="IP",
        enable_sparse=True,
        sparse_embedding_function=M3MilvusSparseEmbeddingFunction(encoder=encoder),
        **{"use_async_client": False, **options},
    )


def milvus_sparse(store: MilvusVectorStore, text: str) -> list[tuple[int, float]]:
    """By weights alone; the store's own mode leaves some out, which Milvus Lite refuses."""
    (hits,) = store.client.search(
        store.collection_name,
        store.sparse_embedding_function.encode_queries([text]),
        anns_field=store.sparse_embedding_field,
        limit=K,
    )
    return [(int(hit["id"].rpartition("-")[2]), hit["distance"]) for hit in hits]


def test_milvus(fresh_table, passes, corpus, nodes, scores, tmp_path) -> None:
    store = milvus_store(fresh_table, tmp_path / "milvus.db")
    index = index_over(store, nodes, fresh_table)
    # The store asks for the weights of one node after the other.
    assert sum(passes) == len(nodes)
    for number, query in enumerate(corpus["queries"]):
        passes.clear()
        found = search(index, "hybrid", query["text"])
        dense = search(index, "default", query["text"])
        sparse = milvus_sparse(store, query["text"])
        assert passes == [1]
        check(dense, scores["default"][number])
        check(sparse, scores["sparse"][number])
        fused: dict[int, float] = {}
        for ranking in (dense, sparse):
            for rank, (row, _) in enumerate(ranking, start=1):
                fused[row] = fused.get(row, 0.0) + 1 / (60 + rank)
        expect(found, fused)
    store.client.close()


def with_metadata(nodes: list[TextNode]) -> list[TextNode]:
    """Nodes whose metadata are embedded too, some of them with the same text."""
    found = [node.model_copy(update={"excluded_embed_metadata_keys": []}) for node in nodes]
    twin = found[0].model_copy(update={"id_": f"00000000-0000-0000-0000-{len(nodes):012}"})
    twin.metadata = {"topic": "zebras"}
    return [*found, twin]


def embedded(nodes: list[TextNode]) -> list[str]:
    return [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]


def test_milvus_weighs_the_text_that_is_embedded(
    fresh_table, table_encoder, passes, nodes, tmp_path
) -> None:
    rich = with_metadata(nodes)
    store = milvus_store(fresh_table, tmp_path / "milvus.db", M3MilvusVectorStore)
    index = index_over(store, rich, fresh_table)
    assert sum(passes) == len(rich)
    documents = table_encoder.encode_documents(embedded(rich), return_sparse=True)
    queries = table_encoder.encode_queries(["zebras"], return_sparse=True)
    scores = lexical_scores(queries.lexical_weights, documents.lexical_weights)[0]
    found = milvus_sparse(store, "zebras")
    check(found, scores)
    assert found[0][0] == len(nodes)
    index.insert_nodes([TextNode(text="one more", metadata={"topic": "a later one"})])
    assert sum(passes) == len(rich) + 2
    # Other functions and dense collections are the store's own affair.
    assert store.sparse_embedding_function.encode_documents(["x"]) != []
    store.client.close()


async def test_milvus_from_async_code(fresh_table, table_encoder, passes, nodes, tmp_path) -> None:
    rich = with_metadata(nodes)
    asked = {"kind": M3MilvusVectorStore, "use_async_client": True}
    store = milvus_store(fresh_table, tmp_path / "milvus.db", **asked)
    embedding = M3Embedding(encoder=fresh_table)
    await store.async_add(await embedding.acall(rich))
    assert sum(passes) == len(rich)
    assert all(name.startswith("m3-processor") for name in passes.threads)
    documents = table_encoder.encode_documents(embedded(rich), return_sparse=True)
    queries = table_encoder.encode_queries(["zebras"], return_sparse=True)
    check(
        milvus_sparse(store, "zebras"),
        lexical_scores(queries.lexical_weights, documents.lexical_weights)[0],
    )
    await store.aclient.close()
    store.client.close()
