"""What users may do with ``QdrantHybridStore`` besides what it is meant for."""

from __future__ import annotations

import copy
import pickle
from datetime import date
from decimal import Decimal

import numpy as np
import pytest
from langchain_core.documents import Document
from qdrant_client import models

from langchain_m3 import M3Embeddings, QdrantHybridStore
from m3_core.errors import StoreError
from m3_core.testing import FakeEncoder

QUERY = "What do pandas eat?"
TEXTS = ["Pandas eat bamboo.", "Rivers flow into the sea.", "Salt is white.", "Bears eat fish."]


def made(**options) -> QdrantHybridStore:
    store = QdrantHybridStore(**{"encoder": FakeEncoder(), **options})
    store.add_texts(TEXTS, [{"n": i} for i in range(4)], list("0123"))
    return store


def test_two_spellings_of_one_point_are_an_error() -> None:
    store, one = made(), "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    with pytest.raises(ValueError, match="are the same point of Qdrant"):
        store.add_texts(["a", "b"], ids=[one, one.upper()])
    assert store.get_by_ids([one]) == []


def test_what_a_store_is_over_cannot_be_assigned() -> None:
    store = made()
    for name in ("collection_name", "names", "distance", "no_such_thing"):
        with pytest.raises(AttributeError, match=f"{name} cannot be assigned"):
            setattr(store, name, "other")
    for name, value, message in (
        ("rerank", True, "has no multi-vectors"),
        ("fusion", "weights", "must be one of rrf, dbsf"),
        ("fetch_k", 0, "at least 1"),
        ("long_multi_vectors", "cut", "must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            setattr(store, name, value)
    store.fusion = "dbsf"
    expected = made(fusion="dbsf").similarity_search_with_score(QUERY)
    found = store.similarity_search_with_score(QUERY)
    assert [score for _, score in found] == pytest.approx([score for _, score in expected])


@pytest.mark.parametrize("options", [{}, {"rerank": True}, {"sparse_vector_name": None}])
def test_a_score_that_equals_the_threshold_passes(options) -> None:
    store = made(**options)
    scores = [score for _, score in store.similarity_search_with_score(QUERY)]
    for i, threshold in enumerate(scores):
        found = store.similarity_search_with_score(QUERY, score_threshold=threshold)
        assert [score for _, score in found] == [one for one in scores if one >= threshold]
        assert len(found) > i
    with pytest.raises(TypeError, match=r"score_threshold must be a number; got '0\.5'"):
        store.similarity_search(QUERY, score_threshold="0.5")


async def test_lists_of_ids_and_documents_may_be_any_iterables() -> None:
    store = made()
    assert store.delete([])
    assert await store.adelete([])
    assert len(store.similarity_search(QUERY)) == 4
    store.add_texts(["Salt."], ids=np.array(["x"]))
    assert [one.page_content for one in store.get_by_ids(np.array(["x"]))] == ["Salt."]
    given = (Document(text, id=f"g{i}") for i, text in enumerate(TEXTS))
    assert store.add_documents(given) == ["g0", "g1", "g2", "g3"]
    given = (Document(text, id=f"a{i}") for i, text in enumerate(TEXTS))
    assert await store.aadd_documents(given) == ["a0", "a1", "a2", "a3"]
    with pytest.raises(TypeError, match="ids must be"):
        store.add_texts(["a", "b"], ids="ab")


def test_metadata_are_made_what_qdrant_keeps_before_anything_is_encoded() -> None:
    encoder = FakeEncoder()
    store = QdrantHybridStore(encoder=encoder)
    metadata = {"n": np.int64(3), "tags": np.array(["a"]), "when": date(2024, 1, 2), "s": {"x"}}
    store.add_texts(["Salt."], [metadata], ["x"])
    kept = {"n": 3, "tags": ["a"], "when": "2024-01-02", "s": ["x"]}
    assert store.get_by_ids(["x"])[0].metadata == kept
    assert len(store.similarity_search(QUERY, filter={"n": 3, "when": "2024-01-02"})) == 1
    calls = len(encoder.calls)
    for value in (Decimal("1.5"), object(), {1: "a"}):
        with pytest.raises(TypeError, match="metadata of document 'y' have"):
            store.add_texts(["Salt."], [{"by": [value]}], ["y"])
    with pytest.raises(TypeError, match="metadata of document 'y' must be a mapping"):
        store.add_texts(["Salt."], [["ab"]], ["y"])
    assert len(encoder.calls) == calls


def test_a_store_is_neither_pickled_nor_copied_deeply() -> None:
    store = made()
    for call in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match=r"holds a connection.* from_existing_collection"):
            call(store)
    assert copy.copy(store).similarity_search(QUERY) == store.similarity_search(QUERY)


async def test_relevance_is_that_of_the_fusion_of_the_call() -> None:
    store, fusion = made(), models.FusionQuery(fusion=models.Fusion.DBSF)
    found = store.similarity_search_with_relevance_scores(QUERY, hybrid_fusion=fusion)
    expected = made(fusion="dbsf").similarity_search_with_relevance_scores(QUERY)
    assert [score for _, score in found] == pytest.approx([score for _, score in expected])
    raw = store.similarity_search_with_score(QUERY, hybrid_fusion=fusion)
    assert found[0][1] == pytest.approx(raw[0][1] / 2)
    again = await store.asimilarity_search_with_relevance_scores(QUERY, hybrid_fusion=fusion)
    assert [score for _, score in again] == [score for _, score in found]
    by_rank = models.RrfQuery(rrf=models.Rrf(k=60))
    found = store.similarity_search_with_relevance_scores(QUERY, hybrid_fusion=by_rank)
    assert found[0][1] == pytest.approx(1.0)


async def test_async_search_follows_a_replaced_sync_one() -> None:
    class First(QdrantHybridStore):
        def similarity_search(self, query, k=4, filter=None, **kwargs):
            return super().similarity_search(query, 1, filter, **kwargs)

    store = First(encoder=FakeEncoder())
    store.add_texts(TEXTS)
    assert len(await store.asimilarity_search(QUERY)) == len(store.similarity_search(QUERY)) == 1


def test_a_store_and_its_embeddings_have_the_same_options(encoder) -> None:
    given = M3Embeddings(encoder=encoder)
    store = QdrantHybridStore.from_texts(TEXTS, given, sparse_vector_name=None)
    before = store.similarity_search_with_score("salt")
    given.query_instruction = "pandas "
    salted = store.similarity_search_with_score("salt")
    assert [score for _, score in salted] != pytest.approx([score for _, score in before])
    given.document_instruction = "d: "
    with pytest.raises(StoreError, match="encodes documents otherwise"):
        store.similarity_search("salt")


def test_errors_name_the_store_and_what_it_takes() -> None:
    with pytest.raises(ValueError, match="error for QdrantHybridStore"):
        QdrantHybridStore(encoder=FakeEncoder(), top=3)
    with pytest.raises(TypeError, match=r"takes k=, filter=, score_threshold=.*; got fetchk="):
        made().similarity_search(QUERY, fetchk=3)


def test_its_repr_says_what_it_is_over() -> None:
    assert repr(made()) == "QdrantHybridStore('m3', model_name='fake', rerank=False, fusion='rrf')"


def test_options_that_there_are_not_are_errors() -> None:
    with pytest.raises(ValueError, match=r"QdrantHybridStore has no option 'pth' \(is 'path' mean"):
        made(pth="folder")
    with pytest.raises(TypeError, match=r"search_kwargs=, .* as \{'k': 2\}; got k="):
        made().as_retriever(k=1)
    assert len(made().as_retriever(search_kwargs={"k": 1}).invoke(QUERY)) == 1
