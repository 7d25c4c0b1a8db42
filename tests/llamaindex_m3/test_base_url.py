"""Every adapter with ``base_url=``: one request a text batch, results of the local encoder."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import NodeWithScore, TextNode
from tests.serving import M3App, serving

from llamaindex_m3 import (
    BGEReranker,
    M3CascadeReranker,
    M3Embedding,
    M3HybridRetriever,
    M3Index,
    M3MilvusSparseEmbeddingFunction,
    M3Reranker,
    M3SparseEmbedding,
    M3SparseRetriever,
    QdrantHybridStore,
)
from m3_core.encoder import shared_remote
from m3_core.testing import FakeEncoder

TEXTS = ["Pandas eat bamboo.", "Bears eat fish.", "A river in the city."]
QUERY = "What do pandas eat?"
KEY = "hush-hush"


def nodes() -> list[TextNode]:
    return [TextNode(text=text, id_=text[0]) for text in TEXTS]


@pytest.fixture
def app() -> M3App:
    return M3App(key=KEY)


@pytest.fixture
def url(app):
    with serving(app) as address:
        yield address
        shared_remote(address, KEY).close()


def asked(app) -> list[tuple[str, int]]:
    return [(one["role"], len(one["texts"])) for path, one in app.bodies if path == "/v1/encode"]


async def test_embeddings_share_one_request(app, url) -> None:
    dense = M3Embedding(base_url=url, api_key=KEY)
    sparse = M3SparseEmbedding(base_url=url, api_key=KEY)
    milvus = M3MilvusSparseEmbeddingFunction(base_url=url, api_key=KEY)
    local = M3Embedding(encoder=FakeEncoder())
    found = await dense.aget_text_embedding_batch(TEXTS)
    np.testing.assert_allclose(found, local.get_text_embedding_batch(TEXTS), atol=1e-6)
    assert len(sparse.get_text_embedding_batch(TEXTS)) == len(milvus.encode_documents(TEXTS)) == 3
    assert dense.get_query_embedding(QUERY) == local.get_query_embedding(QUERY)
    sparse.get_query_embedding(QUERY)
    assert asked(app) == [("document", 3), ("query", 1)]


@pytest.mark.parametrize("kind", [M3SparseRetriever, M3HybridRetriever])
async def test_retrievers(app, url, kind) -> None:
    retriever = kind.from_nodes(nodes(), base_url=url, api_key=KEY, similarity_top_k=1)
    (best,) = retriever.retrieve(QUERY)
    assert best.node_id == "P"
    assert (await retriever.aretrieve(QUERY))[0].node_id == "P"
    assert asked(app) == [("document", 3), ("query", 1)]


def test_an_index_and_its_files(app, url, tmp_path, monkeypatch) -> None:
    index = M3Index(nodes(), base_url=url, api_key=KEY)
    assert index.as_retriever(similarity_top_k=1).retrieve(QUERY)[0].node_id == "P"
    assert asked(app) == [("document", 3), ("query", 1)]
    index.persist(str(tmp_path / "saved"))
    saved = b"".join(one.read_bytes() for one in (tmp_path / "saved").rglob("*") if one.is_file())
    assert KEY.encode() not in saved
    again = M3Index.from_persist_dir(str(tmp_path / "saved"), base_url=url, api_key=KEY)
    assert again.as_retriever(similarity_top_k=1).retrieve(QUERY)[0].node_id == "P"
    assert asked(app) == [("document", 3), ("query", 1)]


def test_a_store_of_qdrant(app, url) -> None:
    store = QdrantHybridStore(base_url=url, model_api_key=KEY)
    index = VectorStoreIndex(
        nodes(),
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=store.embed_model,
    )
    retriever = index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=1)
    assert retriever.retrieve(QUERY)[0].node_id == "P"
    assert asked(app) == [("document", 3), ("query", 1)]
    assert KEY not in repr(store) + store.to_json()
    store.close()


async def test_rerankers(app, url) -> None:
    scored = [NodeWithScore(node=node) for node in nodes()[::-1]]
    for kind in (M3Reranker, BGEReranker, M3CascadeReranker):
        reranker = kind(base_url=url, api_key=KEY, top_n=1)
        (best,) = reranker.postprocess_nodes(scored, query_str=QUERY)
        assert best.node_id == "P"
        assert KEY not in repr(reranker) + reranker.to_json() + str(reranker.to_dict())


def test_dumps_hold_no_key_and_load_again(url, monkeypatch) -> None:
    embedding = M3Embedding(base_url=url, api_key=KEY)
    dumped = embedding.to_json()
    assert KEY not in dumped + repr(embedding) + str(embedding.to_dict())
    assert json.loads(dumped)["base_url"] == url
    monkeypatch.setenv("M3_API_KEY", KEY)
    again = M3Embedding.from_dict(json.loads(dumped))
    assert again.get_query_embedding(QUERY) == embedding.get_query_embedding(QUERY)
    pickled = pickle.loads(pickle.dumps(embedding))
    assert pickled.get_query_embedding(QUERY) == embedding.get_query_embedding(QUERY)
    with pytest.raises(ValueError, match="two models") as error:
        M3SparseRetriever(base_url=url, api_key=KEY, encoder=FakeEncoder())
    assert KEY not in str(error.value)


# A machine with one core gets one process, with a warning.
@pytest.mark.filterwarnings("ignore:Specified num_workers")
def test_a_pipeline_of_two_processes(app, url) -> None:
    documents = [Document(text=f"{text} {i}", id_=f"{i}") for i, text in enumerate(TEXTS * 4)]
    # No splitter: pickled, LlamaIndex's ask a server for their tokenizer.
    embedding = M3Embedding(base_url=url, api_key=KEY)
    pipeline = IngestionPipeline(transformations=[embedding], disable_cache=True)
    made = pipeline.run(documents=documents, num_workers=2)
    assert len(made) == 12
    expected = FakeEncoder().encode_documents([one.text for one in made]).dense_vecs
    np.testing.assert_allclose([one.embedding for one in made], expected, atol=1e-6)
    assert sum(texts for _, texts in asked(app)) == 12
