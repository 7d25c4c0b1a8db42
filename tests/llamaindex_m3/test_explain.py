"""``explain`` of LlamaIndex's retrievers, index, store and rerankers."""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_index.core.schema import MetadataMode, QueryBundle, TextNode
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from llamaindex_m3 import (
    BGEReranker,
    M3CascadeReranker,
    M3HybridRetriever,
    M3Index,
    M3Reranker,
    M3SparseRetriever,
    QdrantHybridStore,
)
from m3_core.errors import UnsupportedModelError
from m3_core.testing import FakeEncoder, tiny_reranker

QUERY = "What do pandas eat?"
NODES = [
    TextNode(text=text, metadata={"title": "animals"}, id_=text[:5])
    for text in ("Bears eat fish.", "Pandas eat bamboo.", "Nothing here.")
]
MAKERS = {
    "sparse": lambda **o: M3SparseRetriever.from_nodes(NODES, **o),
    "hybrid": lambda **o: M3HybridRetriever.from_nodes(NODES, **o),
    "reranking": lambda **o: M3HybridRetriever.from_nodes(NODES, rerank=True, **o),
    "index": lambda **o: M3Index(NODES, **o).as_retriever(),
    "colbert": lambda **o: M3Index(NODES, **o).as_retriever(mode="colbert"),
}


@pytest.fixture(scope="module")
def tiny_reranker_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_reranker(tmp_path_factory.mktemp("explained") / "reranker")


@pytest.mark.parametrize("kind", MAKERS)
async def test_the_score_is_the_search_s_own(kind):
    retriever = MAKERS[kind](encoder=FakeEncoder())
    found = retriever.retrieve(QUERY)[0]
    explanation = retriever.explain(QUERY, found)
    # What is encoded is what the embedding would get, metadata included.
    assert explanation.document == found.node.get_content(MetadataMode.EMBED)
    assert explanation.document.startswith("title: animals")
    assert explanation.score == pytest.approx(found.score, abs=1e-4)
    assert (await retriever.aexplain(QueryBundle(QUERY), found.node)).score == explanation.score
    assert "".join(span.text for span in explanation.spans) == explanation.document


async def test_index_and_store():
    encoder = FakeEncoder()
    index = M3Index(NODES, encoder=encoder)
    (found, *_) = index.as_retriever(mode="sparse").retrieve(QUERY)
    explanation = index.explain(QUERY, found, mode="sparse")
    assert explanation.score == pytest.approx(found.score)
    assert (await index.aexplain(QUERY, found, mode="sparse")).score == explanation.score
    store = QdrantHybridStore(encoder=encoder, rerank=True)
    store.add(NODES)
    node, score, scores = store.search_with_scores(QUERY)[0]
    explanation = store.explain(QUERY, node)
    assert explanation.score == pytest.approx(score, abs=1e-4)
    assert explanation.scores["sparse"] == pytest.approx(scores["sparse"])
    (note,) = QdrantHybridStore(encoder=encoder).explain(QUERY, node).notes
    assert "reciprocal rank fusion" in note


def test_rerankers(tiny_reranker_path: Path):
    encoder = FakeEncoder()
    (found, *_) = M3SparseRetriever.from_nodes(NODES, encoder=encoder).retrieve(QUERY)
    reranker = M3Reranker(encoder=encoder)
    (kept,) = reranker.postprocess_nodes([found], query_str=QUERY)
    assert reranker.explain(QUERY, kept).score == pytest.approx(kept.score, abs=1e-6)
    name = str(tiny_reranker_path)
    with pytest.raises(UnsupportedModelError, match="cross-encoder"):
        BGEReranker(model_name=name).explain(QUERY, kept)
    cascade = M3CascadeReranker(encoder=encoder, reranker_name=name)
    assert "first step" in cascade.explain(QUERY, kept).notes[0]
    with pytest.raises(TypeError, match="nodes must be LlamaIndex nodes; got int"):
        reranker.explain(QUERY, 1)


async def test_traces_have_explanations_when_they_are_asked_for():
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    retriever = M3HybridRetriever.from_nodes(NODES, encoder=FakeEncoder(), trace_explanations=True)
    with provider.get_tracer("test").start_as_current_span("one"):
        found = retriever.retrieve(QUERY)
    with provider.get_tracer("test").start_as_current_span("two"):
        await retriever.aretrieve(QUERY)
    one, two = exporter.get_finished_spans()
    assert one.attributes["retrieval.documents.0.document.id"] == found[0].node_id == "Panda"
    assert dict(one.attributes) == dict(two.attributes)
    retriever.trace_explanations = False
    with provider.get_tracer("test").start_as_current_span("three"):
        retriever.retrieve(QUERY)
    assert dict(exporter.get_finished_spans()[2].attributes) == {}
