from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_classic.retrievers import EnsembleRetriever
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_tests.integration_tests import RetrieversIntegrationTests
from pydantic import ValidationError
from tests.conftest import make_text
from tests.table import CORPUS, table

from langchain_m3 import M3HybridRetriever, M3SparseRetriever
from m3_core.errors import FilterError, IndexFileError, MissingRepresentationError
from m3_core.testing import FakeEncoder

# A random head gives few tokens a weight; this query shares one with all texts but the first.
TEXTS = [make_text(i, 8) for i in range(6)]
QUERY = "world water der Fluss und Stadt"
KINDS = [
    (M3SparseRetriever, {}),
    (M3HybridRetriever, {}),
    (M3HybridRetriever, {"rerank": True}),
    (M3HybridRetriever, {"fusion": "rrf"}),
]


class _Params:
    kind: type = M3SparseRetriever

    @property
    def retriever_constructor(self):
        return self.kind.from_texts

    @property
    def retriever_constructor_params(self) -> dict:
        corpus = CORPUS["documents"]
        return {"texts": [document["text"] for document in corpus], "model_name": str(table())}

    @property
    def retriever_query_example(self) -> str:
        return "What does a giant panda eat in the forests of China?"


class TestSparseStandard(_Params, RetrieversIntegrationTests):
    pass


class TestHybridStandard(_Params, RetrieversIntegrationTests):
    kind = M3HybridRetriever


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_documents_ids_scores_filters_and_files(encoder, tmp_path, kind, options) -> None:
    documents = [
        Document(id=str(i), page_content=text, metadata={"even": i % 2 == 0})
        for i, text in enumerate(TEXTS)
    ]
    retriever = kind.from_documents(documents, encoder=encoder, k=3, **options)
    found = retriever.invoke(QUERY)
    assert len(found) == len(retriever) - 3 == 3
    assert found == [documents[int(document.id)] for document in found]
    assert [set(document.metadata) for document in documents] == [{"even"}] * 6
    odd = retriever.invoke(QUERY, filter={"even": False}, k=5)
    assert {document.id for document in odd} <= {"1", "3", "5"}
    assert odd
    assert retriever.invoke(QUERY, filter={"colour": "red"}) == []
    assert retriever.invoke(QUERY, filter=lambda metadata: False) == []
    one_of = retriever.invoke(QUERY, filter={"even": {"$in": [False, "no"]}}, k=5)
    assert one_of == odd
    with pytest.raises(FilterError, match=r"'even'.*\$in"):
        retriever.invoke(QUERY, filter={"even": [False, True]})
    assert len(retriever.invoke(QUERY, k=100)) >= 5
    with pytest.raises(ValueError, match="k must be at least 1"):
        retriever.invoke(QUERY, k=0)
    assert retriever.delete(["1", "unknown"]) == 1
    assert retriever.add_documents([Document(id="2", page_content="Fluss")]) == ["2"]
    assert retriever.add_documents([]) == []
    assert "1" not in {document.id for document in retriever.invoke(QUERY, k=9)}
    retriever.save(tmp_path / "saved")
    again = kind.load(tmp_path / "saved", encoder=encoder, k=3, **options)
    assert again.invoke(QUERY) == retriever.invoke(QUERY)
    with pytest.raises(IndexFileError, match="another model"):
        kind.load(tmp_path / "saved", encoder=encoder, max_length=77, **options)


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_empty_retrievers_and_wrong_options(encoder, tiny_dense, kind, options) -> None:
    retriever = kind(encoder=encoder, **options)
    assert retriever.invoke(QUERY) == []
    assert kind.from_texts([], encoder=encoder, **options).invoke(QUERY) == []
    for wrong in ({"k": 0}, {"kay": 3}):
        with pytest.raises(ValidationError):
            kind(encoder=encoder, **wrong)
    with pytest.raises(ValueError, match="id 'a' comes more than once"):
        retriever.add_texts(["x", "y"], ids=["a", "a"])
    with pytest.raises(TypeError, match="wrap a single text in a list"):
        retriever.add_texts("a text")
    with pytest.raises(TypeError, match="got str: for texts there are from_texts"):
        retriever.add_documents(["a text"])
    assert len(retriever) == 0
    with pytest.raises(MissingRepresentationError, match="sparse is needed"):
        kind(model_name=str(tiny_dense))


@pytest.mark.parametrize(("kind", "options"), KINDS)
async def test_concurrent_searches_give_the_serial_results(encoder, kind, options) -> None:
    texts = [make_text(i, 4) for i in range(30)]
    retriever = kind.from_texts(texts, ids=list(map(str, range(30))), encoder=encoder, **options)
    queries = [make_text(i, 2) for i in range(40)]
    expected = [[document.id for document in retriever.invoke(query)] for query in queries]
    found = await asyncio.gather(*(retriever.ainvoke(queries[i % 40]) for i in range(200)))
    assert [[d.id for d in documents] for documents in found] == expected * 5
    with ThreadPoolExecutor(64) as pool:
        threaded = list(pool.map(retriever.invoke, queries))
    assert [[d.id for d in documents] for documents in threaded] == expected


def test_a_text_is_encoded_once() -> None:
    encoder = FakeEncoder()
    retriever = M3HybridRetriever.from_texts(TEXTS, encoder=encoder, rerank=True)
    retriever.invoke(QUERY)
    assert encoder.calls == [("document", 6), ("query", 1)]


async def test_ensembles(encoder) -> None:
    hybrid = M3HybridRetriever.from_texts(TEXTS, encoder=encoder, ids=list("abcdef"), k=2)
    sparse = M3SparseRetriever.from_texts(TEXTS, encoder=encoder, ids=list("abcdef"), k=2)
    both = EnsembleRetriever(retrievers=[hybrid, sparse], weights=[0.5, 0.5])
    assert {document.id for document in both.invoke(QUERY)} <= set("bcdef")


class _ExtractiveModel(FakeListChatModel):
    """Says the first line of its prompt that is a context."""

    def _call(self, messages, *args, **kwargs) -> str:
        return messages[-1].content.splitlines()[1]


async def test_a_rag_chain_answers_from_what_was_found(m3_small, corpus) -> None:
    documents = [
        Document(id=one["id"], page_content=one["text"], metadata={"topic": one["topic"]})
        for one in corpus["documents"]
    ]
    retriever = M3HybridRetriever.from_documents(documents, encoder=m3_small, k=3, rerank=True)
    chain = (
        {
            "context": retriever | (lambda found: "\n".join(d.page_content for d in found)),
            "question": RunnablePassthrough(),
        }
        | ChatPromptTemplate.from_template("Context:\n{context}\nQuestion: {question}")
        | _ExtractiveModel(responses=[])
        | StrOutputParser()
    )
    topics = {one["text"]: one["topic"] for one in corpus["documents"]}
    questions = [query["text"] for query in corpus["queries"]]
    answers = chain.batch(questions)
    assert [topics[answer] for answer in answers] == [one["topic"] for one in corpus["queries"]]
    assert [await chain.ainvoke(question) for question in questions] == answers


def test_repr_shows_the_effective_instruction(encoder) -> None:
    retriever = M3SparseRetriever(encoder=encoder.with_options(query_instruction="find: "))
    assert "query_instruction='find: '" in repr(retriever)
