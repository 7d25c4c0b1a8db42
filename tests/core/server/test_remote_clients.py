"""``RemoteEncoder``, ``RemoteReranker`` and ``base_url=`` against the real server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from langchain_core.documents import Document
from llama_index.core.schema import TextNode
from tests.conftest import make_text
from tests.core.server.conftest import KEY
from tests.core.server.serving import running

import langchain_m3
import llamaindex_m3
from m3_core import Cascade, RemoteEncoder, RemoteReranker
from m3_core.encoder import shared_remote
from m3_core.errors import ModelChangedError, RemoteError
from m3_core.network import TruncationWarning
from m3_core.testing import FakeEncoder

# The local ones say so; on the server it is in its figures.
pytestmark = pytest.mark.filterwarnings("ignore::m3_core.network.TruncationWarning")

TEXTS = ["", *(make_text(i, i % 40) for i in range(80))]


@pytest.fixture
def remote(server):
    made = RemoteEncoder(server.url, KEY)
    yield made
    made.close()


def assert_same(found, expected) -> None:
    np.testing.assert_allclose(found.dense_vecs, expected.dense_vecs, atol=1e-5)
    for ours, theirs in zip(found.lexical_weights, expected.lexical_weights, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    for ours, theirs in zip(found.colbert_vecs, expected.colbert_vecs, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


async def test_the_numbers_of_the_local_encoder(remote, served_encoder) -> None:
    for role in ("queries", "documents"):
        expected = getattr(served_encoder, f"encode_{role}")(TEXTS, True, True, True)
        assert_same(getattr(remote, f"encode_{role}")(TEXTS, True, True, True), expected)
        assert_same(await getattr(remote, f"aencode_{role}")(TEXTS, True, True, True), expected)
    with pytest.warns(TruncationWarning, match="72 of 81 texts were longer"):
        short = remote.encode_documents(TEXTS, True, True, True, max_length=9)
    assert_same(short, served_encoder.encode_documents(TEXTS, True, True, True, max_length=9))
    for parts in (("dense",), ("dense", "sparse", "colbert")):
        for queries in (False, True):
            ours = remote.fingerprint(parts, queries=queries)
            assert ours == served_encoder.fingerprint(parts, queries=queries)
    for name in ("dimension", "colbert_dimension", "max_length", "query_instruction"):
        assert getattr(remote, name) == getattr(served_encoder, name)
    assert remote.stats().texts == 81 * 5


def test_scores(remote, server, served_encoder, served_reranker) -> None:
    pairs = [(TEXTS[i], TEXTS[i + 1]) for i in range(1, 70)]
    expected = served_encoder.compute_score(pairs, (1, 0.3, 1))
    for name, values in remote.compute_score(pairs, (1, 0.3, 1)).items():
        assert values == pytest.approx(expected[name], abs=1e-5)
    reranker = RemoteReranker(server.url, KEY)
    assert reranker.name == "judge"
    for normalize in (False, True):
        assert reranker.compute_score(pairs, normalize) == pytest.approx(
            served_reranker.compute_score(pairs, normalize), abs=1e-5
        )
    ours = Cascade(remote, reranker, first=5).compute("panda river", TEXTS[1:20])
    local = Cascade(served_encoder, served_reranker, first=5).compute("panda river", TEXTS[1:20])
    assert [one.index for one in ours] == [one.index for one in local]
    reranker.close()


def test_as_others_see_the_same_server(server, served_encoder) -> None:
    expected = served_encoder.encode_documents(TEXTS, True, True)
    tei = RemoteEncoder(server.url, KEY, protocol="tei")
    found = tei.encode_documents(TEXTS, True, True)
    np.testing.assert_allclose(found.dense_vecs, expected.dense_vecs, atol=1e-5)
    for ours, theirs in zip(found.lexical_weights, expected.lexical_weights, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    openai = RemoteEncoder(server.url, KEY, protocol="openai", model="m3")
    some = TEXTS[1:]
    np.testing.assert_allclose(
        openai.encode_documents(some).dense_vecs, expected.dense_vecs[1:], atol=1e-5
    )
    tei.close()
    openai.close()


def test_wrong_keys_and_names(server) -> None:
    with pytest.raises(RemoteError, match="401"):
        RemoteEncoder(server.url, "another").name  # noqa: B018
    with pytest.raises(
        RemoteError, match=r"'judge' is of another kind .*; of the kind that is asked for it has m3"
    ):
        RemoteEncoder(server.url, KEY, model="judge").name  # noqa: B018


def test_many_clients_of_a_small_server(served_encoder) -> None:
    """Who is refused since the engine is full comes again, and gets his own vectors."""
    expected = served_encoder.encode_queries(TEXTS).dense_vecs
    with running({"m3": served_encoder}, max_requests=2) as server:
        remote = RemoteEncoder(server.url, retries=40)

        def ask(number: int) -> bool:
            found = remote.encode_queries([TEXTS[number]]).dense_vecs[0]
            return np.allclose(found, expected[number], atol=1e-5)

        with ThreadPoolExecutor(12) as pool:
            assert all(pool.map(ask, range(48)))
        remote.close()


def test_a_restarted_server_with_another_model() -> None:
    with running({"m3": FakeEncoder()}) as server:
        remote = RemoteEncoder(server.url)
        remote.encode_queries(["a"])
        server.service.models.encoder(None).model.document_instruction = "passage: "
        with pytest.raises(ModelChangedError):
            remote.encode_documents(["a"])
        remote.close()


def test_both_frameworks(server, served_encoder) -> None:
    documents = [Document(text, id=str(i)) for i, text in enumerate(TEXTS[1:20])]
    query = TEXTS[5]
    of = {"base_url": server.url, "api_key": KEY}
    ours = langchain_m3.M3HybridRetriever.from_documents(documents, rerank=True, **of)
    local = langchain_m3.M3HybridRetriever.from_documents(
        documents, rerank=True, encoder=served_encoder
    )
    assert ours.invoke(query) == local.invoke(query)
    sent = shared_remote(server.url, KEY).stats()
    # What there is, the documents, the query: one request each.
    assert (sent.requests, sent.texts) == (3, 20)
    nodes = [TextNode(text=one.page_content, id_=one.id) for one in documents]
    index = llamaindex_m3.M3Index(nodes, **of)
    other = llamaindex_m3.M3Index(nodes, encoder=served_encoder)
    found, expected = (one.as_retriever().retrieve(query) for one in (index, other))
    assert [one.node_id for one in found] == [one.node_id for one in expected]
    assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=1e-4)
    best = langchain_m3.BGEReranker(top_n=1, **of).compress_documents(documents, query)
    assert len(best) == 1
    shared_remote(server.url, KEY).close()
