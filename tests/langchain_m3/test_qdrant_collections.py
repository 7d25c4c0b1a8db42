"""``QdrantHybridStore`` over collections of langchain-qdrant, and as its users call it."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_qdrant import QdrantVectorStore, RetrievalMode
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from tests.conftest import make_text
from tests.table import table

from langchain_m3 import M3Embeddings, M3SparseEmbeddings, QdrantHybridStore
from m3_core.errors import StoreError
from m3_core.stores.qdrant.layout import point_id

TEXTS = [make_text(i, 3 + i % 6) for i in range(24)]
IDS = [str(uuid.UUID(int=i + 1)) for i in range(23)] + ["42"]
QUERY = "world water der Fluss und Stadt"
NAMES = {"vector_name": "", "sparse_vector_name": "langchain-sparse"}


@pytest.fixture
def client():
    client = QdrantClient(":memory:")
    yield client
    client.close()


@pytest.fixture
def theirs(client, encoder):
    """Write a collection with langchain-qdrant."""

    def write(mode: RetrievalMode, **names: str) -> QdrantVectorStore:
        dense, sparse = M3Embeddings(encoder=encoder), M3SparseEmbeddings(encoder=encoder)
        vectors, sparse_vectors = {}, {}
        if mode != RetrievalMode.SPARSE:
            size = encoder.dimension
            params = models.VectorParams(size=size, distance=models.Distance.COSINE)
            vectors[names.get("vector_name", "")] = params
        if mode != RetrievalMode.DENSE:
            name = names.get("sparse_vector_name", "langchain-sparse")
            sparse_vectors[name] = models.SparseVectorParams()
        client.create_collection("c", vectors_config=vectors, sparse_vectors_config=sparse_vectors)
        store = QdrantVectorStore(client, "c", dense, mode, sparse_embedding=sparse, **names)
        ids = [*IDS[:23], 42]
        store.add_texts(TEXTS, [{"number": i} for i in range(24)], ids)
        return store

    return write


def plain(found) -> dict[str, float]:
    return {document.page_content: score for document, score in found}


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        (RetrievalMode.DENSE, NAMES | {"sparse_vector_name": None}),
        (RetrievalMode.SPARSE, NAMES | {"vector_name": None}),
        (RetrievalMode.HYBRID, NAMES),
    ],
)
async def test_collections_of_langchain_qdrant(theirs, client, encoder, mode, names) -> None:
    other = theirs(mode)
    store = QdrantHybridStore.from_existing_collection("c", client=client, encoder=encoder, **names)
    found = store.similarity_search_with_score(QUERY, k=24)
    # They take as many candidates of each ranking as documents are asked for.
    expected = other.similarity_search_with_score(QUERY, k=24)
    assert plain(found) == pytest.approx(plain(expected), abs=1e-5)
    asynchronous = await store.asimilarity_search_with_score(QUERY, k=24)
    assert plain(asynchronous) == pytest.approx(plain(found), abs=1e-5)
    for document, _ in found:
        row = TEXTS.index(document.page_content)
        assert document.id == IDS[row]
        assert document.metadata == {"number": row}
    one_of = store.similarity_search(QUERY, k=24, filter={"number": {"$in": [3, 42]}})
    assert {document.id for document in one_of} <= {IDS[3]}
    # Ids as they were given are found, replaced and deleted, in whatever form.
    assert [one.id for one in store.get_by_ids([IDS[5], "42", IDS[6].replace("-", "")])] == [
        IDS[5],
        IDS[23],
        IDS[6],
    ]
    store.add_texts(["panda"], ids=[IDS[5]])
    store.add_texts(["panda bear"], ids=["not a UUID"])
    assert client.count("c").count == 25
    store.delete(["42", IDS[0]])
    assert client.count("c").count == 23
    assert [one.id for one in store.get_by_ids(["not a UUID", IDS[0]])] == ["not a UUID"]
    # And they read what is written here.
    assert "panda bear" in plain(other.similarity_search_with_score("panda bear", k=24))


def test_other_names_and_payload_keys(theirs, client, encoder) -> None:
    keys = {"content_payload_key": "body", "metadata_payload_key": "about it"}
    theirs(RetrievalMode.HYBRID, vector_name="d", sparse_vector_name="s", **keys)
    options = {"client": client, "encoder": encoder}
    names = {"vector_name": "d", "sparse_vector_name": "s"}
    store = QdrantHybridStore("c", **options, **names, **keys)
    assert [one.metadata for one in store.similarity_search(QUERY, filter={"number": 7})] == [
        {"number": 7}
    ]
    with pytest.raises(StoreError, match=r"no text under 'page_content'.*content_payload_key="):
        QdrantHybridStore("c", **options, **names).similarity_search(QUERY)
    for wrong in ({}, names | {"vector_name": ""}, names | {"sparse_vector_name": "x"}):
        with pytest.raises(StoreError, match=r"'d': '.* Cosine'.*\['s'\].*vector_name="):
            QdrantHybridStore("c", **options, **wrong)
    for wrong in (
        {"vector_name": None, "sparse_vector_name": None},
        {"vector_name": "x", "sparse_vector_name": "x"},
        {"content_payload_key": "metadata"},
        {"metadata_payload_key": "id"},
    ):
        with pytest.raises(ValueError, match=r"vector_name|must differ"):
            QdrantHybridStore("c", **options, **wrong)


def test_points_of_others_keep_their_ids(client, encoder) -> None:
    store = QdrantHybridStore("c", client=client, encoder=encoder)
    store.add_texts(["panda"], ids=["ours"])
    vector = {"dense": encoder.encode_documents(["bear"]).dense_vecs[0].tolist()}
    for i, known in enumerate((None, 3, "ours", "x")):
        payload = {"page_content": "bear", "id": known}
        client.upsert("c", points=[models.PointStruct(id=i, vector=vector, payload=payload)])
    found = store.similarity_search("bear", k=9)
    assert sorted(document.id for document in found) == ["0", "1", "2", "3", "ours"]
    assert {str(point_id(one)) for one in ("ours", "x")} & {"0", "1", "2", "3"} == set()


def test_only_collections_that_exist_are_opened(client, encoder) -> None:
    with pytest.raises(StoreError, match="there is no collection 'c'"):
        QdrantHybridStore.from_existing_collection("c", client=client, encoder=encoder)
    assert not client.collection_exists("c")


async def test_existing_and_recreated_collections_with_an_asynchronous_client(encoder) -> None:
    client = AsyncQdrantClient(location=":memory:")
    options = {"async_client": client, "encoder": encoder}
    missing = QdrantHybridStore.from_existing_collection("c", **options)
    with pytest.raises(StoreError, match="there is no collection 'c'"):
        await missing.asimilarity_search(QUERY)
    documents = [Document(id=one, page_content=text) for one, text in zip(IDS, TEXTS, strict=True)]
    store = await QdrantHybridStore.afrom_documents(documents, collection_name="c", **options)
    vector = await store.embeddings.aembed_query(QUERY)
    found = await store.asimilarity_search_with_score_by_vector(vector, k=3)
    assert await store.asimilarity_search_by_vector(vector, k=3) == [one for one, _ in found]
    diverse = await store.amax_marginal_relevance_search_by_vector(vector, k=3)
    assert diverse[0] == found[0][0]
    recreated = await QdrantHybridStore.afrom_texts(
        TEXTS[:2], collection_name="c", force_recreate=True, **options
    )
    assert len(await recreated.asimilarity_search(QUERY, k=9)) == 2
    await client.close()


def test_documents_without_an_embedding_object(encoder, table_encoder, client) -> None:
    documents = [Document("Pandas eat bamboo.", id="p"), Document("Bears eat fish.", id="b")]
    store = QdrantHybridStore.from_documents(documents, model_name=str(table()), device="cpu")
    assert store.similarity_search("What do pandas eat?", k=1) == documents[:1]
    assert isinstance(store.embeddings, M3Embeddings)
    assert "M3Embeddings" in store.as_retriever().tags
    params = store.as_retriever()._get_ls_params()
    assert params["ls_embedding_provider"] == "M3Embeddings"
    store.close()
    embeddings = M3Embeddings(encoder=encoder, query_instruction="find: ", truncate_dim=16)
    store = QdrantHybridStore.from_documents(documents, embeddings, client=client, batch_size=1)
    assert store.embeddings is embeddings
    assert store.client is client
    vector = embeddings.embed_query("fish")
    stored = client.retrieve("m3", [point_id("p")], with_vectors=True)[0].vector["dense"]
    expected = embeddings.embed_documents(["Pandas eat bamboo."])[0]
    np.testing.assert_allclose(stored, expected, atol=1e-6)
    reps = store._model._source.queries(["fish"])
    asked, _ = store._collection.request(reps, 1, _search())
    assert asked["prefetch"][0].query == pytest.approx(vector)
    with pytest.raises(ValueError, match="name the model once"):
        QdrantHybridStore(embedding=embeddings, model_name=str(table()))
    again = QdrantHybridStore.from_texts(["x"], embeddings, client=client, force_recreate=True)
    assert len(again.similarity_search("x", k=9)) == 1


def _search():
    from m3_core.stores.qdrant.queries import Search

    return Search()


@pytest.mark.parametrize("rerank", [False, True])
def test_threshold_and_offset(client, encoder, rerank) -> None:
    store = QdrantHybridStore.from_texts(TEXTS, encoder=encoder, client=client, rerank=rerank)
    found = store.similarity_search_with_score(QUERY, k=24)
    scores = [score for _, score in found]
    cut = next(i for i in range(4, 23) if scores[i - 1] > scores[i] + 1e-4)
    limit = (scores[cut - 1] + scores[cut]) / 2
    best = store.similarity_search_with_score(QUERY, k=24, score_threshold=limit)
    assert plain(best) == pytest.approx(plain(found[:cut]), abs=1e-5)
    later = store.similarity_search_with_score(QUERY, k=3, offset=2)
    assert [score for _, score in later] == pytest.approx(scores[2:5], abs=1e-5)
    with pytest.raises(ValueError, match="offset"):
        store.similarity_search(QUERY, offset=-1)
    with pytest.raises(TypeError, match="treshold"):
        store.similarity_search(QUERY, treshold=0.5)
    retriever = store.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.0, "k": 3}
    )
    assert len(retriever.invoke(QUERY)) == 3


def test_fusion_of_one_search(client, encoder) -> None:
    store = QdrantHybridStore.from_texts(TEXTS, encoder=encoder, client=client)
    fusion = models.FusionQuery(fusion=models.Fusion.DBSF)
    other = QdrantHybridStore(encoder=encoder, client=client, fusion="dbsf")
    found = store.similarity_search_with_score(QUERY, k=5, hybrid_fusion=fusion)
    assert plain(found) == pytest.approx(plain(other.similarity_search_with_score(QUERY, k=5)))


def test_search_by_vector(client, encoder) -> None:
    metadatas = [{"even": i % 2 == 0} for i in range(24)]
    store = QdrantHybridStore.from_texts(TEXTS, None, metadatas, encoder=encoder, client=client)
    vector = store.embeddings.embed_query(QUERY)
    exact = encoder.encode_documents(TEXTS).dense_vecs.astype(float) @ np.array(vector)
    found = store.similarity_search_with_score_by_vector(vector, k=24)
    expected: dict[str, float] = dict(zip(TEXTS, exact.tolist(), strict=True))
    assert plain(found) == pytest.approx(expected, abs=1e-5)
    assert [one for one, _ in found[:4]] == store.similarity_search_by_vector(vector)
    even = store.similarity_search_by_vector(vector, 24, {"even": True}, score_threshold=0.0)
    assert {one.metadata["even"] for one in even} == {True}
    diverse = store.max_marginal_relevance_search_by_vector(vector, k=4, fetch_k=24, lambda_mult=1)
    assert diverse == [one for one, _ in found[:4]]
    with pytest.raises(ValueError, match="hybrid_fusion"):
        store.similarity_search_by_vector(vector, hybrid_fusion=models.FusionQuery(fusion="rrf"))


def test_stores_with_one_ranking(client, encoder) -> None:
    sparse = QdrantHybridStore.from_texts(
        TEXTS, encoder=encoder, client=client, collection_name="s", vector_name=None
    )
    scores = [score for _, score in sparse.similarity_search_with_relevance_scores(QUERY, k=9)]
    assert all(0 < score < 1 for score in scores)
    assert sparse.similarity_search("", k=3) == []
    for search in (sparse.similarity_search_by_vector, sparse.max_marginal_relevance_search):
        with pytest.raises(ValueError, match="no dense vectors"):
            search([0.1, 0.2] if "by_vector" in search.__name__ else QUERY)
    dense = QdrantHybridStore.from_texts(
        TEXTS,
        encoder=encoder,
        client=client,
        collection_name="d",
        vector_name="",
        sparse_vector_name=None,
        distance=models.Distance.COSINE,
    )
    vector = dense.embeddings.embed_query(QUERY)
    assert dense.similarity_search(QUERY) == dense.similarity_search_by_vector(vector)
    assert len(dense.max_marginal_relevance_search(QUERY, k=3)) == 3
    reranked = QdrantHybridStore.from_texts(
        TEXTS, encoder=encoder, client=client, collection_name="r", vector_name=None, rerank=True
    )
    both = QdrantHybridStore.from_texts(
        TEXTS, encoder=encoder, client=client, collection_name="b", rerank=True
    )
    expected = plain(both.similarity_search_with_score(QUERY, k=24))
    for document, score in reranked.similarity_search_with_score(QUERY, k=3):
        assert score == pytest.approx(expected[document.page_content], abs=1e-5)


def test_what_langchain_qdrant_takes_otherwise(client, encoder) -> None:
    for name, message in (
        ("retrieval_mode", "vector_name=None"),
        ("sparse_embedding", "itself"),
        ("validate_collection_config", "always checked"),
        ("vector_params", "make the collection"),
    ):
        with pytest.raises(TypeError, match=f"no {name}.*{message}"):
            QdrantHybridStore.from_texts(["x"], encoder=encoder, client=client, **{name: "x"})
    with pytest.raises(ValueError, match=r"name one place.*client, port"):
        QdrantHybridStore(encoder=encoder, client=client, port=1)
    options = {"metadata": {"made": "here"}}
    QdrantHybridStore(encoder=encoder, client=client, collection_create_options=options)
    assert client.get_collection("m3").config.metadata == {"made": "here"}
