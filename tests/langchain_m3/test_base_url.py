"""Every adapter with ``base_url=``: one request a text batch, results of the local encoder."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from langchain_core.documents import Document
from pydantic import SecretStr
from tests.serving import M3App, serving

from langchain_m3 import (
    BGEReranker,
    M3CascadeReranker,
    M3Embeddings,
    M3HybridRetriever,
    M3InMemoryVectorStore,
    M3MilvusSparseEmbeddings,
    M3Reranker,
    M3SparseEmbeddings,
    M3SparseRetriever,
    QdrantHybridStore,
)
from m3_core.encoder import shared_remote
from m3_core.errors import RemoteError
from m3_core.testing import FakeEncoder

DOCUMENTS = [
    Document("Pandas eat bamboo.", id="p"),
    Document("Bears eat fish.", id="b"),
    Document("A river in the city.", id="r"),
]
TEXTS = [one.page_content for one in DOCUMENTS]
QUERY = "What do pandas eat?"
KEY = "hush-hush"


@pytest.fixture
def app() -> M3App:
    return M3App(key=KEY)


@pytest.fixture
def url(app):
    with serving(app) as address:
        yield address
        shared_remote(address, KEY).close()


def asked(app) -> list[tuple[str, list[str], int]]:
    return [
        (one["role"], one["representations"], len(one["texts"]))
        for path, one in app.bodies
        if path == "/v1/encode"
    ]


async def test_embeddings_share_one_request(app, url) -> None:
    local = M3Embeddings(encoder=FakeEncoder())
    dense = M3Embeddings(base_url=url, api_key=KEY)
    sparse = M3SparseEmbeddings(base_url=f"{url}/v1", api_key=SecretStr(KEY))
    milvus = M3MilvusSparseEmbeddings(base_url=url, api_key=KEY)
    np.testing.assert_allclose(
        dense.embed_documents(TEXTS), local.embed_documents(TEXTS), atol=1e-6
    )
    of_local = M3SparseEmbeddings(encoder=FakeEncoder()).embed_documents(TEXTS)
    assert sparse.embed_documents(TEXTS) == of_local
    assert len(await milvus.aembed_documents(TEXTS)) == 3
    assert await dense.aembed_query(QUERY) == local.embed_query(QUERY)
    sparse.embed_query(QUERY)
    both = ["dense", "sparse"]
    assert asked(app) == [("document", both, 3), ("query", both, 1)]
    assert app.asked["/v1/models"] == 1
    assert dense.cache_namespace == local.cache_namespace


@pytest.mark.parametrize("kind", [M3SparseRetriever, M3HybridRetriever, M3InMemoryVectorStore])
async def test_retrievers(app, url, kind) -> None:
    options = {"k": 1, "rerank": True} if kind is M3HybridRetriever else {"k": 1}
    retriever = kind.from_documents(DOCUMENTS, base_url=url, api_key=KEY, **options)
    assert retriever.invoke(QUERY) == await retriever.ainvoke(QUERY) == DOCUMENTS[:1]
    # Everything of a text in one request, the query's of both calls too.
    assert [(role, texts) for role, _, texts in asked(app)] == [("document", 3), ("query", 1)]
    other = kind.from_documents(DOCUMENTS, encoder=FakeEncoder(), **options)
    assert other.invoke(QUERY) == retriever.invoke(QUERY)


def test_a_store_of_qdrant(app, url) -> None:
    store = QdrantHybridStore.from_documents(
        DOCUMENTS, base_url=url, model_api_key=KEY, rerank=True
    )
    assert store.similarity_search(QUERY, k=1) == DOCUMENTS[:1]
    assert [(role, texts) for role, _, texts in asked(app)] == [("document", 3), ("query", 1)]
    store.close()
    over = QdrantHybridStore.from_documents(
        DOCUMENTS, embedding=M3Embeddings(base_url=url, api_key=KEY)
    )
    assert over.similarity_search(QUERY, k=1) == DOCUMENTS[:1]
    over.close()


async def test_rerankers(app, url) -> None:
    for kind in (M3Reranker, BGEReranker, M3CascadeReranker):
        reranker = kind(base_url=url, api_key=KEY, top_n=1)
        (best,) = reranker.compress_documents(DOCUMENTS[::-1], QUERY)
        assert best.id == "p"
        (again,) = await reranker.acompress_documents(DOCUMENTS[::-1], QUERY)
        assert again == best
        assert KEY not in repr(reranker) + str(reranker.model_dump())
    assert BGEReranker(base_url=url, api_key=KEY).model_name == "judge"
    cascade = M3CascadeReranker(base_url=url, api_key=KEY, encoder=FakeEncoder(), first=2)
    assert len(cascade.compress_documents(DOCUMENTS, QUERY)) == 2
    with pytest.raises(ValueError, match="max_length cannot be set for a model that a server"):
        BGEReranker(base_url=url, api_key=KEY, max_length=5)
    with pytest.raises(ValueError, match="query_instruction cannot be set"):
        BGEReranker(base_url=url, api_key=KEY).query_instruction = "q: "


def test_keys_are_never_shown(url, monkeypatch) -> None:
    embeddings = M3Embeddings(base_url=url, api_key=KEY)
    shown = [repr(embeddings), str(embeddings), embeddings.model_dump_json()]
    shown += [str(embeddings.model_dump()), str(embeddings.model_dump(mode="json"))]
    with pytest.raises(RemoteError) as refused:
        M3Embeddings(base_url=url, api_key=f"{KEY}-no")
    shown.append(str(refused.value))
    for wrong in ({"nothing": 1}, {"device": "cpu"}, {"max_length": "x"}, {"base_url": "x"}):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            M3Embeddings(**{"base_url": url, "api_key": KEY} | wrong)
        shown.append(str(error.value))
    assert not [one for one in shown if KEY in one]
    monkeypatch.setenv("M3_API_KEY", KEY)
    assert M3Embeddings(base_url=url).embed_query(QUERY) == embeddings.embed_query(QUERY)


def test_contradictions_say_why(url) -> None:
    for wrong, words in (
        ({"encoder": FakeEncoder()}, "base_url= and encoder= are two models"),
        ({"device": "cpu"}, "device cannot be set together with base_url=: the server has"),
        ({"dtype": "float16"}, "dtype cannot be set together"),
        ({"truncate_dim": 5}, "truncate_dim cannot be set for a model that a server holds"),
        ({"query_instruction": "q: "}, "puts its own"),
        ({"max_length": 10_000}, "from 1 to the server's 8192"),
    ):
        with pytest.raises(ValueError, match=words):
            M3Embeddings(base_url=url, api_key=KEY, **wrong)
    with pytest.raises(ValueError, match="there is no base_url="):
        M3Embeddings(api_key=KEY)
    with pytest.raises(ValueError, match="name the model once"):
        M3InMemoryVectorStore(M3Embeddings(base_url=url, api_key=KEY), base_url=url)
    with pytest.raises(RemoteError, match="no model 'other'; it has fake"):
        M3Embeddings(base_url=url, api_key=KEY, model_name="other")


def test_options_and_copies(app, url) -> None:
    embeddings = M3Embeddings(base_url=url, api_key=KEY, model_name="fake", max_length=4)
    assert (embeddings.model_name, embeddings.max_length) == ("fake", 4)
    short = embeddings.embed_documents(["a b c d e"])
    embeddings.max_length = None
    assert embeddings.max_length == 8192
    assert embeddings.embed_documents(["a b c d e"]) != short
    with pytest.raises(ValueError, match="frozen"):
        embeddings.base_url = "http://elsewhere"
    again = pickle.loads(pickle.dumps(embeddings))
    assert again.embed_query(QUERY) == embeddings.embed_query(QUERY)
    assert M3Embeddings(**embeddings.model_dump(), api_key=KEY).max_length == 8192
    assert embeddings.model_copy(update={"max_length": 5}).max_length == 5
