"""Clients of others, unpatched, against a real server: the numbers of the local model."""

from __future__ import annotations

import asyncio
import base64
import gc
import warnings

import numpy as np
import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from tests.conftest import make_text
from tests.core.server.conftest import KEY

TEXTS = [make_text(n, 3 + 4 * n) for n in range(7)]
QUERY = "panda river"

# What these packages themselves do: most never close their connections.
pytestmark = pytest.mark.filterwarnings(
    *(f"ignore::{kind}Warning" for kind in ("Deprecation", "User", "Resource"))
)


@pytest.fixture(autouse=True, scope="module")
def _no_connection_is_left_to_other_tests():
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def vectors(served_encoder):
    return served_encoder.encode_documents(TEXTS).dense_vecs


@pytest.fixture(scope="module")
def ranking(served_reranker):
    return served_reranker.rank(QUERY, TEXTS, normalize=True)


def near(found, expected):
    np.testing.assert_allclose(np.array(found), expected, atol=1e-6)


def ranked(found, expected):
    assert [index for index, _ in found] == [index for index, _ in expected]
    assert [score for _, score in found] == pytest.approx([s for _, s in expected], abs=1e-6)


def nodes():
    return [NodeWithScore(node=TextNode(text=text, id_=str(n))) for n, text in enumerate(TEXTS)]


def as_pairs(found):
    return [(int(one.node.node_id), one.score) for one in found]


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_openai(server, vectors, encoding):
    openai = pytest.importorskip("openai")
    asked = {} if encoding is None else {"encoding_format": encoding}
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY) as client:
        found = client.embeddings.create(input=TEXTS, model="m3", **asked)
        if encoding == "base64":
            raw = [np.frombuffer(base64.b64decode(one.embedding), "<f4") for one in found.data]
            near(raw, vectors)
        else:
            near([one.embedding for one in found.data], vectors)
        assert found.usage.total_tokens > len(TEXTS)
        assert [one.id for one in client.models.list()] == ["m3", "judge"]


def test_openai_asks_for_queries_and_dimensions(server, served_encoder):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY) as client:

        def ask(**more):
            return client.embeddings.create(input=[QUERY], model="m3", **more).data[0].embedding

        for more in ({"input_type": "query"}, {"prompt_name": "query"}):
            near(ask(extra_body=more), served_encoder.encode_queries([QUERY]).dense_vecs[0])
        cut = served_encoder.with_options(truncate_dim=8)
        near(ask(dimensions=8), cut.encode_documents([QUERY]).dense_vecs[0])
        with pytest.raises(openai.BadRequestError, match="32 values"):
            ask(dimensions=33)
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
            client.embeddings.create(input=[[5, 6], [7]], model="m3")
        with pytest.raises(openai.NotFoundError, match="there are: 'm3'"):
            client.embeddings.create(input=["a"], model="ada")
    stranger = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.embeddings.create(input=["a"], model="m3")


def test_langchain_openai(server, vectors):
    found = pytest.importorskip("langchain_openai").OpenAIEmbeddings(
        base_url=f"{server.url}/v1",
        api_key=KEY,
        model="m3",
        check_embedding_ctx_length=False,
    )
    near(found.embed_documents(TEXTS), vectors)
    near(found.embed_query(TEXTS[1]), vectors[1])
    near(asyncio.run(found.aembed_documents(TEXTS)), vectors)


def test_langchain_infinity(open_server, vectors):
    """The client sends no key."""
    found = pytest.importorskip("langchain_community.embeddings").InfinityEmbeddings(
        model="m3", infinity_api_url=f"{open_server.url}/v1"
    )
    near(found.embed_documents(TEXTS), vectors)
    near(found.embed_query(TEXTS[1]), vectors[1])


def test_langchain_cohere(server, ranking):
    package = pytest.importorskip("langchain_cohere")
    found = package.CohereRerank(
        base_url=server.url, cohere_api_key=KEY, model="judge", top_n=len(TEXTS)
    )
    documents = [Document(text, metadata={"n": n}) for n, text in enumerate(TEXTS)]
    best = found.compress_documents(documents, QUERY)
    ranked([(one.metadata["n"], one.metadata["relevance_score"]) for one in best], ranking)


@pytest.mark.parametrize("version", ["Client", "ClientV2", "AsyncClientV2"])
def test_cohere(server, ranking, version):
    cohere = pytest.importorskip("cohere")
    client = getattr(cohere, version)(api_key=KEY, base_url=server.url)
    found = client.rerank(model="judge", query=QUERY, documents=TEXTS, top_n=3)
    if version.startswith("Async"):
        found = asyncio.run(_awaited(found))
    ranked([(one.index, one.relevance_score) for one in found.results], ranking[:3])


async def _awaited(found):
    return await found


def test_cohere_reads_errors(server):
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2(api_key=KEY, base_url=server.url)
    with pytest.raises(cohere.errors.NotFoundError) as raised:
        client.rerank(model="rerank-v3.5", query=QUERY, documents=TEXTS)
    assert "there are: 'judge', 'm3'" in raised.value.body["message"]
    with pytest.raises(cohere.errors.BadRequestError, match="max_length"):
        client.rerank(model="judge", query=QUERY, documents=TEXTS, max_tokens_per_doc=5)


def test_llamaindex_tei(server, vectors):
    package = pytest.importorskip("llama_index.embeddings.text_embeddings_inference")
    found = package.TextEmbeddingsInference("m3", base_url=server.url, auth_token=KEY)
    near(found.get_text_embedding_batch(TEXTS), vectors)
    near(asyncio.run(found.aget_text_embedding_batch(TEXTS)), vectors)


def test_llamaindex_openai_like(server, vectors):
    package = pytest.importorskip("llama_index.embeddings.openai_like")
    found = package.OpenAILikeEmbedding(
        model_name="m3", api_base=f"{server.url}/v1", api_key=KEY, embed_batch_size=3
    )
    near(found.get_text_embedding_batch(TEXTS), vectors)
    near(asyncio.run(found.aget_text_embedding_batch(TEXTS)), vectors)


def test_llamaindex_rerankers(server, ranking):
    tei = pytest.importorskip("llama_index.postprocessor.tei_rerank").TextEmbeddingInference
    jina = pytest.importorskip("llama_index.postprocessor.jinaai_rerank").JinaRerank
    cohere = pytest.importorskip("llama_index.postprocessor.cohere_rerank").CohereRerank
    for one in (
        tei(base_url=server.url, auth_token=f"Bearer {KEY}", top_n=4),
        jina(base_url=f"{server.url}/v1", api_key=KEY, model="judge", top_n=4),
        cohere(base_url=server.url, api_key=KEY, model="judge", top_n=4),
    ):
        best = one.postprocess_nodes(nodes(), QueryBundle(QUERY))
        ranked(as_pairs(best), ranking[:4])
