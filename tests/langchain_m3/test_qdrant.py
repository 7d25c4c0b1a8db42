from __future__ import annotations

import itertools

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from pydantic import ValidationError
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from tests.conftest import make_text

from langchain_m3 import M3Embeddings, QdrantHybridStore
from m3_core import Encoder
from m3_core.errors import FilterError, MissingRepresentationError, StoreError
from m3_core.stores.qdrant.layout import Names
from m3_core.stores.qdrant.points import fit_multi_vector, points, requests
from m3_core.testing import FakeEncoder

TEXTS = [make_text(i, 3 + i % 6) for i in range(24)]
IDS = [f"text {i}" for i in range(24)]
QUERY = "world water der Fluss und Stadt"


class _Standard(VectorStoreIntegrationTests):
    """The suite's fake embedding is not used: the store brings its own three representations."""

    rerank = False

    @pytest.fixture
    def vectorstore(self, table_encoder):
        store = QdrantHybridStore(encoder=table_encoder, rerank=self.rerank)
        yield store
        store.close()


class TestStandard(_Standard):
    pass


class TestStandardWithMultiVectors(_Standard):
    rerank = True


class TestStandardAsyncClient(_Standard):
    has_sync = False

    @pytest.fixture
    async def vectorstore(self, table_encoder):
        client = AsyncQdrantClient(location=":memory:")
        yield QdrantHybridStore(encoder=table_encoder, async_client=client)
        await client.close()


@pytest.fixture
def make(encoder):
    made = []

    def build(**options) -> QdrantHybridStore:
        options = {"encoder": encoder, "ids": IDS, "texts": TEXTS} | options
        made.append(QdrantHybridStore.from_texts(**options))
        return made[-1]

    yield build
    for store in made:
        store.close()


def ranks(scores: dict[str, float]) -> dict[str, int]:
    ordered = sorted(scores, key=lambda one: -scores[one])
    return {one: rank for rank, one in enumerate(ordered)}


def brute_force(encoder: Encoder) -> tuple[dict, dict, dict]:
    """Dense, lexical and multi-vector scores of QUERY for all texts, in float64."""
    everything = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True}
    query = encoder.encode_queries([QUERY], **everything)
    documents = encoder.encode_documents(TEXTS, **everything)
    dense = documents.dense_vecs.astype(float) @ query.dense_vecs[0].astype(float)
    asked = query.lexical_weights[0]
    sparse = [
        sum(asked[token] * weight for token, weight in row.items() if token in asked)
        for row in documents.lexical_weights
    ]
    multi = [
        (query.colbert_vecs[0].astype(float) @ one.astype(float).T).max(axis=1).mean()
        for one in documents.colbert_vecs
    ]
    found = {i: score for i, score in zip(IDS, sparse, strict=True) if score > 0}
    return dict(zip(IDS, dense, strict=True)), found, dict(zip(IDS, multi, strict=True))


def test_fusion_by_rank_equals_brute_force(make, encoder) -> None:
    dense, sparse, _ = brute_force(encoder)
    expected: dict[str, float] = {}
    for scores in (dense, sparse):
        for one, rank in ranks(scores).items():
            expected[one] = expected.get(one, 0.0) + 1 / (2 + rank)
    found = make().similarity_search_with_score(QUERY, k=24)
    assert {d.id: s for d, s in found} == pytest.approx(expected)
    assert [s for _, s in found] == sorted(expected.values(), reverse=True)


@pytest.mark.parametrize("fusion", ["rrf", "dbsf"])
def test_reranking_gives_the_multi_vector_score(make, encoder, fusion) -> None:
    _, _, multi = brute_force(encoder)
    found = make(rerank=True, fusion=fusion).similarity_search_with_score(QUERY, k=5)
    assert [d.id for d, _ in found] == sorted(multi, key=lambda one: -multi[one])[:5]
    for document, score in found:
        assert score == pytest.approx(multi[document.id], abs=2e-3)


async def test_what_each_representation_says(make, encoder) -> None:
    exact = dict(zip(("dense", "sparse", "colbert"), brute_force(encoder), strict=True))
    for rerank in (False, True):
        store = make(rerank=rerank)
        found = store.search_with_scores(QUERY, k=5)
        scored = store.similarity_search_with_score(QUERY, k=5)
        assert [document for document, _, _ in found] == [document for document, _ in scored]
        assert [score for _, score, _ in found] == pytest.approx([score for _, score in scored])
        for document, _, scores in found:
            expected = {part: exact[part].get(document.id, 0.0) for part in scores}
            assert scores == pytest.approx(expected, abs=2e-3)
            assert ("colbert" in scores) == rerank
        again = await store.asearch_with_scores(QUERY, k=5)
        assert [one for one, _, _ in again] == [one for one, _, _ in found]


async def test_diversity_is_langchains_mmr_over_dense_vectors(make, encoder) -> None:
    store = make()
    best = store.similarity_search(QUERY, k=8)
    vectors = encoder.encode_documents([one.page_content for one in best]).dense_vecs
    asked = encoder.encode_queries([QUERY]).dense_vecs[0]
    for lambda_mult in (0.0, 0.5, 1.0):
        expected = maximal_marginal_relevance(asked, list(vectors), lambda_mult, 4)
        options = {"k": 4, "fetch_k": 8, "lambda_mult": lambda_mult}
        found = store.max_marginal_relevance_search(QUERY, **options)
        assert found == [best[i] for i in expected]
        assert await store.amax_marginal_relevance_search(QUERY, **options) == found
    retriever = store.as_retriever(search_type="mmr", search_kwargs={"k": 3})
    assert len(retriever.invoke(QUERY)) == 3
    assert len(store.max_marginal_relevance_search(QUERY, k=30)) == len(TEXTS)
    with pytest.raises(ValueError, match="fetch_k"):
        store.max_marginal_relevance_search(QUERY, fetch_k=0)


def test_scores_fused_by_distribution_fall(make) -> None:
    store = make(fusion="dbsf")
    scores = [score for _, score in store.similarity_search_with_score(QUERY, k=24)]
    assert scores == sorted(scores, reverse=True)
    relevance = store.similarity_search_with_relevance_scores(QUERY, k=24)
    assert all(0 <= score <= 1 for _, score in relevance)


def test_only_candidates_are_reranked(make, encoder) -> None:
    dense, sparse, _ = brute_force(encoder)
    store = make(rerank=True, fetch_k=1)
    best = {max(dense, key=dense.__getitem__), max(sparse, key=sparse.__getitem__)}
    assert {document.id for document in store.similarity_search(QUERY, k=1)} <= best


def test_filters(make) -> None:
    metadatas = [
        {"even": i % 2 == 0, "number": i, "half": i / 2, "a.b": str(i % 3), "none": None}
        for i in range(24)
    ]
    store = make(metadatas=metadatas)

    def ids(where) -> set[str]:
        return {document.id for document in store.similarity_search(QUERY, k=24, filter=where)}

    assert ids({"even": True}) == set(IDS[::2])
    assert ids({"number": 7}) == {IDS[7]}
    assert ids({"half": 3.5, "even": False}) == {IDS[7]}
    assert ids({"a.b": "2"}) == set(IDS[2::3])
    assert ids({"none": None}) == set(IDS)
    assert ids({"colour": "red"}) == set()
    above = models.FieldCondition(key="metadata.number", range=models.Range(gte=20))
    assert ids(models.Filter(must=[above])) == set(IDS[20:])
    retriever = store.as_retriever(search_kwargs={"k": 2, "filter": {"even": False}})
    assert {one.metadata["even"] for one in retriever.invoke(QUERY)} == {False}
    assert ids({"number": {"$in": [1, 2]}}) == set(IDS[1:3])
    assert ids({"even": 1}) == set()
    assert ids({"$or": [{"number": {"$lt": 2}}, {"half": {"$gte": 11}}]}) == {
        *IDS[:2],
        *IDS[22:],
    }
    with pytest.raises(FilterError, match=r"'number'.*\$in"):
        ids({"number": [1, 2]})
    with pytest.raises(TypeError, match="filter"):
        ids("even")


async def test_asynchronous_equals_synchronous(make, encoder) -> None:
    store = make(rerank=True)
    expected = store.similarity_search_with_score(QUERY)
    found = await store.asimilarity_search_with_score(QUERY)
    assert [document for document, _ in found] == [document for document, _ in expected]
    assert [score for _, score in found] == pytest.approx([s for _, s in expected], abs=1e-5)
    client = AsyncQdrantClient(location=":memory:")
    other = await QdrantHybridStore.afrom_texts(
        TEXTS, M3Embeddings(encoder=encoder), ids=IDS, rerank=True, async_client=client
    )
    assert [d for d, _ in expected] == await other.asimilarity_search(QUERY)
    with pytest.raises(ValueError, match="only an async_client"):
        other.similarity_search(QUERY)
    with pytest.raises(StoreError, match="rerank="):
        await QdrantHybridStore(encoder=encoder, async_client=client).aadd_texts(["x"])
    await client.close()


def test_ids_upsert_and_deletion(make) -> None:
    store = make(metadatas=[{"n": i} for i in range(24)])
    assert store.add_texts(["panda"], [{"n": 99}], ids=[IDS[3]]) == [IDS[3]]
    changed = store.get_by_ids(["unknown", IDS[3], IDS[0]])
    assert [(one.id, one.metadata["n"]) for one in changed] == [(IDS[3], 99), (IDS[0], 0)]
    assert len(store.similarity_search(QUERY, k=99)) == 24
    assert store.delete(["unknown", IDS[0]])
    assert len(store.similarity_search(QUERY, k=99)) == 23
    assert store.add_texts([]) == []
    assert len(set(store.add_texts(["panda", "panda"]))) == 2
    assert store.delete()
    assert store.similarity_search(QUERY) == []
    for wrong in ({"ids": ["a", "a"]}, {"ids": ["a"]}, {"metadatas": [{}]}):
        with pytest.raises(ValueError, match=r"more than once|got 2 texts"):
            store.add_texts(["x", "y"], **wrong)
    with pytest.raises(ValueError, match="k must be at least 1"):
        store.similarity_search(QUERY, k=0)


def test_a_folder_is_opened_again_by_the_same_kind_of_store_only(make, encoder, tmp_path) -> None:
    first = make(path=str(tmp_path / "qdrant"))
    expected = first.similarity_search_with_score(QUERY)
    first.close()
    again = make(path=str(tmp_path / "qdrant"), texts=[], ids=[])
    assert again.similarity_search(QUERY) == [document for document, _ in expected]
    again.close()
    for other in ({"rerank": True}, {"truncate_dim": 8}, {"distance": "dot"}):
        sliced = encoder.with_options(truncate_dim=other.pop("truncate_dim", None))
        with pytest.raises(StoreError, match="collection 'm3' has the vectors"):
            QdrantHybridStore(encoder=sliced, path=str(tmp_path / "qdrant"), **other)


async def test_a_collection_that_another_made_in_between_is_taken(encoder, monkeypatch) -> None:
    client, unseen = QdrantClient(":memory:"), itertools.count()
    QdrantHybridStore(encoder=encoder, client=client).add_texts(TEXTS[:3], ids=IDS[:3])
    exists = client.collection_exists
    monkeypatch.setattr(client, "collection_exists", lambda name: next(unseen) > 0 and exists(name))
    assert len(QdrantHybridStore(encoder=encoder, client=client).get_by_ids(IDS)) == 3
    assert next(unseen) == 2
    client.close()


def test_wrong_arguments(encoder, tiny_dense) -> None:
    for wrong in ({"fusion": "sum"}, {"distance": "l2"}, {"long_multi_vectors": "cut"}):
        with pytest.raises(ValueError, match="must be one of"):
            QdrantHybridStore(encoder=encoder, **wrong)
    with pytest.raises(ValueError, match="name one place"):
        QdrantHybridStore(encoder=encoder, location=":memory:", path="x")
    with pytest.raises(ValidationError, match="modle_name"):
        QdrantHybridStore(modle_name="m3-small")
    with pytest.raises(MissingRepresentationError, match="sparse is needed"):
        QdrantHybridStore(model_name=str(tiny_dense))
    with pytest.raises(TypeError, match="wrap a single text in a list"):
        QdrantHybridStore(encoder=encoder).add_texts("a text")
    with pytest.raises(TypeError, match="DeterministicFakeEmbedding"):
        QdrantHybridStore.from_documents([Document("x")], DeterministicFakeEmbedding(size=6))


def test_long_multi_vectors_are_refused_or_pooled_before_the_upload(encoder, monkeypatch) -> None:
    # 32 numbers a token: as if Qdrant took 10 tokens.
    monkeypatch.setattr("m3_core.stores.qdrant.points._LIMIT", 10 * 32 + 1)
    client = QdrantClient(location=":memory:")
    texts = ["panda", make_text(1, 40)]
    store = QdrantHybridStore(encoder=encoder, rerank=True, client=client)
    with pytest.raises(ValueError, match=r"document 'long' has .* numbers; Qdrant takes fewer"):
        store.add_texts(texts, ids=["short", "long"])
    with pytest.raises(ValueError, match="the query"):
        store.similarity_search(texts[1])
    assert client.count("m3").count == 0
    pooling = QdrantHybridStore(
        encoder=encoder, rerank=True, client=client, long_multi_vectors="pool"
    )
    pooling.add_texts(texts, ids=["short", "long"])
    stored = client.scroll("m3", with_vectors=["multi"])[0]
    assert max(len(one.vector["multi"]) for one in stored) <= 10
    found, score = pooling.similarity_search_with_score(texts[1], k=1)[0]
    assert found.id == "long"
    assert 0.9 < score < 1.001
    client.close()


def test_pooled_vectors_are_means_of_neighbours_of_length_one() -> None:
    vectors = np.random.default_rng(0).normal(size=(1500, 1024)).astype(np.float16)
    pooled = fit_multi_vector(vectors, "pool", "x")
    means = vectors.astype(float).reshape(750, 2, 1024).mean(axis=1)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(pooled, means, atol=1e-5)
    most = vectors[:1023]
    assert fit_multi_vector(most, "error", "x") is most
    with pytest.raises(ValueError, match="1023 tokens"):
        fit_multi_vector(vectors[:1024], "error", "x")


def test_requests_stay_below_what_a_server_takes(encoder, monkeypatch) -> None:
    reps = encoder.encode_documents(
        TEXTS, return_dense=True, return_sparse=True, return_colbert_vecs=True
    )
    made = points(IDS, [{}] * 24, reps, "error", Names())
    monkeypatch.setattr("m3_core.stores.qdrant.points._REQUEST_NUMBERS", 700)
    batches = list(requests(made))
    assert list(itertools.chain(*batches)) == made
    assert 1 < len(batches) < 24


def test_a_text_is_encoded_once() -> None:
    encoder = FakeEncoder()
    store = QdrantHybridStore.from_texts(TEXTS, encoder=encoder, rerank=True)
    store.similarity_search(QUERY)
    store.max_marginal_relevance_search(QUERY)
    store.close()
    assert encoder.calls == [("document", 24), ("query", 1)]
