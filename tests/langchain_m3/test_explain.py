"""``explain`` of LangChain's retrievers, stores and rerankers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from langchain_core.documents import Document
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from langchain_m3 import (
    BGEReranker,
    M3CascadeReranker,
    M3HybridRetriever,
    M3InMemoryVectorStore,
    M3Reranker,
    M3SparseRetriever,
    QdrantHybridStore,
)
from m3_core.errors import UnsupportedModelError
from m3_core.testing import FakeEncoder, tiny_reranker

QUERY = "What do pandas eat?"
TEXTS = ["Bears eat fish.", "Pandas eat bamboo.", "Nothing here."]

MAKERS = {
    "sparse": lambda **o: M3SparseRetriever.from_texts(TEXTS, **o),
    "hybrid": lambda **o: M3HybridRetriever.from_texts(TEXTS, **o),
    "reranking": lambda **o: M3HybridRetriever.from_texts(TEXTS, rerank=True, **o),
    "dense": lambda **o: M3HybridRetriever.from_texts(TEXTS, weights=(1, 0, 0), **o),
    "store": lambda **o: M3InMemoryVectorStore.from_texts(TEXTS, rerank=True, **o),
    "qdrant": lambda **o: QdrantHybridStore.from_texts(TEXTS, rerank=True, **o),
    "qdrant_dense": lambda **o: QdrantHybridStore.from_texts(TEXTS, sparse_vector_name=None, **o),
}


@pytest.fixture(scope="module")
def tiny_reranker_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_reranker(tmp_path_factory.mktemp("explained") / "reranker")


@pytest.mark.parametrize("kind", MAKERS)
async def test_the_score_is_the_search_s_own(kind):
    made = MAKERS[kind](encoder=FakeEncoder())
    document, score, scores = made.search_with_scores(QUERY, k=1)[0]
    explanation = made.explain(QUERY, document)
    assert explanation.document == document.page_content == "Pandas eat bamboo."
    # Multi-vectors are kept in float16.
    assert explanation.score == pytest.approx(score, abs=1e-4)
    for part, value in scores.items():
        assert explanation.scores[part] == pytest.approx(value, abs=1e-4)
    assert (await made.aexplain(QUERY, document)).score == explanation.score
    assert explanation.notes == ()
    assert made.explain(QUERY, document.page_content).words == explanation.words


def test_ranks_are_said_to_depend_on_others():
    for made in (
        M3HybridRetriever.from_texts(TEXTS, encoder=FakeEncoder(), fusion="rrf"),
        QdrantHybridStore.from_texts(TEXTS, encoder=FakeEncoder()),
        QdrantHybridStore.from_texts(TEXTS, encoder=FakeEncoder(), fusion="dbsf"),
    ):
        (note,) = made.explain(QUERY, TEXTS[0]).notes
        assert "weighted mean" in note
        assert note in str(made.explain(QUERY, TEXTS[0]))


def test_rerankers(tiny_reranker_path: Path):
    encoder = FakeEncoder()
    reranker = M3Reranker(encoder=encoder, weights=(1, 0.5, 1))
    (kept,) = reranker.compress_documents([Document(page_content=TEXTS[1])], QUERY)
    score = reranker.explain(QUERY, kept).score
    assert score == pytest.approx(kept.metadata["relevance_score"], abs=1e-6)
    assert M3Reranker(encoder=encoder, weights=(0, 1, 0)).explain(QUERY, kept).alignments == ()
    name = str(tiny_reranker_path)
    with pytest.raises(UnsupportedModelError, match=r"cross-encoder: .* no parts to explain"):
        BGEReranker(model_name=name).explain(QUERY, kept)
    cascade = M3CascadeReranker(encoder=encoder, reranker_name=name)
    (note,) = cascade.explain(QUERY, kept).notes
    assert "the first step, by which 20 documents are kept" in note


def test_what_is_no_document():
    made = MAKERS["sparse"](encoder=FakeEncoder())
    with pytest.raises(TypeError, match=r"of \(document, score\) pass the document"):
        made.explain(QUERY, made.search_with_scores(QUERY)[0])


async def test_traces_have_explanations_when_they_are_asked_for():
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    encoder = FakeEncoder()
    asked = M3HybridRetriever.from_texts(TEXTS, encoder=encoder, trace_explanations=True)
    plain = M3HybridRetriever(collection=asked.collection)
    encoder.calls.clear()
    asked.invoke(QUERY)
    assert [role for role, _ in encoder.calls] == ["query"]
    with provider.get_tracer("test").start_as_current_span("asked"):
        found = asked.invoke(QUERY)
    with provider.get_tracer("test").start_as_current_span("asynchronously"):
        assert await asked.ainvoke(QUERY) == found
    with provider.get_tracer("test").start_as_current_span("plain"):
        assert plain.invoke(QUERY) == found
    first, second, third = exporter.get_finished_spans()
    assert dict(first.attributes) == dict(second.attributes)
    assert dict(third.attributes) == {}
    name = "retrieval.documents.0.document"
    assert first.attributes[f"{name}.id"] == found[0].id
    said = json.loads(first.attributes[f"{name}.metadata"])["m3_explanation"]
    assert [word["document"] for word in said["words"]] == ["Pandas", "eat"]
