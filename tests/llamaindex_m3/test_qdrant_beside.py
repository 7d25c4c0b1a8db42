"""``QdrantHybridStore`` beside LlamaIndex's own: collections, pipelines, auto-retrievers."""

from __future__ import annotations

import json

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.indices.vector_store import (
    VectorIndexAutoRetriever,
)
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import (
    MetadataInfo,
    VectorStoreInfo,
)
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import models
from tests.conftest import make_text
from tests.llamaindex_m3.nodes import QUERY, make_nodes, only
from tests.llamaindex_m3.test_qdrant_store import client as client
from tests.llamaindex_m3.test_qdrant_store import fake as fake
from tests.llamaindex_m3.test_qdrant_store import (
    index_over,
    opened,
    search,
)
from tests.llamaindex_m3.test_qdrant_store import store as store

from llamaindex_m3 import M3Embedding, M3SparseEmbedding, QdrantHybridStore
from m3_core.errors import StoreError

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local")


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
