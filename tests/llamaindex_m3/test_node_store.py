"""The view of M3Index that LlamaIndex uses as a vector store, and retrievers made like BM25's."""

from __future__ import annotations

import json

import pytest
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.base.llms.types import CompletionResponse, LLMMetadata
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.retrievers import VectorIndexAutoRetriever
from llama_index.core.schema import TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import (
    MetadataInfo,
    VectorStoreInfo,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from tests.conftest import Passes
from tests.llamaindex_m3.nodes import QUERY, ids, make_nodes, only

from llamaindex_m3 import M3Embedding, M3HybridRetriever, M3Index, M3SparseRetriever
from m3_core import Encoder


class Answering(CustomLLM):
    """A model that always answers the same."""

    answer: str

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    @llm_completion_callback()
    def complete(self, prompt, formatted=False, **kwargs):
        return CompletionResponse(text=self.answer)

    @llm_completion_callback()
    def stream_complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError


@pytest.fixture
def index(encoder: Encoder) -> M3Index:
    return M3Index(make_nodes(), encoder=encoder)


@pytest.mark.parametrize(("mode", "own"), [("default", "dense"), ("hybrid", "hybrid")])
async def test_the_auto_retriever(index, mode, own) -> None:
    spec = {
        "query": QUERY,
        "filters": [{"key": "number", "value": 20, "operator": ">"}],
        "top_k": 4,
    }
    retriever = VectorIndexAutoRetriever(
        index,
        vector_store_info=VectorStoreInfo(
            content_info="texts",
            metadata_info=[MetadataInfo(name="number", type="int", description="a number")],
        ),
        llm=Answering(answer=json.dumps(spec)),
        similarity_top_k=9,
        vector_store_query_mode=VectorStoreQueryMode(mode),
    )
    expected = index.as_retriever(
        mode=own, similarity_top_k=4, filters=only("number", 20, ">")
    ).retrieve(QUERY)
    assert len(expected) == 4
    assert ids(retriever.retrieve(QUERY)) == ids(expected)
    assert ids(await retriever.aretrieve(QUERY)) == ids(expected)


def test_a_vector_store_index_over_the_view(index, tmp_path) -> None:
    over = VectorStoreIndex.from_vector_store(
        index.vector_store, embed_model=M3Embedding(encoder=index._nodes.encoder)
    )
    for mode in ("default", "sparse", "hybrid"):
        found = over.as_retriever(vector_store_query_mode=mode, similarity_top_k=5).retrieve(QUERY)
        own = "dense" if mode == "default" else mode
        expected = index.as_retriever(mode=own, similarity_top_k=5).retrieve(QUERY)
        assert ids(found) == ids(expected)
        assert [one.score for one in found] == pytest.approx([one.score for one in expected])
    over.insert(Document(id_="new", text=QUERY))
    assert len(index) == 31
    (new,) = index.ref_doc_info["new"].node_ids
    assert ids(index.as_retriever(mode="sparse", similarity_top_k=1).retrieve(QUERY)) == [new]
    over.delete_ref_doc("new")
    assert len(index) == 30
    index.persist(tmp_path)
    assert len(M3Index.from_persist_dir(tmp_path, encoder=index._nodes.encoder)) == 30


async def test_changes_of_the_view_are_changes_of_the_index(index, tmp_path) -> None:
    store = index.vector_store
    pipeline = IngestionPipeline(transformations=[], vector_store=store)
    added = TextNode(id_="a", text=QUERY, embedding=[1.0])
    assert store.add([added]) == ["a"]
    assert await store.async_add([TextNode(id_="b", text=QUERY, embedding=[1.0])]) == ["b"]
    assert [node.node_id for node in store.get_nodes(["b", "unknown", "a"])] == ["b", "a"]
    pipeline.run(nodes=[TextNode(id_="c", text=QUERY, embedding=[1.0])])
    assert len(index) == 33
    assert len(store.get_nodes(filters=only("number", 27, ">="))) == 3
    store.delete_nodes(["a", "unknown"])
    store.delete_nodes(filters=only("number", 27, ">="))
    store.delete("doc0")
    with pytest.raises(ValueError, match="clear"):
        store.delete_nodes()
    assert len(index) == 33 - 1 - 3 - 10
    index.persist(tmp_path)
    assert len(M3Index.from_persist_dir(tmp_path, encoder=index._nodes.encoder)) == 19
    store.clear()
    assert len(index) == 0


async def test_the_views_options(index) -> None:
    store = index.vector_store
    hybrid = VectorStoreQueryMode.HYBRID
    query = VectorStoreQuery(query_str=QUERY, mode=hybrid, alpha=0.0, hybrid_top_k=3)
    expected = index.as_retriever(mode="sparse", similarity_top_k=3).retrieve(QUERY)
    assert store.query(query).ids == (await store.aquery(query)).ids == ids(expected)
    empty = VectorStoreQuery(query_str=QUERY, node_ids=[], similarity_top_k=3)
    assert len(store.query(empty).ids) == 3
    given = index._nodes.encoder.encode_queries(["panda bear"]).dense_vecs[0].tolist()
    vector = VectorStoreQuery(query_str="", query_embedding=given, similarity_top_k=3)
    expected = index.as_retriever(mode="dense", similarity_top_k=3).retrieve("panda bear")
    assert store.query(vector).ids == ids(expected)
    with pytest.raises(ValueError, match=r"alpha=0\.5 is of the hybrid mode"):
        store.query(VectorStoreQuery(query_str=QUERY, alpha=0.5))


def test_the_view_encodes_a_node_once(fresh_table: Encoder, passes: Passes) -> None:
    index = M3Index([], encoder=fresh_table)
    index.vector_store.add([TextNode(id_=f"n{i}", text=f"text {i}") for i in range(5)])
    assert sum(passes) == 5


@pytest.mark.parametrize("kind", [M3SparseRetriever, M3HybridRetriever])
def test_from_defaults(encoder, index, kind) -> None:
    nodes = make_nodes()
    docstore = SimpleDocumentStore()
    docstore.add_documents(nodes)
    options = {"encoder": encoder, "similarity_top_k": 7}
    expected = ids(kind.from_nodes(nodes, **options).retrieve(QUERY))
    plain = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=3))
    over = VectorStoreIndex.from_vector_store(
        index.vector_store, embed_model=M3Embedding(encoder=encoder)
    )
    for given in (
        {"nodes": nodes},
        {"docstore": docstore},
        {"index": index},
        {"index": plain},
        {"index": over},
    ):
        retriever = kind.from_defaults(**given, **options)
        assert ids(retriever.retrieve(QUERY)) == expected
    found = kind.from_defaults(
        nodes=nodes,
        language="en",
        skip_stemming=True,
        filters=only("number", 4, "<"),
        **options,
    ).retrieve(QUERY)
    assert set(ids(found)) <= {"n0", "n1", "n2", "n3"}
    for wrong in ({}, {"nodes": nodes, "index": index}):
        with pytest.raises(ValueError, match="exactly one of index, nodes and docstore"):
            kind.from_defaults(**wrong, **options)
    with pytest.raises(ValueError, match=r"holds no nodes: .* pass the nodes as nodes="):
        kind.from_defaults(docstore=SimpleDocumentStore(), **options)
    with pytest.raises(ValueError, match="language='de' cannot be honoured"):
        kind.from_defaults(nodes=nodes, language="de", **options)
