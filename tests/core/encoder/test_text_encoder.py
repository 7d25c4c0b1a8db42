"""Everything above the encoder takes any ``TextEncoder``, and asks it for no more than it needs."""

from __future__ import annotations

import numpy as np
import pytest
from tests.conftest import Passes

from m3_core import Encoder
from m3_core.collection.collection import DocumentCollection
from m3_core.encoder.cache import cache_of
from m3_core.encoder.cached import CachedEncoder
from m3_core.encoder.protocol import TextEncoder
from m3_core.rerankers.cascade import Cascade
from m3_core.rerankers.hybrid import HybridScorer
from m3_core.testing import FakeEncoder
from m3_core.texts import check_pairs, check_texts, distinct, pairs_of

PARTS = ("dense", "sparse", "colbert")
TEXTS = ["pandas eat bamboo", "bears eat fish", "a river in the city"]


def collection_of(encoder: TextEncoder, parts=PARTS) -> DocumentCollection:
    return DocumentCollection(CachedEncoder(encoder, parts, roles=("query",)))


def test_a_collection_and_a_scorer() -> None:
    encoder = FakeEncoder()
    documents = collection_of(encoder)
    documents.add(TEXTS, ids=["p", "b", "r"])
    assert [one.id for one in documents.search("what do pandas eat", 2)] == ["p", "b"]
    assert encoder.calls == [("document", 3), ("query", 1)]
    scorer = HybridScorer(encoder, (1.0, 0.3, 1.0))
    assert [i for i, _ in scorer.rank("what do pandas eat", TEXTS)] == [0, 1, 2]
    # The query's representations are those that the search asked for.
    assert encoder.calls == [("document", 3), ("query", 1), ("document", 3)]


async def test_asynchronous_forms_give_the_same() -> None:
    encoder = FakeEncoder()
    documents, others = collection_of(encoder), collection_of(FakeEncoder())
    assert await documents.aadd(TEXTS, ids=["p", "b", "r"]) == ["p", "b", "r"]
    others.add(TEXTS, ids=["p", "b", "r"])
    for options in ({}, {"exhaustive": True}, {"fusion": "rrf"}, {"return_vectors": True}):
        found = await documents.asearch("fish in a river", 3, **options)
        expected = others.search("fish in a river", 3, **options)
        assert [(one.id, one.score) for one in found] == [(one.id, one.score) for one in expected]
    vector = encoder.encode_queries(["bears"]).dense_vecs[0]
    by_vector = {"vector": vector, "weights": (1, 0, 0), "exhaustive": True}
    calls = len(encoder.calls)
    assert (await documents.asearch("", 1, **by_vector))[0].id == "b"
    assert len(encoder.calls) == calls
    with pytest.raises(TypeError, match="unknown"):
        await documents.asearch("fish", 1, unknown=1)
    with pytest.raises(ValueError, match="k must be"):
        await documents.asearch("fish", 0)


def test_a_cascade(tmp_path) -> None:
    from m3_core import Reranker
    from m3_core.testing.rerankers import tiny_reranker

    reranker = Reranker.from_pretrained(tiny_reranker(tmp_path / "r"), device="cpu")
    encoder = FakeEncoder()
    found = Cascade(encoder, reranker, first=2).compute("what do pandas eat", TEXTS)
    assert {one.index for one in found} == {0, 1}
    assert encoder.calls == [("query", 1), ("document", 3)]


def test_collections_cost_others_nothing(fresh_table: Encoder) -> None:
    """Neither does what they store go through the cache, nor do others compute for them."""
    asked = []
    encode = fresh_table.encode_documents

    def noting(listed, return_dense, return_sparse, return_colbert_vecs, **options):
        asked.append((return_dense, return_sparse, return_colbert_vecs))
        return encode(listed, return_dense, return_sparse, return_colbert_vecs, **options)

    fresh_table.encode_documents = noting
    documents = collection_of(fresh_table)
    documents.add(TEXTS)
    assert len(cache_of(fresh_table)) == 0
    CachedEncoder(fresh_table, ["dense"]).documents(["another text"])
    assert asked == [(True, True, True), (True, False, False)]
    reps = CachedEncoder(fresh_table, ["dense"]).queries(["a query"])
    assert reps.colbert_vecs is None
    documents.search("a query", 1)
    assert cache_of(fresh_table).hits == 1


def test_equal_documents_of_one_call_are_computed_once(fresh_table, monkeypatch) -> None:
    passes = Passes(fresh_table, monkeypatch)
    documents = collection_of(fresh_table)
    documents.add(["panda", "bear", "panda"], ids=["a", "b", "c"])
    assert sum(passes) == 2
    found = {one.id: one.score for one in documents.search("panda", 3, exhaustive=True)}
    assert found["a"] == pytest.approx(found["c"], abs=1e-6)
    assert found["a"] > found["b"] + 0.01


def test_a_text_is_checked_and_compared_once(fresh_table) -> None:
    checked = check_texts(["b", "a", "b"])
    assert check_texts(checked) is checked
    rows, unique = distinct(checked)
    assert rows.tolist() == [0, 1, 0]
    assert check_texts(unique) is unique
    again, same = distinct(unique)
    assert same is unique
    assert again.tolist() == [0, 1]
    pairs = pairs_of("q", ["a", "b"])
    assert check_pairs(pairs) == (["q", "q"], ["a", "b"])
    looked: list[str] = []

    class Noting(str):
        __slots__ = ()

        def encode(self, *args) -> bytes:
            looked.append(str(self))
            return super().encode(*args)

    documents = collection_of(fresh_table)
    documents.add(map(Noting, TEXTS))
    CachedEncoder(fresh_table, ["dense"]).queries([Noting("q")])
    HybridScorer(fresh_table, (1, 1, 1)).rank(Noting("another"), map(Noting, ["a", "b"]))
    assert looked == [*TEXTS, "q", "another", "a", "b"]


def test_an_encoders_own_options_are_not_assigned_from_outside() -> None:
    """Lengths and instructions of any other encoder are its own; an adapter says so."""
    from m3_core.encoder.registry import adapter_encoder

    encoder = FakeEncoder()
    assert adapter_encoder(encoder, "a name", {}) is encoder
    with pytest.raises(ValueError, match="whose options are its own"):
        adapter_encoder(encoder, "a name", {"max_length": 5})


def test_direct_encoding_gives_the_cached_numbers() -> None:
    encoder = FakeEncoder()
    direct = CachedEncoder(encoder, PARTS, reuse=False)
    cached = CachedEncoder(encoder, PARTS)
    listed = ["panda", "bear", "panda", ""]
    one, other = direct.documents(listed), cached.documents(listed)
    np.testing.assert_array_equal(one.dense_vecs, other.dense_vecs)
    np.testing.assert_array_equal(one.colbert_vecs.vectors, other.colbert_vecs.vectors)
    assert list(one.lexical_weights) == list(other.lexical_weights)
    assert direct.queries([]).dense_vecs.shape == (0, 32)
