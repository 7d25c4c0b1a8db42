"""What LangChain's users do with a retriever every day."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any

import pytest
from langchain_classic.retrievers import EnsembleRetriever
from langchain_classic.retrievers.multi_query import MultiQueryRetriever
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.runnables import ConfigurableField
from langchain_core.vectorstores import InMemoryVectorStore
from tests.table import table

from langchain_m3 import (
    BGEReranker,
    HuggingFaceBgeEmbeddings,
    M3CascadeReranker,
    M3Embeddings,
    M3HybridRetriever,
    M3Reranker,
    M3SparseRetriever,
    QdrantHybridStore,
)
from m3_core import Encoder, Reranker
from m3_core.collection.vectors import MultiRows
from m3_core.testing import tiny_checkpoint
from m3_core.testing.rerankers import tiny_reranker

TEXTS = ["Pandas eat bamboo.", "Bears eat fish.", "Trains go to Berlin.", "A panda is a bear."]
DOCUMENTS = [
    Document(id=str(i), page_content=text, metadata={"score": f"own {i}", "tags": [i]})
    for i, text in enumerate(TEXTS)
]
QUERY = "What do pandas eat?"
KINDS = [
    (M3SparseRetriever, {}),
    (M3HybridRetriever, {}),
    (M3HybridRetriever, {"rerank": True, "fusion": "rrf"}),
]


def ids(documents: list[Document]) -> list[str | None]:
    return [one.id for one in documents]


@pytest.fixture
def ways(table_encoder) -> list[dict[str, Any]]:
    return [
        {"model_name": str(table())},
        {"encoder": table_encoder},
        {"encoder": table_encoder, "query_instruction": "find: "},
    ]


@pytest.mark.parametrize(("kind", "options"), KINDS)
async def test_configured_retrievers_have_the_documents(ways, kind, options) -> None:
    for way in ways:
        retriever = kind.from_documents(DOCUMENTS, **way, **options, k=1)
        configured = retriever.configurable_fields(k=ConfigurableField(id="k"))
        two = configured.with_config(configurable={"k": 2})
        expected = retriever.invoke(QUERY, k=2)
        assert len(expected) == 2
        assert two.invoke(QUERY) == await two.ainvoke(QUERY) == expected
        assert len(configured.invoke(QUERY)) == 1
        # What is added later, and by the configured one itself, is everybody's.
        retriever.add_texts([QUERY], ids=["later"])
        assert ids(two.invoke(QUERY)) == ids(retriever.invoke(QUERY, k=2))
        assert "later" in ids(two.invoke(QUERY))
        assert retriever.model_fields_set == set(way) | set(options) | {"k"}


def test_what_is_configured_takes_effect_and_the_rest_stays(table_encoder, tmp_path) -> None:
    retriever = M3HybridRetriever.from_documents(DOCUMENTS, encoder=table_encoder)
    changed = retriever.configurable_fields(
        weights=ConfigurableField(id="weights"),
        query_instruction=ConfigurableField(id="instruction"),
        rerank=ConfigurableField(id="rerank"),
        model_name=ConfigurableField(id="model"),
        document_instruction=ConfigurableField(id="document"),
    )

    def configured(**values: Any) -> Any:
        return changed.with_config(configurable=values)

    sparse = M3SparseRetriever(collection=retriever.collection, k=2)
    assert ids(configured(weights=(0, 1, 0)).invoke(QUERY))[:2] == ids(sparse.invoke(QUERY))
    prefixed = M3HybridRetriever.from_documents(
        DOCUMENTS, encoder=table_encoder, query_instruction="Berlin trains "
    )
    assert configured(instruction="Berlin trains ").invoke(QUERY) == prefixed.invoke(QUERY)
    with pytest.raises(ValueError, match=r"needs colbert .* collection holds dense, sparse"):
        configured(rerank=True).invoke(QUERY)
    with pytest.raises(ValueError, match="other options for documents"):
        configured(document="d: ").invoke(QUERY)
    other = str(tiny_checkpoint(tmp_path / "other"))
    with pytest.raises(ValueError, match=r"model_name is .*encoder="):
        configured(model=other).invoke(QUERY)
    named = M3HybridRetriever.from_documents(DOCUMENTS, model_name=str(table()))
    with pytest.raises(ValueError, match="is another model"):
        named.configurable_fields(model_name=ConfigurableField(id="model")).with_config(
            configurable={"model": other}
        ).invoke(QUERY)


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_copies_have_the_documents(table_encoder, kind, options) -> None:
    retriever = kind.from_documents(DOCUMENTS, encoder=table_encoder, **options)
    expected = retriever.search_with_scores(QUERY)
    shared = (copy.copy(retriever), retriever.model_copy(update={"k": 3}), retriever.bind())
    own = (
        copy.deepcopy(retriever),
        retriever.model_copy(deep=True),
        pickle.loads(pickle.dumps(retriever)),
    )
    for one in own:
        found = one.search_with_scores(QUERY)
        assert [(d, pytest.approx(s, abs=1e-6)) for d, s, _ in expected] == [
            (d, s) for d, s, _ in found
        ]
    retriever.add_texts([QUERY], ids=["later"])
    for one in shared:
        assert "later" in ids(one.invoke(QUERY))
    for one in own:
        assert "later" not in ids(one.invoke(QUERY))
        one.add_texts([QUERY], ids=["own"])
        assert "own" in ids(one.invoke(QUERY))
    assert "own" not in ids(retriever.invoke(QUERY))


async def test_alternatives_have_their_documents(table_encoder) -> None:
    hybrid = M3HybridRetriever.from_documents(DOCUMENTS, encoder=table_encoder, k=1)
    sparse = M3SparseRetriever(collection=hybrid.collection)
    either = hybrid.configurable_fields(k=ConfigurableField(id="k")).configurable_alternatives(
        ConfigurableField(id="kind"), default_key="hybrid", sparse=sparse
    )
    assert ids(either.invoke(QUERY)) == ["0"]
    assert len(either.with_config(configurable={"k": 3}).invoke(QUERY)) == 3
    as_sparse = either.with_config(configurable={"kind": "sparse"})
    assert await as_sparse.ainvoke(QUERY) == sparse.invoke(QUERY)
    assert "0" in ids(sparse.invoke(QUERY))


def test_one_collection_for_several_retrievers(table_encoder, tiny_m3) -> None:
    full = M3HybridRetriever.from_documents(DOCUMENTS, encoder=table_encoder, rerank=True)
    plain = M3HybridRetriever(collection=full.collection)
    plain.add_texts(["Pandas sleep."], ids=["new"])
    assert "colbert" not in plain.search_with_scores(QUERY)[0][2]
    assert "colbert" in full.search_with_scores(QUERY)[0][2]
    assert "new" in ids(full.invoke(QUERY, k=5))
    with pytest.raises(ValueError, match="is another model"):
        M3HybridRetriever(collection=full.collection, model_name=str(tiny_m3))
    with pytest.raises(TypeError, match=r"collection must be .* got M3HybridRetriever"):
        M3SparseRetriever(collection=full)


@pytest.mark.parametrize(("kind", "options"), KINDS)
async def test_documents_come_back_as_they_were_put_in(table_encoder, kind, options) -> None:
    retriever = kind.from_documents(DOCUMENTS, encoder=table_encoder, **options)
    found = retriever.invoke(QUERY)
    assert found == [DOCUMENTS[int(str(one.id))] for one in found]
    scored = retriever.search_with_scores(QUERY)
    assert [document for document, _, _ in scored] == found
    values = [score for _, score, _ in scored]
    assert values == sorted(values, reverse=True)
    names = {"sparse"} if kind is M3SparseRetriever else {"dense", "sparse"}
    assert all(names <= scores.keys() for _, _, scores in scored[:1])
    assert await retriever.asearch_with_scores(QUERY, 1) == scored[:1]
    assert retriever.search_with_scores(QUERY, filter={"score": "own 1"})[0][0].id == "1"
    named = kind(collection=retriever.collection, **options, score_key="relevance")
    assert [one.metadata.pop("relevance") for one in named.invoke(QUERY)] == values
    assert named.invoke(QUERY)[0].metadata["score"] == found[0].metadata["score"]


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_the_same_document_is_the_same_for_all_queries(table_encoder, kind, options) -> None:
    retriever = kind.from_documents(DOCUMENTS, encoder=table_encoder, **options, k=3)
    model = FakeListChatModel(responses=["panda food\nWhat does a panda eat?"])
    several = MultiQueryRetriever.from_llm(retriever, model, include_original=True)
    found = several.invoke(QUERY)
    assert len(found) == len({one.id for one in found}) <= len(TEXTS)
    both = EnsembleRetriever(retrievers=[retriever, retriever], weights=[0.5, 0.5])
    assert both.invoke(QUERY) == retriever.invoke(QUERY)


class FlatStore(InMemoryVectorStore):
    """Takes only plain values as metadata, as Chroma does."""

    def add_documents(self, documents: list[Document], *args: Any, **kwargs: Any) -> list[str]:
        for one in documents:
            for key, value in one.metadata.items():
                if not isinstance(value, (str, int, float, bool)):
                    raise ValueError(f"{key} is {value!r}, which this store cannot hold")
        return super().add_documents(documents, *args, **kwargs)


def test_found_documents_go_into_stores_with_plain_metadata(table_encoder) -> None:
    retriever = M3HybridRetriever.from_texts(TEXTS, [{"n": 1}] * 4, encoder=table_encoder)
    store = FlatStore(M3Embeddings(encoder=table_encoder))
    assert len(store.add_documents(retriever.invoke(QUERY))) == 4


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_results_and_callers_share_nothing(table_encoder, kind, options) -> None:
    given = [one.model_copy(deep=True) for one in DOCUMENTS]
    retriever = kind.from_documents(given, encoder=table_encoder, **options)
    for one in given:
        one.metadata["tags"].append("caller")
    for _ in range(2):
        for one in (
            *retriever.invoke(QUERY),
            *(document for document, _, _ in retriever.search_with_scores(QUERY)),
            *retriever.get_by_ids(["0", "1"]),
        ):
            assert one == DOCUMENTS[int(str(one.id))]
            one.metadata["tags"].append("result")
            one.metadata["tags"] = None
    kept = M3Reranker(encoder=table_encoder).compress_documents(given, QUERY)
    kept[0].metadata["tags"].append("kept")
    assert all("kept" not in one.metadata["tags"] for one in given)
    assert kept[0].metadata["relevance_score"] >= kept[-1].metadata["relevance_score"]


def test_the_store_in_qdrant_shares_nothing_either(table_encoder) -> None:
    given = [one.model_copy(deep=True) for one in DOCUMENTS]
    store = QdrantHybridStore.from_documents(given, None, encoder=table_encoder)
    for one in given:
        one.metadata["tags"].append("caller")
    for _ in range(2):
        for one in (*store.similarity_search(QUERY), *store.get_by_ids(["0", "1"])):
            assert one == DOCUMENTS[int(str(one.id))]
            one.metadata["tags"].append("result")


async def test_adding_and_deleting_off_the_event_loop(table_encoder) -> None:
    retriever = M3HybridRetriever(encoder=table_encoder)
    assert await retriever.aadd_texts(TEXTS[:2], [{"n": 0}, {"n": 1}], ids=["0", "1"]) == ["0", "1"]
    await asyncio.gather(*(retriever.aadd_documents([one]) for one in DOCUMENTS[1:]))
    assert len(retriever) == 4
    assert await retriever.adelete(["0", "unknown"]) == 1
    assert await retriever.aget_by_ids(["2", "0", "1"]) == [DOCUMENTS[2], DOCUMENTS[1]]
    assert retriever.get_by_ids(["1"]) == [DOCUMENTS[1]]
    with pytest.raises(TypeError, match="no argument metadata"):
        retriever.add_texts(["x"], metadata={})


def test_empty_documents_are_reported(table_encoder, caplog) -> None:
    retriever = M3HybridRetriever.from_texts(["", "Pandas"], ids=["e", "p"], encoder=table_encoder)
    assert "1 of 2 documents have no text, the first is 'e'" in caplog.text
    assert len(retriever) == 2
    caplog.clear()
    retriever.add_texts(["Bears"])
    assert not caplog.text


def test_multi_vectors_without_a_weight_are_not_scored(tmp_path, monkeypatch) -> None:
    encoder = Encoder.from_pretrained(tiny_checkpoint(tmp_path / "m3"), device="cpu")
    retriever = M3HybridRetriever.from_documents(
        DOCUMENTS, encoder=encoder, rerank=True, weights=(1, 0, 0)
    )
    calls, scores = [], MultiRows.scores
    monkeypatch.setattr(MultiRows, "scores", lambda *args: calls.append(args) or scores(*args))
    plain = M3HybridRetriever.from_documents(DOCUMENTS, encoder=encoder, weights=(1, 0, 0))
    assert ids(retriever.invoke(QUERY)) == ids(plain.invoke(QUERY))
    assert not calls
    M3HybridRetriever(collection=retriever.collection, rerank=True).invoke(QUERY)
    assert len(calls) == 1


def remade(one: Any) -> Any:
    """Another object of all fields, as LangChain's configurable runnables make it."""
    values = {name: one.__dict__[name] for name in type(one).model_fields}
    return type(one)(**values)


def test_embeddings_and_rerankers_made_of_all_fields_are_the_same(table_encoder, tmp_path) -> None:
    folder = str(tiny_reranker(tmp_path / "reranker"))
    reranker = Reranker.from_pretrained(folder, device="cpu", dtype="float32")
    own = table_encoder.with_options(query_instruction="find: ", max_length=30)
    for embeddings in (
        M3Embeddings(model_name=str(table()), query_instruction="find: "),
        M3Embeddings(encoder=own, truncate_dim=8),
        HuggingFaceBgeEmbeddings(model_name=str(table()), query_instruction="find: "),
    ):
        again = remade(remade(embeddings))
        assert again.embed_query(QUERY) == pytest.approx(embeddings.embed_query(QUERY), abs=1e-6)
        assert again.model_dump(exclude={"client"}) == embeddings.model_dump(exclude={"client"})
    for compressor in (
        M3Reranker(model_name=str(table()), weights=(1, 1, 0), top_n=2),
        M3Reranker(encoder=own, score_threshold=0.1),
        BGEReranker(model_name=folder, dtype="float32", max_length=40),
        BGEReranker(reranker=reranker, normalize=True, max_length=40),
        M3CascadeReranker(encoder=own, reranker=reranker, first=2),
        M3CascadeReranker(model_name=str(table()), reranker_name=folder, dtype="float32"),
    ):
        again = remade(remade(compressor))
        expected = compressor.compress_documents(DOCUMENTS, QUERY)
        found = again.compress_documents(DOCUMENTS, QUERY)
        assert ids(found) == ids(expected)
        assert [one.metadata["relevance_score"] for one in found] == pytest.approx(
            [one.metadata["relevance_score"] for one in expected], abs=1e-5
        )
        assert again.model_dump() == compressor.model_dump()
