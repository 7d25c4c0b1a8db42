"""``QdrantHybridStore`` as LlamaIndex's users call it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from pydantic import ValidationError
from qdrant_client import AsyncQdrantClient, QdrantClient
from tests.llamaindex_m3.nodes import QUERY, make_nodes

from llamaindex_m3 import M3Embedding, QdrantHybridStore
from m3_core.errors import MissingRepresentationError, StoreError
from m3_core.scoring import dense_scores, lexical_scores, maxsim_scores
from m3_core.testing import FakeEncoder

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local")
MODES = ("default", "sparse", "text_search", "hybrid", "semantic_hybrid")


@pytest.fixture
def client():
    client = QdrantClient(":memory:")
    yield client
    client.close()


@pytest.fixture
def fake() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def store(fake, client) -> QdrantHybridStore:
    return QdrantHybridStore("c", client, encoder=fake)


def index_over(store, nodes, **options) -> VectorStoreIndex:
    context = StorageContext.from_defaults(vector_store=store)
    options["embed_model"] = options.get("embed_model") or store.embed_model
    return VectorStoreIndex(nodes, storage_context=context, **options)


def opened(store) -> VectorStoreIndex:
    return VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)


def search(index, mode: str, k: int = 30, **options) -> dict[str, float]:
    retriever = index.as_retriever(vector_store_query_mode=mode, similarity_top_k=k, **options)
    return {one.node.node_id: one.score for one in retriever.retrieve(QUERY)}


def brute_force(encoder, nodes) -> dict[str, dict[str, float]]:
    flags = {"return_sparse": True, "return_colbert_vecs": True}
    query = encoder.encode_queries([QUERY], **flags)
    documents = encoder.encode_documents([node.get_content("embed") for node in nodes], **flags)
    scores = {
        "default": dense_scores(query.dense_vecs, documents.dense_vecs),
        "sparse": lexical_scores(query.lexical_weights, documents.lexical_weights),
        "multi": maxsim_scores(query.colbert_vecs, documents.colbert_vecs),
    }
    names = [node.node_id for node in nodes]
    return {
        name: {one: score for one, score in zip(names, rows[0].tolist(), strict=True) if score > 0}
        for name, rows in scores.items()
    }


def by_rank(*scores: dict[str, float]) -> dict[str, float]:
    fused: dict[str, float] = {}
    for one in scores:
        for rank, name in enumerate(sorted(one, key=lambda key: -one[key])):
            fused[name] = fused.get(name, 0.0) + 1 / (2 + rank)
    return fused


def test_a_model_equals_brute_force_with_one_pass_a_node_and_a_query(fresh_table, passes, corpus):
    nodes = [TextNode(id_=one["id"], text=one["text"]) for one in corpus["documents"]]
    store = QdrantHybridStore(encoder=fresh_table, rerank=True)
    index = index_over(store, nodes, embed_model=M3Embedding(encoder=fresh_table))
    assert sum(passes) == len(nodes)
    queries = [query["text"] for query in corpus["queries"][:4]]
    flags = {"return_sparse": True, "return_colbert_vecs": True}
    asked = fresh_table.encode_queries(queries, **flags)
    documents = fresh_table.encode_documents([node.text for node in nodes], **flags)
    exact = {
        "default": dense_scores(asked.dense_vecs, documents.dense_vecs),
        "sparse": lexical_scores(asked.lexical_weights, documents.lexical_weights),
        "hybrid": maxsim_scores(asked.colbert_vecs, documents.colbert_vecs),
    }
    rows = {node.node_id: row for row, node in enumerate(nodes)}
    for number, query in enumerate(queries):
        passes.clear()
        for mode, scores in exact.items():
            retriever = index.as_retriever(vector_store_query_mode=mode, similarity_top_k=5)
            found = retriever.retrieve(query)
            best = [score for score in np.sort(scores[number])[::-1][:5] if score > 0]
            assert [one.score for one in found] == pytest.approx(best, abs=2e-3)
            own = [scores[number, rows[one.node.node_id]] for one in found]
            assert [one.score for one in found] == pytest.approx(own, abs=2e-3)
        assert passes == [1]
    store.close()


async def test_from_async_code_too(fresh_table, passes) -> None:
    nodes = make_nodes()
    client = AsyncQdrantClient(location=":memory:")
    store = QdrantHybridStore(encoder=fresh_table, aclient=client)
    await store.async_add(await store.embed_model.acall(nodes))
    assert sum(passes) == len(nodes)
    passes.clear()
    retriever = opened(store).as_retriever(vector_store_query_mode="hybrid", similarity_top_k=3)
    assert len(await retriever.aretrieve(QUERY)) == 3
    assert passes == [1]
    with pytest.raises(ValueError, match="only an async"):
        retriever.retrieve(QUERY)
    await client.close()


def test_modes_equal_brute_force(store, fake) -> None:
    nodes = make_nodes()
    index = index_over(store, nodes)
    assert fake.calls == [("document", len(nodes))]
    exact = brute_force(fake, nodes)
    assert search(index, "default") == pytest.approx(exact["default"], abs=1e-5)
    assert search(index, "sparse") == pytest.approx(exact["sparse"], abs=1e-5)
    assert search(index, "text_search") == search(index, "sparse")
    # Equal scores may stand in either order: what both rankings found is what is fused.
    fused = by_rank(search(index, "default"), search(index, "sparse"))
    assert search(index, "hybrid") == pytest.approx(fused, abs=1e-5)
    assert search(index, "semantic_hybrid") == search(index, "hybrid")
    assert search(index, "hybrid", alpha=1.0) == pytest.approx(by_rank(search(index, "default")))
    assert search(index, "hybrid", alpha=0.0) == pytest.approx(by_rank(search(index, "sparse")))
    assert search(index, "hybrid", alpha=0.5) == pytest.approx(fused, abs=1e-5)


def test_reranking(fake, client) -> None:
    nodes = make_nodes()
    index = index_over(QdrantHybridStore("c", client, encoder=fake, rerank=True), nodes)
    assert fake.calls == [("document", len(nodes))]
    exact = brute_force(fake, nodes)["multi"]
    assert search(index, "hybrid") == pytest.approx(exact, abs=1e-5)
    assert search(index, "default", 3).keys() <= exact.keys()


def test_how_many_are_returned_and_fused(store, monkeypatch) -> None:
    index = index_over(store, make_nodes())
    asked = []
    query_points = store.client.query_points

    def recording(**options):
        asked.append(options)
        return query_points(**options)

    monkeypatch.setattr(store.client, "query_points", recording)

    def limits(mode: str, k: int, **options) -> tuple[int, list[int]]:
        found = search(index, mode, k, **options)
        return len(found), [one.limit for one in asked[-1].get("prefetch") or []]

    assert limits("hybrid", 3) == (3, [100, 100])
    assert limits("hybrid", 3, sparse_top_k=7) == (3, [100, 7])
    assert limits("hybrid", 200, hybrid_top_k=4) == (4, [200, 200])
    assert limits("hybrid", 2, hybrid_top_k=4) == (4, [100, 100])
    assert limits("sparse", 2, sparse_top_k=4) == (4, [])
    assert limits("default", 4) == (4, [])
    store.fetch_k = 9
    assert limits("hybrid", 2) == (2, [9, 9])
    assert len(asked) == 7


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        ("default", {"alpha": 0.5}, "alpha=0.5 has no place in the mode 'default'"),
        ("sparse", {"hybrid_top_k": 5}, "hybrid_top_k=5 has no place"),
        ("default", {"sparse_top_k": 5}, "sparse_top_k=5 has no place"),
        ("hybrid", {"alpha": 2.0}, "alpha must be from 0"),
        ("hybrid", {"hybrid_top_k": 0}, "hybrid_top_k must be at least 1"),
        ("hybrid", {"sparse_top_k": 0}, "sparse_top_k must be at least 1"),
        ("mmr", {}, "must be one of default, sparse, text_search, hybrid, .* got 'mmr'"),
    ],
)
def test_what_cannot_be_honoured_is_an_error(store, fake, mode, options, message) -> None:
    index = index_over(store, make_nodes(3))
    with pytest.raises(ValueError, match=message):
        search(index, mode, **options)


def test_stores_with_one_kind_of_vectors(fake, client) -> None:
    dense = QdrantHybridStore("d", client, encoder=fake, sparse_vector_name=None)
    sparse = QdrantHybridStore("s", client, encoder=fake, dense_vector_name=None)
    for store in (dense, sparse):
        store.add(make_nodes())
    exact = brute_force(fake, make_nodes())
    assert search(opened(dense), "default") == pytest.approx(exact["default"], abs=1e-5)
    assert search(opened(sparse), "sparse") == pytest.approx(exact["sparse"], abs=1e-5)
    for store, mode, name in ((dense, "hybrid", "sparse"), (sparse, "default", "dense")):
        with pytest.raises(ValueError, match=f"{name}_vector_name is None"):
            search(opened(store), mode)
    assert dense.get_nodes(["n1"])[0].embedding is not None
    assert sparse.get_nodes(["n1"])[0].embedding is None


@pytest.mark.filterwarnings("ignore:Local mode performs exact")
def test_further_options_of_a_query(store) -> None:
    index = index_over(store, make_nodes())
    scores = [*search(index, "default").values()]
    options = {"score_threshold": (scores[3] + scores[4]) / 2 if scores[3] > scores[4] else 0.0}
    found = search(index, "default", vector_store_kwargs=options)
    assert [*found.values()] == [score for score in scores if score >= options["score_threshold"]]
    exact = {"search_params": {"exact": True}, "offset": 2}
    assert [*search(index, "default", 3, vector_store_kwargs=exact).values()] == scores[2:5]
    with pytest.raises(TypeError, match="treshold"):
        search(index, "default", vector_store_kwargs={"treshold": 1})


async def test_what_each_representation_says(store, fake) -> None:
    nodes = make_nodes()
    store.add(nodes)
    exact = brute_force(fake, nodes)
    found = store.search_with_scores(QUERY, 5, {"number": {"$gte": 10}})
    assert len(found) == 5
    for node, _, scores in found:
        assert node.metadata["number"] >= 10
        expected = {"dense": exact["default"][node.node_id]}
        expected["sparse"] = exact["sparse"].get(node.node_id, 0.0)
        assert scores == pytest.approx(expected, abs=1e-5)
    for _, score, scores in await store.asearch_with_scores(QUERY, mode="default"):
        assert scores == pytest.approx({"dense": score}, abs=1e-5)


def test_a_folder_is_opened_again(fake, tmp_path) -> None:
    first = QdrantHybridStore("c", path=str(tmp_path / "q"), encoder=fake, batch_size=7)
    expected = search(index_over(first, make_nodes()), "default")
    first.close()
    again = QdrantHybridStore("c", path=str(tmp_path / "q"), encoder=fake)
    assert search(opened(again), "default") == pytest.approx(expected, abs=1e-5)
    again.close()
    for other in ({"rerank": True}, {"distance": "dot"}, {"encoder": FakeEncoder(16)}):
        with pytest.raises(StoreError, match="collection 'c' has the vectors"):
            QdrantHybridStore("c", path=str(tmp_path / "q"), **({"encoder": fake} | other))


def test_arguments(fake, client, tiny_dense, store) -> None:
    for name, value, message in (
        ("enable_hybrid", False, "sparse_vector_name=None"),
        ("sparse_doc_fn", print, "weighs nodes itself"),
        ("hybrid_fusion_fn", print, "fusion="),
        ("dense_config", 1, "make the collection"),
    ):
        with pytest.raises(ValidationError, match=f"{name}.*{message}"):
            QdrantHybridStore("c", client, encoder=fake, **{name: value})
    assert QdrantHybridStore("c", client, encoder=fake, enable_hybrid=True).client is client
    with pytest.raises(ValidationError, match="fusion"):
        QdrantHybridStore(encoder=fake, fusion="sum")
    with pytest.raises(ValidationError, match="modle_name"):
        QdrantHybridStore(modle_name="m3-small")
    with pytest.raises(ValueError, match=r"name one place.*client, path"):
        QdrantHybridStore("c", client, encoder=fake, path="x")
    with pytest.raises(MissingRepresentationError, match="sparse is needed"):
        QdrantHybridStore(model_name=str(tiny_dense))
    with pytest.raises(TypeError, match="make another one in the other process"):
        pickle.dumps(store)
    assert "api_key" not in repr(store)
    assert store.class_name() == "QdrantHybridStore"
    assert store.to_dict()["dense_vector_name"] == "text-dense"
