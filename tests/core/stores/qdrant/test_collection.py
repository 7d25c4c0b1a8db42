"""A collection of Qdrant over a fake encoder: what is asked of both, and what comes back."""

from __future__ import annotations

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from tests.conftest import make_text

from m3_core.encoder.cached import CachedEncoder
from m3_core.errors import FilterError, StoreError
from m3_core.scoring import dense_scores, lexical_scores, maxsim_scores
from m3_core.stores.qdrant.collection import NewPoints, QdrantCollection, select
from m3_core.stores.qdrant.connection import Connection
from m3_core.stores.qdrant.layout import Layout, Names, Stored, read_point, write_document
from m3_core.stores.qdrant.queries import Rankings, Search
from m3_core.testing import FakeEncoder

TEXTS = [make_text(i, 3 + i % 6) for i in range(24)]
IDS = [f"text {i}" for i in range(24)]
QUERY = "world water der Fluss und Stadt"
NAMES = Names(metadata=None)


@pytest.fixture
def client():
    client = QdrantClient(":memory:")
    yield client
    client.close()


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def collection(encoder, client) -> QdrantCollection:
    return make(encoder, client)


def make(encoder, client=None, names=NAMES, *, multi=True, fusion="rrf", aclient=None):
    width = encoder.colbert_dimension if multi else None
    layout = Layout(encoder.dimension, width, "cosine", names)
    connection = Connection("c", layout, {}, client, aclient)
    return QdrantCollection(encoder, connection, fusion)


def new(**changes) -> NewPoints:
    rows = zip(IDS, TEXTS, [{"number": i} for i in range(24)], strict=True)
    payloads = [write_document(*row, NAMES) for row in rows]
    return NewPoints(**({"ids": IDS, "texts": TEXTS, "payloads": payloads} | changes))


def plain(found) -> dict[str, float]:
    return {read_point(point, NAMES).id: score for point, score in found}


def brute_force(encoder) -> dict[str, dict[str, float]]:
    flags = {"return_sparse": True, "return_colbert_vecs": True}
    query, documents = (
        encoder.encode_queries([QUERY], **flags),
        encoder.encode_documents(TEXTS, **flags),
    )
    scores = {
        "dense": dense_scores(query.dense_vecs, documents.dense_vecs),
        "sparse": lexical_scores(query.lexical_weights, documents.lexical_weights),
        "multi": maxsim_scores(query.colbert_vecs, documents.colbert_vecs),
    }
    return {name: dict(zip(IDS, rows[0].tolist(), strict=True)) for name, rows in scores.items()}


async def test_each_text_is_encoded_once_and_each_search_is_one_query(
    collection, encoder, client, monkeypatch
) -> None:
    asked = []
    query_points = client.query_points
    monkeypatch.setattr(
        client, "query_points", lambda **options: asked.append(options) or query_points(**options)
    )
    collection.add(new())
    found = collection.search(QUERY, 3)
    assert plain(await collection.asearch(QUERY, 3)) == pytest.approx(plain(found), abs=1e-5)
    assert encoder.calls == [("document", 24), ("query", 1), ("query", 1)]
    assert len(asked) == 2
    collection.add(new(ids=[], texts=[], payloads=[]))
    assert len(encoder.calls) == 3


def test_scores_equal_brute_force(collection, encoder, client) -> None:
    collection.add(new())
    exact = brute_force(encoder)
    dense = collection.search(QUERY, 24, rankings=Rankings(sparse=False, multi=False))
    assert plain(dense) == pytest.approx(exact["dense"], abs=1e-5)
    sparse = collection.search(QUERY, 24, rankings=Rankings(dense=False, multi=False))
    shared = {one: score for one, score in exact["sparse"].items() if score > 0}
    assert plain(sparse) == pytest.approx(shared, abs=1e-5)
    multi = collection.search(QUERY, 24)
    assert plain(multi) == pytest.approx(exact["multi"], abs=1e-5)
    assert [score for _, score in multi] == sorted((score for _, score in multi), reverse=True)


async def test_what_each_representation_says(collection, encoder) -> None:
    collection.add(new())
    exact = brute_force(encoder)
    expected = plain(collection.search(QUERY, 9))
    found = collection.search_with_scores(QUERY, 9)
    assert plain((point, score) for point, score, _ in found) == pytest.approx(expected)
    for point, score, scores in found:
        name = read_point(point, NAMES).id
        assert scores == pytest.approx(
            {
                "dense": exact["dense"][name],
                "sparse": exact["sparse"][name],
                "colbert": exact["multi"][name],
            },
            abs=1e-5,
        )
        assert score == pytest.approx(scores["colbert"], abs=1e-5)
    some = Rankings(dense=False, multi=False)
    for point, score, scores in await collection.asearch_with_scores(QUERY, 3, rankings=some):
        assert scores == pytest.approx({"sparse": score})
        assert scores["sparse"] == pytest.approx(exact["sparse"][read_point(point, NAMES).id])


@pytest.mark.parametrize("alpha", [None, 0.0, 0.2, 0.5, 1.0])
def test_alpha_weights_the_fusion_by_rank(collection, encoder, alpha) -> None:
    collection.add(new())
    either = {
        "dense": collection.search(QUERY, 24, rankings=Rankings(sparse=False, multi=False)),
        "sparse": collection.search(QUERY, 24, rankings=Rankings(dense=False, multi=False)),
    }
    share = 0.5 if alpha is None else alpha
    weights = {"dense": 2 * share, "sparse": 2 * (1 - share)}
    if share in (0, 1):
        weights = {name: weight / 2 for name, weight in weights.items()}
    expected: dict[str, float] = {}
    for name, weight in weights.items():
        for rank, one in enumerate(plain(either[name])):
            if weight:
                score = 1 / ((rank + 1) / weight + 1)
                expected[one] = expected.get(one, 0.0) + score
    found = collection.search(QUERY, 24, rankings=Rankings(multi=False, alpha=alpha))
    assert plain(found) == pytest.approx(expected)


def test_candidates_of_the_lexical_ranking(collection) -> None:
    collection.add(new())
    asked, _ = collection.request(collection.encode(QUERY), 3, rankings=Rankings(sparse_k=7))
    first = asked["prefetch"]
    assert [one.limit for one in first.prefetch] == [100, 7]
    assert first.limit == 100


def test_only_what_is_used_is_encoded(collection, encoder, monkeypatch) -> None:
    flags: list[dict[str, bool]] = []
    encode = encoder.encode_queries
    monkeypatch.setattr(
        encoder,
        "encode_queries",
        lambda texts, **options: flags.append(options) or encode(texts, **options),
    )
    vector = encoder.encode_documents(["panda"]).dense_vecs[0].tolist()
    collection.add(new())
    found = collection.search("", 2, rankings=Rankings(sparse=False, multi=False, vector=vector))
    assert flags == []
    assert len(found) == 2
    collection.search(QUERY, 2, rankings=Rankings(dense=False, multi=False))
    assert [one["return_dense"] for one in flags] == [False]
    assert flags[0]["return_sparse"]
    assert not flags[0]["return_colbert_vecs"]


def test_given_vectors_take_the_place_of_the_dense_ones(collection, encoder, client) -> None:
    given = encoder.encode_documents(["panda"]).dense_vecs[0].tolist()
    collection.add(new(dense=[given] + [None] * 23))
    rankings = Rankings(sparse=False, multi=False, vector=given)
    assert collection.search("", 1, rankings=rankings)[0][1] == pytest.approx(1.0, abs=1e-5)
    stored = {read_point(one, NAMES).id: collection.dense_of(one) for one in collection.scroll()}
    np.testing.assert_allclose(stored[IDS[0]], given, atol=1e-6)
    own = encoder.encode_documents([TEXTS[1]]).dense_vecs[0]
    np.testing.assert_allclose(stored[IDS[1]], own, atol=1e-6)
    encoder.calls.clear()
    with pytest.raises(ValueError, match=r"embedding of 'text 0' has 2 numbers.* have 32"):
        collection.add(new(dense=[[0.1, 0.2]] + [None] * 23))
    with pytest.raises(ValueError, match="the query's embedding has 2 numbers"):
        collection.search("x", 1, rankings=Rankings(vector=[0.1, 0.2]))
    assert encoder.calls == []


def test_the_cache_gives_a_store_what_another_adapter_has_encoded(encoder, client) -> None:
    dense = CachedEncoder(encoder, ["dense"])
    collection = make(CachedEncoder(encoder, ["dense", "sparse", "colbert"]), client)
    vectors = dense.documents(TEXTS).dense_lists()
    collection.add(new(dense=vectors))
    dense.queries([QUERY])
    collection.search(QUERY, 3)
    assert encoder.calls == [("document", 24), ("query", 1)]


async def test_pages_filters_and_deletion(collection, monkeypatch) -> None:
    monkeypatch.setattr("m3_core.stores.qdrant.collection._PAGE", 5)
    await collection.aadd(new())
    everything = collection.scroll()
    assert len(everything) == 24
    assert await collection.ascroll() == everything
    assert [len(collection.scroll(limit=n)) for n in (0, 1, 5, 7, 99)] == [0, 1, 5, 7, 24]
    assert len(await collection.ascroll(limit=7)) == 7
    search = Search({"number": {"$lt": 4}})
    assert set(plain(collection.search(QUERY, 24, search))) == set(IDS[:4])
    with pytest.raises(FilterError, match="orders numbers only"):
        collection.search(QUERY, 1, Search({"number": {"$lt": "4"}}))
    collection.connection.call("delete", points_selector=select(IDS[:2]))
    assert len(collection.scroll()) == 22
    await collection.connection.acall("delete", points_selector=select(None))
    assert collection.scroll() == []


async def test_an_asynchronous_client(encoder) -> None:
    client = AsyncQdrantClient(location=":memory:")
    collection = make(encoder, aclient=client)
    await collection.aadd(new())
    assert len(await collection.asearch(QUERY, 3)) == 3
    assert len(await collection.ascroll()) == 24
    with pytest.raises(ValueError, match="only an async"):
        collection.search(QUERY, 3)
    await client.close()


def test_payloads_with_metadata_at_their_top(client) -> None:
    payload = write_document("a", "panda", {"number": 1}, NAMES)
    assert payload == {"number": 1, "page_content": "panda", "id": "a"}
    point = models.Record(id=1, payload=payload)
    assert read_point(point, NAMES) == Stored("1", "panda", {"number": 1})


def test_sparse_vectors_of_other_models_are_refused(encoder, client) -> None:
    params = models.SparseVectorParams(modifier=models.Modifier.IDF)
    dense = models.VectorParams(size=encoder.dimension, distance=models.Distance.COSINE)
    client.create_collection("c", {"dense": dense}, {"sparse": params})
    with pytest.raises(StoreError, match="modifier 'idf'"):
        make(encoder, client, multi=False)
    assert make(encoder, client, Names(sparse=None), multi=False).scroll() == []


def test_wrong_arguments(collection, encoder, client) -> None:
    with pytest.raises(ValueError, match="24 ids, 24 texts and 1 payloads"):
        new(payloads=[{}])
    with pytest.raises(ValueError, match="alpha must be from 0"):
        Rankings(alpha=1.5)
    with pytest.raises(ValueError, match="sparse_top_k must be at least 1"):
        Rankings(sparse_k=0)
    with pytest.raises(ValueError, match=r"fusion by rank.*'dbsf'"):
        make(encoder, client, fusion="dbsf").search(QUERY, 1, rankings=Rankings(alpha=0.2))
    with pytest.raises(StoreError, match="by its_name="):
        make(encoder, client, Names("other", keyword="its_name"))
    with pytest.raises(ValueError, match="its_name and sparse_vector_name are both None"):
        Names(None, None, keyword="its_name")
