"""``QdrantHybridStore`` as LlamaIndex's users call it."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.indices.vector_store import (
    VectorIndexAutoRetriever,
    VectorIndexRetriever,
)
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import IndexNode, QueryBundle, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    MetadataFilter,
    MetadataFilters,
    MetadataInfo,
    VectorStoreInfo,
    VectorStoreQuery,
)
from llama_index.vector_stores.qdrant import QdrantVectorStore
from pydantic import ValidationError
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from tests.conftest import make_text
from tests.llamaindex_m3.nodes import QUERY, ids, make_nodes, only

from llamaindex_m3 import M3Embedding, M3SparseEmbedding, QdrantHybridStore
from llamaindex_m3.filters import to_expression
from m3_core.errors import FilterError, MissingRepresentationError, StoreError
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


def test_a_model_equals_brute_force_with_one_pass_a_node_and_a_query(fresh_tiny, passes, corpus):
    nodes = [TextNode(id_=one["id"], text=one["text"]) for one in corpus["documents"]]
    store = QdrantHybridStore(encoder=fresh_tiny, rerank=True)
    index = index_over(store, nodes, embed_model=M3Embedding(encoder=fresh_tiny))
    assert sum(passes) == len(nodes)
    queries = [query["text"] for query in corpus["queries"][:4]]
    flags = {"return_sparse": True, "return_colbert_vecs": True}
    asked = fresh_tiny.encode_queries(queries, **flags)
    documents = fresh_tiny.encode_documents([node.text for node in nodes], **flags)
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


async def test_from_async_code_too(fresh_tiny, passes) -> None:
    nodes = make_nodes()
    client = AsyncQdrantClient(location=":memory:")
    store = QdrantHybridStore(encoder=fresh_tiny, aclient=client)
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


METADATA = [
    {"n": 1, "half": 0.5, "name": "panda", "tags": ["a", "b"], "flag": True},
    {"n": 2, "half": 1.0, "name": "red panda", "tags": [], "flag": False},
    {"n": 3, "half": 1.5, "name": "", "tags": ["b"], "a.b": "x"},
    {"n": 0, "name": None, "größe": 7},
]
LEAVES = [
    *((key, 1, op) for key in ("n", "half") for op in ("==", "!=", ">", ">=", "<", "<=")),
    ("n", [1, 3], "in"),
    ("n", [1, 3], "nin"),
    ("name", ["panda", ""], "in"),
    ("name", "panda", "=="),
    ("name", "panda", "!="),
    ("name", "panda", "text_match"),
    ("name", None, "=="),
    ("name", None, "is_empty"),
    ("tags", None, "is_empty"),
    ("tags", "b", "contains"),
    ("tags", ["a", "b"], "all"),
    ("tags", ["a", "x"], "any"),
    ("flag", 1, "=="),
    ("flag", 0, "!="),
    ("a.b", "x", "=="),
    ("größe", 7, ">="),
]


@pytest.fixture
def filtered(store) -> QdrantHybridStore:
    store.add([TextNode(id_=str(i), text=QUERY, metadata=one) for i, one in enumerate(METADATA)])
    return store


@pytest.mark.parametrize("leaf", LEAVES, ids=str)
def test_filters_mean_what_they_mean_in_memory(filtered, leaf) -> None:
    one = only(*leaf)
    passing = {str(i) for i, row in enumerate(METADATA) if to_expression(one).evaluate(row)}
    assert {node.node_id for node in filtered.get_nodes(filters=one)} == passing
    for mode in MODES:
        assert search(opened(filtered), mode, filters=one).keys() == passing


def test_combined_filters(filtered) -> None:
    leaves = [MetadataFilter(key="n", value=1), MetadataFilter(key="name", value="red panda")]
    index = opened(filtered)

    def found(filters, **options) -> list[str]:
        return sorted(search(index, "hybrid", filters=filters, **options))

    def of(condition, parts=leaves) -> MetadataFilters:
        return MetadataFilters(filters=parts, condition=condition)

    assert found(of(FilterCondition.OR)) == ["0", "1"]
    assert found(of(FilterCondition.AND)) == []
    assert found(of(FilterCondition.NOT)) == ["2", "3"]
    nested = of(FilterCondition.NOT, [of(FilterCondition.OR), MetadataFilter(key="n", value=3)])
    assert found(nested) == ["3"]
    assert found(of(FilterCondition.AND, [])) == ["0", "1", "2", "3"]
    some = VectorIndexRetriever(index, similarity_top_k=9, node_ids=["1", "3", "9"])
    assert sorted(ids(some.retrieve(QUERY))) == ["1", "3"]
    above = models.FieldCondition(key="n", range=models.Range(gte=2))
    own = {"qdrant_filters": models.Filter(must=[above])}
    assert found(None, vector_store_kwargs=own) == ["1", "2"]
    assert found(of(FilterCondition.OR), vector_store_kwargs=own) == ["1"]


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (("name", "Panda", "text_match_insensitive"), "without regard to case"),
        (("name", "a", ">"), "orders numbers only"),
        (("n", 2**60, ">"), r"2\*\*53"),
        (('a"b', 1, "=="), "quotation mark"),
    ],
)
def test_what_qdrant_cannot_express_is_an_error_before_the_network(
    filtered, fake, leaf, message
) -> None:
    fake.calls.clear()
    with pytest.raises(FilterError, match=message):
        filtered.query(VectorStoreQuery(query_str=QUERY, mode="hybrid", filters=only(*leaf)))
    with pytest.raises(FilterError, match=message):
        filtered.delete_nodes(filters=only(*leaf))
    assert fake.calls == []


def test_documents_are_added_changed_and_deleted_through_an_index(store) -> None:
    documents = [Document(id_=f"d{i}", text=make_text(i, 40)) for i in range(4)]
    split = SentenceSplitter(chunk_size=24, chunk_overlap=0)
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex.from_documents(
        documents,
        storage_context=context,
        embed_model=store.embed_model,
        transformations=[split],
        insert_batch_size=3,
    )
    of_each = {d.id_: [n for n in store.get_nodes() if n.ref_doc_id == d.id_] for d in documents}
    assert all(len(nodes) > 1 for nodes in of_each.values())
    index.delete_ref_doc("d1", delete_from_docstore=True)
    assert {node.ref_doc_id for node in store.get_nodes()} == {"d0", "d2", "d3"}
    index.insert(Document(id_="d9", text="a new panda"))
    index.insert_nodes([TextNode(id_="n", text="a single node")])
    index.delete_nodes(["n"])
    changed = Document(id_="d9", text="another panda")
    index.update_ref_doc(changed)
    assert [n.text for n in store.get_nodes() if n.ref_doc_id == "d9"] == ["another panda"]
    retriever = index.as_retriever(doc_ids=["d9"], similarity_top_k=9)
    assert [one.node.ref_doc_id for one in retriever.retrieve("panda")] == ["d9"]
    again = opened(store)
    assert search(again, "hybrid").keys() == search(index, "hybrid").keys()


async def test_nodes_are_given_and_deleted(store) -> None:
    nodes = make_nodes(12)
    assert store.add(nodes) == [node.node_id for node in nodes]
    found = store.get_nodes(["n3", "unknown", "n1", "n3"])
    assert [node.node_id for node in found] == ["n3", "n1"]
    assert [node.metadata for node in found] == [nodes[3].metadata, nodes[1].metadata]
    assert [node.ref_doc_id for node in found] == ["doc0", "doc0"]
    assert found[0].embedding is not None
    assert await store.aget_nodes(["n3", "n1"]) == found
    assert len(store.get_nodes(limit=5)) == 5
    assert len(store.get_nodes(filters=only("even", 1))) == 6
    store.delete_nodes(["n0", "unknown"])
    store.delete_nodes(["n1", "n2"], only("even", 1))
    await store.adelete_nodes(filters=only("number", 7, ">"))
    kept = {"n1", "n3", "n4", "n5", "n6", "n7"}
    assert {node.node_id for node in await store.aget_nodes()} == kept
    store.delete_nodes([])
    assert len(store.get_nodes()) == 6
    with pytest.raises(ValueError, match=r"clear\(\) deletes all"):
        store.delete_nodes()
    with pytest.raises(ValueError, match=r"clear\(\) deletes all"):
        await store.adelete_nodes()
    await store.adelete("doc0")
    assert store.get_nodes() == []
    await store.async_add(nodes)
    store.delete("doc1")
    assert len(store.get_nodes()) == 10
    store.clear()
    assert store.get_nodes() == []
    store.add(nodes[:2])
    await store.aclear()
    assert store.get_nodes() == []


def test_nodes_come_back_as_they_were(store) -> None:
    target = TextNode(id_="t", text="target")
    nodes = [
        IndexNode(id_="i", text="panda", index_id="sub", metadata={"date": "2020-01-01"}),
        TextNode(text="a random id", metadata={"nested": {"a": [1, 2]}}, start_char_idx=3),
        target,
    ]
    store.add(nodes)
    found = {node.node_id: node for node in store.get_nodes()}
    for node in nodes:
        back = found[node.node_id].model_copy(update={"embedding": None})
        assert type(back) is type(node)
        assert back == node
    changed = TextNode(id_="t", text="other")
    store.add([changed])
    assert store.get_nodes(["t"])[0].text == "other"
    assert len(store.get_nodes()) == 3
    with pytest.raises(ValueError, match="more than once"):
        store.add([target, target])
    with pytest.raises(TypeError, match="LlamaIndex nodes"):
        store.add(["text"])
    assert store.add([]) == []


def test_embeddings_that_nodes_and_queries_bring(store, fake) -> None:
    vector = fake.encode_documents(["panda"]).dense_vecs[0].tolist()
    store.add([TextNode(id_="a", text="bear", embedding=vector), TextNode(id_="b", text="bear")])
    retriever = opened(store).as_retriever(similarity_top_k=1)
    found = retriever.retrieve(QueryBundle("whatever", embedding=vector))
    assert ids(found) == ["a"]
    assert found[0].score == pytest.approx(1.0, abs=1e-5)
    # As hypothetical documents are searched: by the embeddings of other texts.
    found = retriever.retrieve(QueryBundle("whatever", custom_embedding_strs=["bear"]))
    assert ids(found) == ["b"]
    result = store.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=2))
    assert result.ids == ["a", "b"]
    by_text = store.query(VectorStoreQuery(query_str="bear", similarity_top_k=1))
    assert by_text.ids == ["b"]
    with pytest.raises(ValueError, match=r"embedding of 'a' has 2 numbers.*store's model"):
        store.add([TextNode(id_="a", text="bear", embedding=[1.0, 2.0])])
    with pytest.raises(ValueError, match="query's embedding has 2 numbers"):
        store.query(VectorStoreQuery(query_embedding=[1.0, 2.0]))
    with pytest.raises(ValueError, match="needs its text"):
        store.query(VectorStoreQuery(query_embedding=vector, mode="hybrid"))


@pytest.fixture
def theirs(client, encoder):
    def make(**options) -> QdrantVectorStore:
        sparse = M3SparseEmbedding(encoder=encoder)
        options |= {
            "sparse_doc_fn": sparse.sparse_doc_fn,
            "sparse_query_fn": sparse.sparse_query_fn,
        }
        return QdrantVectorStore("c", client, **options)

    return make


def uuid_nodes() -> list[TextNode]:
    made = make_nodes()
    for row, node in enumerate(made):
        node.id_ = f"00000000-0000-0000-0000-{row:012}"
    return made


def test_collections_of_llamaindex_and_theirs_of_ours(theirs, client, encoder) -> None:
    embed_model = M3Embedding(encoder=encoder)
    other = index_over(theirs(enable_hybrid=True), uuid_nodes(), embed_model=embed_model)
    store = QdrantHybridStore("c", client, encoder=encoder)
    for mode in ("default", "sparse"):
        assert search(opened(store), mode) == pytest.approx(search(other, mode), abs=1e-5)
    expected = {node.node_id: node for node in other.vector_store.get_nodes()}
    found = {node.node_id: node for node in store.get_nodes()}
    assert found == expected
    store.delete("doc1")
    store.add([TextNode(id_="00000000-0000-0000-0000-000000000099", text=QUERY)])
    assert len(search(other, "default")) == 21
    assert search(other, "default", 1) == search(opened(store), "default", 1)
    other.delete_ref_doc("doc2")
    assert len(store.get_nodes()) == 11
    written = QdrantHybridStore("ours", client, encoder=encoder)
    written.add(uuid_nodes())
    reading = VectorStoreIndex.from_vector_store(
        QdrantVectorStore(
            "ours",
            client,
            enable_hybrid=True,
            sparse_doc_fn=other.vector_store._sparse_doc_fn,
            sparse_query_fn=other.vector_store._sparse_query_fn,
        ),
        embed_model=embed_model,
    )
    for mode in ("default", "sparse"):
        assert search(reading, mode) == pytest.approx(search(opened(written), mode), abs=1e-5)
    assert search(reading, "hybrid").keys() == search(opened(written), "hybrid").keys()


def test_dense_collections_of_llamaindex(client, encoder) -> None:
    embed_model = M3Embedding(encoder=encoder)
    other = index_over(QdrantVectorStore("c", client), uuid_nodes(), embed_model=embed_model)
    with pytest.raises(StoreError, match="dense_vector_name="):
        QdrantHybridStore("c", client, encoder=encoder)
    names = {"dense_vector_name": "", "sparse_vector_name": None}
    store = QdrantHybridStore("c", client, encoder=encoder, **names)
    assert search(opened(store), "default") == pytest.approx(search(other, "default"), abs=1e-5)
    assert store.get_nodes() == other.vector_store.get_nodes()


def test_points_without_a_node(store, client, fake) -> None:
    vector = {"text-dense": fake.encode_documents(["bear"]).dense_vecs[0].tolist()}
    payload = {"text": "a bear", "year": 2020}
    client.upsert("c", points=[models.PointStruct(id=7, vector=vector, payload=payload)])
    node = store.get_nodes()[0]
    assert (node.node_id, node.text, node.metadata) == ("7", "a bear", {"year": 2020})
    assert search(opened(store), "default", filters=only("year", 2020)).keys() == {"7"}
    with pytest.raises(StoreError, match=r"point 7 holds neither.*'body'.*text_key="):
        QdrantHybridStore("c", client, encoder=fake, text_key="body").get_nodes()


def test_ingestion_pipelines(store, fake) -> None:
    documents = [Document(id_=f"d{i}", text=make_text(i, 9)) for i in range(5)]
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(), store.embed_model],
        vector_store=store,
        docstore=SimpleDocumentStore(),
    )
    pipeline.run(documents=documents)
    assert fake.calls == [("document", 5)]
    assert pipeline.run(documents=documents) == []
    documents[2] = Document(id_="d2", text="changed")
    pipeline.run(documents=documents)
    assert fake.calls == [("document", 5), ("document", 1)]
    texts = {node.ref_doc_id: node.text for node in store.get_nodes()}
    assert texts == {document.id_: document.text for document in documents}


class _Answering(CustomLLM):
    """Gives the same answer to everything."""

    answer: str

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    def complete(self, prompt, formatted=False, **kwargs) -> CompletionResponse:
        return CompletionResponse(text=self.answer)

    def stream_complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError


def test_auto_retriever(store) -> None:
    index = index_over(store, make_nodes())
    filters = [{"key": "number", "value": 20, "operator": ">"}]
    answer = json.dumps({"query": QUERY, "filters": filters, "top_k": 4})
    about = MetadataInfo(name="number", type="int", description="its number")
    retriever = VectorIndexAutoRetriever(
        index,
        vector_store_info=VectorStoreInfo(content_info="words", metadata_info=[about]),
        llm=_Answering(answer=answer),
        similarity_top_k=4,
        vector_store_query_mode="hybrid",
    )
    found = retriever.retrieve("words above 20")
    assert len(found) == 4
    assert all(one.node.metadata["number"] > 20 for one in found)


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
        QdrantHybridStore(modle_name="m3-tiny")
    with pytest.raises(ValueError, match=r"name one place.*client, path"):
        QdrantHybridStore("c", client, encoder=fake, path="x")
    with pytest.raises(MissingRepresentationError, match="sparse is needed"):
        QdrantHybridStore(model_name=str(tiny_dense))
    with pytest.raises(TypeError, match="make another one in the other process"):
        pickle.dumps(store)
    assert "api_key" not in repr(store)
    assert store.class_name() == "QdrantHybridStore"
    assert store.to_dict()["dense_vector_name"] == "text-dense"
