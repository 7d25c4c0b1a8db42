"""The in-memory store by langchain-tests' suites and in what users put it into."""

from __future__ import annotations

import numpy as np
import pytest
from langchain_classic.retrievers import ParentDocumentRetriever
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.example_selectors import (
    MaxMarginalRelevanceExampleSelector,
    SemanticSimilarityExampleSelector,
)
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_core.runnables import ConfigurableField
from langchain_core.stores import InMemoryStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from langchain_tests.integration_tests.indexer import (
    AsyncDocumentIndexTestSuite,
    DocumentIndexerTestSuite,
)
from langchain_text_splitters import CharacterTextSplitter
from pydantic import ValidationError
from tests.table import table

from langchain_m3 import M3Embeddings, M3HybridRetriever, M3InMemoryVectorStore, M3SparseRetriever
from m3_core.errors import IndexFileError

TEXTS = ["Pandas eat bamboo.", "Bears eat fish.", "Trains go to Berlin.", "A panda is a bear."]
QUERY = "What do pandas eat?"


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self):
        return M3InMemoryVectorStore(model_name=str(table()))


class TestReranking(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self):
        return M3InMemoryVectorStore(model_name=str(table()), rerank=True, fusion="rrf")


class TestDocumentIndex(DocumentIndexerTestSuite):
    @pytest.fixture
    def index(self):
        return M3InMemoryVectorStore(model_name=str(table()))


class TestAsyncDocumentIndex(AsyncDocumentIndexTestSuite):
    @pytest.fixture
    async def index(self):
        return M3InMemoryVectorStore(model_name=str(table()))


@pytest.fixture
def store(table_encoder) -> M3InMemoryVectorStore:
    metadatas = [{"n": i, "tags": [i]} for i in range(4)]
    return M3InMemoryVectorStore.from_texts(
        TEXTS, M3Embeddings(encoder=table_encoder), metadatas, ids=list("abcd")
    )


def names(documents: list[Document]) -> list[str | None]:
    return [one.id for one in documents]


def test_it_searches_as_the_hybrid_retriever_over_the_same_documents(table_encoder, store) -> None:
    retriever = store.hybrid_retriever(k=3)
    assert type(retriever) is M3HybridRetriever
    alone = M3HybridRetriever.from_texts(TEXTS, ids=list("abcd"), encoder=table_encoder)
    expected = [(d.id, score) for d, score, _ in alone.search_with_scores(QUERY)]
    for found in (
        [(d.id, score) for d, score in store.similarity_search_with_score(QUERY)],
        [(d.id, score) for d, score, _ in store.search_with_scores(QUERY)],
        [(d.id, score) for d, score, _ in retriever.search_with_scores(QUERY, 4)],
    ):
        assert [one for one, _ in found] == [one for one, _ in expected]
        assert [s for _, s in found] == pytest.approx([s for _, s in expected], abs=1e-6)
    assert store.invoke(QUERY) == store.similarity_search(QUERY)
    assert store.as_retriever(search_kwargs={"k": 3}).invoke(QUERY) == retriever.invoke(QUERY)
    retriever.add_texts([QUERY], ids=["new"])
    assert names(store.similarity_search(QUERY, k=1)) == ["new"]
    assert M3InMemoryVectorStore(collection=alone.collection).get_by_ids(["a"])[0].id == "a"
    sparse = M3SparseRetriever(collection=store.collection)
    assert names(sparse.invoke(QUERY, k=1)) == ["new"]


async def test_by_vector_by_relevance_and_for_diversity(store) -> None:
    vector = store.embeddings.embed_query(QUERY)
    vectors = store.embeddings.embed_documents(TEXTS)
    cosines = [sum(map(lambda x, y: x * y, vector, other)) for other in vectors]
    order = sorted(range(4), key=lambda i: -cosines[i])
    by_vector = store.similarity_search_by_vector(vector)
    assert by_vector == await store.asimilarity_search_by_vector(vector)
    assert names(by_vector) == ["abcd"[i] for i in order]
    best = store.similarity_search_with_score(QUERY, k=1, weights=(1, 0, 0))[0][1]
    assert best == pytest.approx(max(cosines), abs=1e-5)
    relevant = store.similarity_search_with_relevance_scores(QUERY, score_threshold=0.0)
    assert all(0 <= score <= 1 for _, score in relevant)
    ranked = store.similarity_search_with_relevance_scores(QUERY, k=1, score_threshold=0.2)
    assert names([one for one, _ in ranked]) == ["a"]
    nearest = maximal_marginal_relevance(np.array(vector), vectors, 0.1, 3)
    for found in (
        store.max_marginal_relevance_search(QUERY, k=3, lambda_mult=0.1),
        await store.amax_marginal_relevance_search(QUERY, k=3, lambda_mult=0.1),
        store.max_marginal_relevance_search_by_vector(vector, k=3, lambda_mult=0.1),
        await store.amax_marginal_relevance_search_by_vector(vector, k=3, lambda_mult=0.1),
    ):
        assert names(found) == ["abcd"[i] for i in nearest]
    assert len(store.max_marginal_relevance_search(QUERY, k=2, filter={"n": 1})) == 1
    diverse = store.as_retriever(search_type="mmr", search_kwargs={"k": 2, "fetch_k": 4})
    assert len(diverse.invoke(QUERY)) == 2
    found = await store.asimilarity_search(QUERY, filter={"n": 1})
    found[0].metadata["tags"].append("changed")
    assert store.get_by_ids(["b"])[0].metadata["tags"] == [1]


def test_relevance_by_rank_is_one_for_what_is_first_everywhere(table_encoder) -> None:
    store = M3InMemoryVectorStore(encoder=table_encoder, fusion="rrf")
    store.add_texts([QUERY, *TEXTS])
    ((first, score),) = store.similarity_search_with_relevance_scores(QUERY, k=1)
    assert (first.page_content, score) == (QUERY, pytest.approx(1.0))


@pytest.mark.parametrize("cleanup", ["incremental", "full"])
async def test_indexing_with_a_record_manager(table_encoder, cleanup) -> None:
    def documents(*texts: str) -> list[Document]:
        return [Document(page_content=text, metadata={"source": text[0]}) for text in texts]

    def settings(manager: InMemoryRecordManager) -> dict[str, object]:
        manager.create_schema()
        return {"cleanup": cleanup, "source_id_key": "source", "key_encoder": "sha256"}

    for run_async in (False, True):
        store = M3InMemoryVectorStore(encoder=table_encoder)
        manager = InMemoryRecordManager("m3")
        options = settings(manager)

        async def run(*texts: str) -> tuple[int, int, int]:
            args = (documents(*texts), manager, store)  # noqa: B023
            kept = options  # noqa: B023
            done = await aindex(*args, **kept) if run_async else index(*args, **kept)  # noqa: B023
            return done["num_added"], done["num_skipped"], done["num_deleted"]

        assert await run("a one", "a two", "b one") == (3, 0, 0)
        assert await run("a one", "a two", "b one") == (0, 3, 0)
        assert await run("a one", "a three") == (1, 1, 1 if cleanup == "incremental" else 2)
        kept = {"a one", "a three"} | ({"b one"} if cleanup == "incremental" else set())
        assert {one.page_content for one in store.similarity_search("one", k=9)} == kept


def test_parents_of_what_was_found(table_encoder) -> None:
    retriever = ParentDocumentRetriever(
        vectorstore=M3InMemoryVectorStore(encoder=table_encoder),
        docstore=InMemoryStore(),
        child_splitter=CharacterTextSplitter(separator=". ", chunk_size=20, chunk_overlap=0),
        search_kwargs={"k": 1},
    )
    parents = [
        Document(page_content="Pandas eat bamboo. They sleep a lot."),
        Document(page_content="Trains go to Berlin. They are fast."),
    ]
    retriever.add_documents(parents)
    assert retriever.invoke(QUERY) == parents[:1]


@pytest.mark.parametrize(
    "selector", [SemanticSimilarityExampleSelector, MaxMarginalRelevanceExampleSelector]
)
async def test_example_selectors(table_encoder, selector) -> None:
    examples = [{"input": text, "output": str(i)} for i, text in enumerate(TEXTS)]
    embeddings = M3Embeddings(encoder=table_encoder)
    made = selector.from_examples(examples, embeddings, M3InMemoryVectorStore, k=2)
    assert made.select_examples({"input": QUERY})[0] == examples[0]
    assert len(await made.aselect_examples({"input": QUERY})) == 2
    made.add_example({"input": QUERY, "output": "new"})
    assert made.select_examples({"input": QUERY})[0]["output"] == "new"
    with pytest.raises(TypeError, match="got DeterministicFakeEmbedding"):
        selector.from_examples(examples, DeterministicFakeEmbedding(size=3), M3InMemoryVectorStore)


async def test_files_rebuilding_and_errors(table_encoder, store, tmp_path) -> None:
    store.save(tmp_path / "saved")
    again = M3InMemoryVectorStore.load(tmp_path / "saved", M3Embeddings(encoder=table_encoder))
    assert again.similarity_search(QUERY) == store.similarity_search(QUERY)
    retriever = M3HybridRetriever.load(tmp_path / "saved", encoder=table_encoder)
    assert retriever.invoke(QUERY) == store.invoke(QUERY)
    with pytest.raises(IndexFileError, match="other representations"):
        M3InMemoryVectorStore.load(tmp_path / "saved", encoder=table_encoder, rerank=True)
    two = store.configurable_fields(k=ConfigurableField(id="k")).with_config(configurable={"k": 2})
    assert two.invoke(QUERY) == store.invoke(QUERY)[:2]
    with pytest.raises(ValueError, match="ids must be given"):
        store.delete()
    with pytest.raises(TypeError, match="got fetchk="):
        store.similarity_search(QUERY, fetchk=3)
    with pytest.raises(TypeError, match="delete takes ids alone; got namespace"):
        store.delete(["a"], namespace="x")
    response = await store.adelete(["a", "unknown", "c"])
    assert (response["succeeded"], response["num_deleted"]) == (["a", "c"], 2)
    documents = [Document(id="x", page_content="Pandas")]
    made = await M3InMemoryVectorStore.afrom_documents(documents, encoder=table_encoder)
    assert made.get(["x"]) == M3InMemoryVectorStore.from_documents(
        documents, M3Embeddings(encoder=table_encoder)
    ).get(["x"])


def test_options_that_there_are_not_are_errors(table_encoder) -> None:
    with pytest.raises(ValidationError, match=r"no option 'rerankk' \(is 'rerank' meant\?\)"):
        M3InMemoryVectorStore(encoder=table_encoder, rerankk=True)
    with pytest.raises(ValidationError, match=r"three numbers \(dense, sparse, colbert\)"):
        M3InMemoryVectorStore(encoder=table_encoder, weights=(1, 1))
    with pytest.raises(TypeError, match=r"search_kwargs=, .*; got k="):
        M3InMemoryVectorStore(encoder=table_encoder).as_retriever(k=1)
