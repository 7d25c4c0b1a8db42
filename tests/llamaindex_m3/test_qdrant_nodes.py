"""Nodes in ``QdrantHybridStore``: added, changed, deleted, and as they come back."""

from __future__ import annotations

import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import IndexNode, QueryBundle, TextNode
from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
)
from tests.conftest import make_text
from tests.llamaindex_m3.nodes import ids, make_nodes, only
from tests.llamaindex_m3.test_qdrant_store import client as client
from tests.llamaindex_m3.test_qdrant_store import fake as fake
from tests.llamaindex_m3.test_qdrant_store import (
    opened,
    search,
)
from tests.llamaindex_m3.test_qdrant_store import store as store

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local")


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
