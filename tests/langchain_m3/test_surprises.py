"""What users may do with the adapters besides what they are meant for."""

from __future__ import annotations

import json
import threading
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch
from langchain_core.documents import Document
from pydantic import ValidationError

from langchain_m3 import (
    BGEReranker,
    HuggingFaceBgeEmbeddings,
    M3CascadeReranker,
    M3Embeddings,
    M3HybridRetriever,
    M3InMemoryVectorStore,
    M3Reranker,
)
from m3_core.testing import FakeEncoder
from m3_core.testing.rerankers import tiny_reranker

QUERY = "What do pandas eat?"
TEXTS = ["Pandas eat bamboo.", "Rivers flow into the sea.", "Salt is white.", "Bears eat fish."]
METADATAS = [
    {"topic": "animals", "n": 1, "tags": ["a"]},
    {"topic": "water", "n": 2, "tags": []},
    {"topic": "mineral", "n": 3, "tags": ["b"]},
    {"topic": "animals", "n": 4, "tags": ["a", "b"]},
]


def documents() -> list[Document]:
    return [Document(text, id=str(i), metadata=dict(METADATAS[i])) for i, text in enumerate(TEXTS)]


def hybrid(**options) -> M3HybridRetriever:
    return M3HybridRetriever.from_documents(documents(), encoder=FakeEncoder(), **options)


def test_a_copy_with_another_option_computes_with_it(encoder) -> None:
    plain = M3Embeddings(encoder=encoder)
    copied = plain.model_copy(update={"query_instruction": "salt: ", "truncate_dim": 8})
    made = M3Embeddings(encoder=encoder, query_instruction="salt: ", truncate_dim=8)
    assert copied.embed_query(QUERY) == pytest.approx(made.embed_query(QUERY), abs=1e-6)
    copied.max_length = 9
    assert (copied.query_instruction, copied.truncate_dim) == ("salt: ", 8)
    assert (plain.query_instruction, plain.truncate_dim) == ("", None)
    assert plain.max_length == encoder.max_length
    assert len(plain.embed_query(QUERY)) > 8


def test_a_copy_is_checked_as_assignments_are() -> None:
    plain = hybrid()
    with pytest.raises(ValueError, match="needs colbert of its documents"):
        plain.model_copy(update={"rerank": True})
    with pytest.raises(ValidationError, match=r"make a new object, M3HybridRetriever"):
        plain.model_copy(update={"model_name": "other"})
    with pytest.raises(ValidationError, match="top_k is no field of M3HybridRetriever"):
        plain.model_copy(update={"top_k": 3})
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        plain.model_copy(update={"k": 0})
    same = plain.model_copy(update={"model_name": plain.model_name, "k": 1})
    assert [len(one.invoke(QUERY)) for one in (same, plain)] == [1, 4]


def test_copies_of_rerankers_score_with_their_options(encoder, tmp_path) -> None:
    folder = str(tiny_reranker(tmp_path / "m"))
    long = " ".join(TEXTS * 8)
    plain = BGEReranker(model_name=folder, device="cpu", dtype="float32")
    copied = plain.model_copy(update={"query_instruction": "salt "})
    made = BGEReranker(model_name=folder, device="cpu", dtype="float32", query_instruction="salt ")
    assert copied.score([(QUERY, long)]) == pytest.approx(made.score([(QUERY, long)]), abs=1e-6)
    assert copied.score([(QUERY, long)]) != pytest.approx(plain.score([(QUERY, long)]), abs=1e-6)
    own = M3Reranker(encoder=encoder, weights=(1, 0, 0))
    lexical = own.model_copy(update={"weights": (0, 1, 0)})
    assert lexical.score([(QUERY, long)]) == pytest.approx(
        M3Reranker(encoder=encoder, weights=(0, 1, 0)).score([(QUERY, long)]), abs=1e-6
    )
    both = M3CascadeReranker(encoder=encoder, reranker_name=folder, device=None, dtype="float32")
    assert len(both.model_copy(update={"first": 2}).compress_documents(documents(), QUERY)) == 2
    assert len(both.compress_documents(documents(), QUERY)) == 4


def _subclasses(kind: type) -> set[type]:
    return {kind}.union(*(_subclasses(one) for one in kind.__subclasses__()))


def test_no_class_of_ours_needs_a_thread_for_its_async_methods() -> None:
    from m3_core.adapters.twins import AsyncTwins, _left_behind

    ours = {one for one in _subclasses(AsyncTwins) if "_m3." in one.__module__}
    assert M3Embeddings in ours
    assert [one for one in ours if list(_left_behind(one))] == []


async def test_async_follows_a_replaced_sync_method() -> None:
    class Salted(M3Embeddings):
        def embed_query(self, text: str) -> list[float]:
            return super().embed_query("salt " + text)

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return super().embed_documents(["salt " + text for text in texts])

    class Mixed(Salted):
        async def aembed_query(self, text: str) -> list[float]:
            return [*await super().aembed_query(text), 0.0]

    salted, plain = Salted(encoder=FakeEncoder()), M3Embeddings(encoder=FakeEncoder())
    expected = plain.embed_query("salt " + QUERY)
    assert await salted.aembed_query(QUERY) == pytest.approx(expected)
    assert await salted.aembed_documents([QUERY]) == [pytest.approx(expected)]
    assert await Mixed(encoder=FakeEncoder()).aembed_query(QUERY) == pytest.approx([*expected, 0])
    assert await plain.aembed_query(QUERY) != pytest.approx(expected)


async def test_async_search_of_a_store_follows_a_replaced_sync_one() -> None:
    class First(M3InMemoryVectorStore):
        def similarity_search(self, query, k=None, **kwargs):
            return super().similarity_search(query, 1, **kwargs)

        def add_texts(self, texts, metadatas=None, *, ids=None, **kwargs):
            return super().add_texts(["salt " + one for one in texts], metadatas, ids=ids)

    store = First(encoder=FakeEncoder())
    await store.aadd_documents(documents())
    found = await store.as_retriever(search_kwargs={"k": 4}).ainvoke(QUERY)
    assert [one.page_content for one in found] == ["salt Pandas eat bamboo."]


async def test_a_retriever_after_langchains_template_works_from_async_code() -> None:
    seen = []

    class Template(M3HybridRetriever):
        def _get_relevant_documents(self, query, *, run_manager):
            seen.append(type(run_manager).__name__)
            return super()._get_relevant_documents(query, run_manager=run_manager)[:1]

    class Shorter(M3HybridRetriever):
        def _get_relevant_documents(self, query):
            return super()._get_relevant_documents(query, k=2)

    retriever = Template.from_documents(documents(), encoder=FakeEncoder())
    assert await retriever.ainvoke(QUERY) == retriever.invoke(QUERY) == [documents()[0]]
    assert seen == ["CallbackManagerForRetrieverRun"] * 2
    shorter = Shorter.from_documents(documents(), encoder=FakeEncoder())
    assert await shorter.ainvoke(QUERY) == shorter.invoke(QUERY)
    assert len(shorter.invoke(QUERY)) == 2


async def test_compressors_use_a_replaced_score_and_a_replaced_compression() -> None:
    class Shortest(M3Reranker):
        def score(self, text_pairs):
            return [-len(text) for _, text in text_pairs]

    class Renamed(M3Reranker):
        def compress_documents(self, documents, query, callbacks=None):
            return super().compress_documents(documents, query, callbacks)[:1]

    shortest = Shortest(encoder=FakeEncoder(), top_n=2)
    for found in (
        shortest.compress_documents(documents(), QUERY),
        await shortest.acompress_documents(documents(), QUERY),
    ):
        assert [one.id for one in found] == ["2", "3"]
        assert [one.metadata["relevance_score"] for one in found] == [-14, -15]
    assert len(await Renamed(encoder=FakeEncoder()).acompress_documents(documents(), QUERY)) == 1


def test_filter_functions_get_copies_of_metadata() -> None:
    retriever = hybrid()

    def careless(metadata):
        metadata["tags"].append("seen")
        return metadata.pop("n") < 3

    assert {one.id for one in retriever.invoke(QUERY, filter=careless)} == {"0", "1"}
    assert retriever.collection.ids(careless) == ["0", "1"]
    assert retriever.get_by_ids(["0", "1", "2", "3"]) == documents()


def test_filter_functions_may_use_the_collection() -> None:
    retriever = hybrid()

    def busy(metadata):
        retriever.invoke("salt", k=1)
        retriever.add_texts(["Salt is salty."], [{"n": 5}], ids=["4"])
        return metadata["n"] > 2

    found: list[list[str]] = []

    def search() -> None:
        found.append([one.id for one in retriever.invoke(QUERY, filter=busy)])
        found.append(retriever.collection.ids(busy))

    thread = threading.Thread(target=search, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert [sorted(one) for one in found] == [["2", "3"], ["2", "3", "4"]]

    def restless(metadata):
        retriever.add_texts(["Salt."], [{"n": metadata["n"] + 1}], ids=["0"])
        return True

    # The documents are those of the beginning, whatever becomes of them meanwhile.
    assert len(retriever.invoke(QUERY, filter=restless)) == 4


def test_a_document_that_is_replaced_during_the_filter_is_found_as_it_was() -> None:
    retriever = hybrid()
    asked = []

    def replacing(metadata):
        asked.append(metadata["n"])
        if len(asked) == 1:
            retriever.add_texts(["Pandas sleep."], [{"n": 9}], ids=["0"])
        return metadata["n"] == 1

    (found,) = retriever.invoke(QUERY, filter=replacing)
    assert (found.id, found.metadata["n"]) == ("0", 1)
    assert asked == [1, 2, 3, 4]
    assert retriever.invoke(QUERY, filter=replacing) == []
    assert asked[4:] == [2, 3, 4, 9]


def test_functions_that_are_no_filter_are_errors() -> None:
    retriever = hybrid()

    async def late(metadata):
        return False

    with pytest.raises(TypeError, match="is asynchronous"):
        retriever.invoke(QUERY, filter=late)
    with pytest.raises(ValueError, match="returned an awaitable"):
        retriever.invoke(QUERY, filter=lambda metadata: late(metadata))
    with pytest.raises(ValueError, match=r"looks for \.metadata.* it gets the metadata themselves"):
        retriever.invoke(QUERY, filter=lambda doc: doc.metadata["n"] == 1)
    with pytest.raises(AttributeError, match="missing"):
        retriever.invoke(QUERY, filter=lambda metadata: threading.missing)


class Kind(Enum):
    BOOK = "book"


def test_filters_find_what_numpy_and_enumerations_hold() -> None:
    metadatas = [
        {"n": np.int64(1), "tags": np.array(["a", "b"]), "kind": Kind.BOOK, "x": np.float32(0.5)},
        {"n": np.int64(2), "tags": np.array([], str), "kind": "page", "x": np.float32(1.5)},
    ]
    retriever = M3HybridRetriever.from_texts(
        TEXTS[:2], metadatas, ids=["0", "1"], encoder=FakeEncoder()
    )
    wheres = [{"n": 1}, {"tags": "b"}, {"kind": "book"}, {"kind": Kind.BOOK}, {"x": {"$lt": 1}}]
    for where in wheres:
        assert [one.id for one in retriever.invoke(QUERY, filter=where)] == ["0"]


@pytest.mark.parametrize("value", [Decimal("1.5"), date(2024, 1, 1), b"x", [date(2024, 1, 1)]])
def test_filters_of_values_that_none_compares_are_errors(value) -> None:
    retriever = M3HybridRetriever.from_texts(TEXTS[:1], [{"when": value}], encoder=FakeEncoder())
    assert len(retriever.invoke(QUERY, filter={"other": {"$ne": 1}})) == 1
    with pytest.raises(ValueError, match=f"'when'.* of type {type(value).__name__}|of type date"):
        retriever.invoke(QUERY, filter={"when": {"$gte": "2024"}})


@pytest.mark.parametrize("ids", ["12", [1], [["1"]], b"1"])
def test_ids_are_lists_of_strings_everywhere(ids) -> None:
    retriever = hybrid()
    for call in (
        lambda: retriever.get_by_ids(ids),
        lambda: retriever.delete(ids),
        lambda: retriever.add_texts(["a", "b"][: len(ids)], ids=ids),
    ):
        with pytest.raises(TypeError, match="ids must be"):
            call()


def test_metadata_are_mappings(tmp_path) -> None:
    retriever = hybrid()
    for metadatas in ([["ab", "cd"]], ["ab"], [3], {"n": 1}):
        with pytest.raises(TypeError, match=r"metadata of document 'x' must be a mapping"):
            retriever.add_texts(["Salt."], metadatas, ids=["x"])
    retriever.add_texts(["Salt."], [{"by": {1: "year"}}], ids=["x"])
    with pytest.raises(TypeError, match=r"document 'x' cannot be saved: the key 1 of type int"):
        retriever.save(tmp_path / "saved")


def stored(**options) -> M3InMemoryVectorStore:
    return M3InMemoryVectorStore.from_documents(documents(), encoder=FakeEncoder(), **options)


async def test_relevance_is_that_of_the_fusion_of_the_call() -> None:
    store = stored()
    by_rank = stored(fusion="rrf").similarity_search_with_relevance_scores(QUERY)
    assert by_rank[0][1] == pytest.approx(1.0)
    found = store.similarity_search_with_relevance_scores(QUERY, fusion="rrf")
    assert [score for _, score in found] == pytest.approx([score for _, score in by_rank])
    assert await store.asimilarity_search_with_relevance_scores(QUERY, fusion="rrf") == found
    kwargs = {"search_type": "similarity_score_threshold"}
    retriever = store.as_retriever(
        **kwargs, search_kwargs={"fusion": "rrf", "score_threshold": 0.99}
    )
    assert [one.id for one in retriever.invoke(QUERY)] == ["0"]
    assert [one.id for one in await retriever.ainvoke(QUERY)] == ["0"]


async def test_a_store_returns_as_many_as_its_own_k_says() -> None:
    store = stored(k=2)
    vector = store.embeddings.embed_query(QUERY)
    calls = [
        store.similarity_search(QUERY),
        await store.asimilarity_search(QUERY),
        store.similarity_search_with_score(QUERY),
        store.similarity_search_with_relevance_scores(QUERY),
        store.similarity_search_by_vector(vector),
        store.max_marginal_relevance_search(QUERY),
        await store.amax_marginal_relevance_search_by_vector(vector),
        store.as_retriever().invoke(QUERY),
        store.as_retriever(search_type="mmr").invoke(QUERY),
    ]
    assert [len(one) for one in calls] == [2] * len(calls)
    assert len(store.similarity_search(QUERY, 3)) == 3


async def test_searches_take_a_threshold_and_say_what_they_take() -> None:
    store = stored()
    scores = [score for _, score in store.similarity_search_with_score(QUERY)]
    assert len(store.similarity_search(QUERY, score_threshold=scores[1])) == 2
    assert len(await store.asimilarity_search(QUERY, score_threshold=scores[1])) == 2
    for call in (
        lambda: store.similarity_search(QUERY, nprobe=3),
        lambda: store.similarity_search_by_vector([1.0] * 32, weights=(1, 0, 0)),
        lambda: store.max_marginal_relevance_search(QUERY, return_vectors=True),
        lambda: store.invoke(QUERY, fusion="rrf"),
        lambda: store.similarity_search(QUERY, score_threshold="0.5"),
    ):
        with pytest.raises(TypeError, match=r"takes k=, filter=|must be a number") as caught:
            call()
        assert "_found" not in str(caught.value)


def test_a_store_and_its_embeddings_have_the_same_options(encoder) -> None:
    given = M3Embeddings(encoder=encoder)
    store = M3InMemoryVectorStore.from_documents(documents(), given)
    assert store.embeddings is given
    before = store.similarity_search_with_score("salt")
    given.query_instruction = "pandas "
    salted = store.similarity_search_with_score("salt")
    assert [score for _, score in salted] != [score for _, score in before]
    assert store.query_instruction == "pandas "
    assert store.hybrid_retriever().query_instruction == "pandas "
    with pytest.raises(ValueError, match=r"assign store\.embeddings\.query_instruction"):
        store.query_instruction = "more "
    given.document_instruction = "d: "
    with pytest.raises(ValueError, match="encode the documents anew"):
        store.similarity_search("salt")
    own = M3InMemoryVectorStore.from_documents(documents(), encoder=encoder)
    assert own.embeddings.query_instruction == ""
    own.query_instruction = "pandas "
    assert own.embeddings.query_instruction == "pandas "
    own.embeddings.query_instruction = ""
    assert own.similarity_search_with_score("salt") == before
    assert own.query_instruction == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": (0, 0, 0)}, "not all 0"),
        ({"weights": (-1, 0, 0)}, "none negative"),
        ({"weights": (0, 0, 1)}, "rerank=True"),
        ({"filter": {"n": {"$foo": 1}}}, "no operator"),
    ],
)
def test_weights_and_filters_are_checked_when_they_are_set(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        hybrid(**options)
    retriever = hybrid()
    for name, value in options.items():
        with pytest.raises(ValueError, match=message):
            setattr(retriever, name, value)
    assert len(retriever.invoke(QUERY)) == 4
    assert len(hybrid(rerank=True, weights=(0, 0, 1)).invoke(QUERY)) == 4


def test_a_collection_is_assigned_as_it_is_given() -> None:
    retriever, other = hybrid(), hybrid(k=1)
    shared = other.collection
    retriever.collection = None
    assert len(retriever) == 0
    retriever.add_texts(["Salt."])
    assert (len(retriever), len(other)) == (1, 4)
    with pytest.raises(TypeError, match="collection must be the collection of another"):
        retriever.collection = [1]
    assert len(retriever) == 1
    assert shared is other.collection


def test_attributes_that_nothing_reads_are_refused(tiny_bge, encoder, tmp_path) -> None:
    embeddings = HuggingFaceBgeEmbeddings(
        model_name=tiny_bge, model_kwargs={"device": torch.device("cpu")}
    )
    with pytest.raises(AttributeError, match=r"max_length here.* with_options\(max_length="):
        embeddings.client.max_seq_length = 512
    embeddings.client = embeddings.client.with_options(max_length=9)
    assert embeddings.client.max_length == 9
    with pytest.raises(AttributeError, match="use encode_queries or encode_documents"):
        embeddings.client.encode(["a"])
    with pytest.raises(AttributeError, match="use dimension"):
        embeddings.client.get_sentence_embedding_dimension()
    with pytest.raises(AttributeError, match="max_length of Encoder cannot be assigned"):
        encoder.max_length = 9
    reranker = BGEReranker(model_name=str(tiny_reranker(tmp_path / "m")), device="cpu")
    with pytest.raises(AttributeError, match="batch_size of Reranker cannot be assigned"):
        reranker._scorer.batch_size = 9


def test_compressors_name_what_cannot_be_copied() -> None:
    locked = Document("Salt.", id="x", metadata={"lock": threading.Lock()})
    with pytest.raises(TypeError, match="metadata of document 'x' cannot be copied"):
        M3Reranker(encoder=FakeEncoder()).compress_documents([locked], QUERY)


def test_paths_devices_and_data_types_are_taken_as_they_are(tiny_m3, tmp_path) -> None:
    options = {"device": torch.device("cpu"), "dtype": torch.float32, "cache_folder": tmp_path}
    made = M3Embeddings(model_name=Path(tiny_m3), **options)
    same = M3Embeddings(model_name=str(tiny_m3), device="cpu", dtype="float32")
    assert made._model.model is same._model.model
    assert (made.model_name, made.dtype, made.device) == (str(tiny_m3), "float32", "cpu")
    folder = tiny_reranker(tmp_path / "m")
    assert BGEReranker(model_name=folder, **options).dtype == "float32"
    assert BGEReranker(model=folder, **options).model_name == str(folder)
    both = M3CascadeReranker(model_name=tiny_m3, reranker_name=folder, **options)
    assert (both.reranker_name, both.device) == (str(folder), "cpu")


async def test_stores_are_keys_and_retrievers_are_made_from_async_code() -> None:
    store = stored()
    assert {store: 1}[store] == 1
    assert store != stored()
    options = {"encoder": FakeEncoder()}
    retriever = await M3HybridRetriever.afrom_documents(documents(), **options)
    assert await retriever.ainvoke(QUERY) == hybrid().invoke(QUERY)
    ids = [one.id for one in documents()]
    texts = await M3HybridRetriever.afrom_texts(TEXTS, METADATAS, ids=ids, **options)
    assert texts.invoke(QUERY) == retriever.invoke(QUERY)


def test_the_fields_of_huggingfaces_class_are_json(tiny_bge) -> None:
    embeddings = HuggingFaceBgeEmbeddings(model_name=tiny_bge)
    found = json.loads(embeddings.model_dump_json())
    assert found["client"] == found["model_name"] == str(tiny_bge)
    assert embeddings.model_dump()["client"] is embeddings.client


def test_documents_are_in_a_list() -> None:
    for wrong in (None, "bamboo", Document("bamboo")):
        with pytest.raises(TypeError, match=f"must be in a list; got {type(wrong).__name__}"):
            M3HybridRetriever.from_documents(wrong, encoder=FakeEncoder())
    with pytest.raises(ValidationError, match=r"three numbers \(dense, sparse, colbert\)"):
        hybrid(weights=(1, 1))
    with pytest.raises(TypeError, match="must be a str: pass its page_content"):
        M3Embeddings(encoder=FakeEncoder()).embed_documents(documents())
