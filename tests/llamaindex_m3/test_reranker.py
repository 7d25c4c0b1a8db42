from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from pydantic import Field, ValidationError

from llamaindex_m3 import M3Embedding, M3Reranker
from m3_core import Encoder
from m3_core.errors import MissingRepresentationError

QUERY = "what is a panda"
TEXTS = ["river", "a panda is a bear", "", "city model", "a panda is a bear", "water world"]


@pytest.fixture
def nodes() -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(text=text, id_=str(i), metadata={"n": i}), score=0.1 * i)
        for i, text in enumerate(TEXTS)
    ]


def ranking(nodes: list[NodeWithScore]) -> list[tuple[int, float]]:
    return [(int(node.node.node_id), node.score) for node in nodes]


def expected(encoder: Encoder, nodes: list[NodeWithScore], weights) -> list[tuple[int, float]]:
    pairs = [(QUERY, node.node.get_content(MetadataMode.EMBED)) for node in nodes]
    scores = encoder.compute_score(pairs, weights=weights)["colbert+sparse+dense"]
    return sorted(enumerate(scores), key=lambda pair: -pair[1])


@pytest.mark.parametrize("weights", [(1.0, 0.3, 1.0), (0.4, 0.2, 0.4), (1, 0, 0), (0, 1, 0)])
def test_scores_are_the_cores_and_nodes_copies(encoder, nodes, weights) -> None:
    before = copy.deepcopy(nodes)
    found = M3Reranker(encoder=encoder, weights=weights).postprocess_nodes(nodes, query_str=QUERY)
    assert nodes == before
    best = expected(encoder, nodes, weights)
    assert [score for _, score in ranking(found)] == pytest.approx([s for _, s in best], abs=1e-5)
    assert dict(ranking(found)) == pytest.approx(dict(best), abs=1e-5)
    assert all(type(node.score) is float for node in found)
    assert M3Reranker(encoder=encoder).postprocess_nodes([], query_str=QUERY) == []


async def test_top_n_threshold_and_async(fresh_table, passes, nodes) -> None:
    everything = M3Reranker(encoder=fresh_table).postprocess_nodes(nodes, QueryBundle(QUERY))
    assert sum(passes) == len({node.node.get_content(MetadataMode.EMBED) for node in nodes}) + 1
    third = everything[2].score
    for options, count in (
        ({"top_n": 2}, 2),
        ({"top_n": 9}, 6),
        ({"score_threshold": third}, sum(node.score >= third for node in everything)),
        (
            {"score_threshold": math.nextafter(third, 9.0)},
            sum(node.score > third for node in everything),
        ),
        ({"score_threshold": 9.0}, 0),
    ):
        reranker = M3Reranker(encoder=fresh_table, **options)
        kept = reranker.postprocess_nodes(nodes, QueryBundle(QUERY))
        assert kept == everything[:count]
        assert await reranker.apostprocess_nodes(nodes, QueryBundle(QUERY)) == kept
    passes.clear()
    passes.threads.clear()
    assert await M3Reranker(encoder=fresh_table).apostprocess_nodes([], query_str=QUERY) == []
    await M3Reranker(encoder=fresh_table).apostprocess_nodes(nodes, query_str="another")
    assert passes == [1]
    assert all(name.startswith("m3-processor") for name in passes.threads)


def test_the_retrievers_score_is_kept_on_demand(encoder, nodes) -> None:
    reranker = M3Reranker(encoder=encoder, keep_retrieval_score=True)
    found = reranker.postprocess_nodes(nodes, query_str=QUERY)
    for node in found:
        assert node.node.metadata["retrieval_score"] == 0.1 * int(node.node.node_id)
        assert "retrieval_score" not in node.node.get_content(MetadataMode.EMBED)
    assert all(node.node.metadata == {"n": i} for i, node in enumerate(nodes))
    # In another order of the nodes, sums of float32 differ in the last digit.
    again = reranker.postprocess_nodes(found, query_str=QUERY)
    assert [node.node.node_id for node in again] == [node.node.node_id for node in found]
    assert [node.score for node in again] == pytest.approx([node.score for node in found], abs=1e-6)


class _Listener(BaseEventHandler):
    seen: list = Field(default_factory=list)

    @classmethod
    def class_name(cls):
        return "_Listener"

    def handle(self, event, **_):
        if "ReRank" in event.class_name():
            self.seen.append(event)


async def test_events_and_callbacks(encoder, nodes) -> None:
    root, listener, debug = get_dispatcher("root"), _Listener(), LlamaDebugHandler(False)
    handlers = list(root.event_handlers)
    root.add_event_handler(listener)
    reranker = M3Reranker(encoder=encoder, top_n=2, callback_manager=CallbackManager([debug]))
    try:
        found = reranker.postprocess_nodes(nodes, query_str=QUERY)
        await reranker.apostprocess_nodes(nodes, query_str=QUERY)
    finally:
        root.event_handlers = handlers
    start, end = listener.seen[:2]
    assert (start.query, start.top_n, start.model_name) == (QUERY, 2, encoder.name)
    assert (start.nodes, end.nodes) == (nodes, found)
    assert len(listener.seen) == 4
    pairs = debug.get_event_pairs(CBEventType.RERANKING)
    assert len(pairs) == 2
    for first, last in pairs:
        assert first.payload["query_str"] == QUERY
        assert first.payload["model_name"] == encoder.name
        assert first.payload["top_k"] == 2
        assert last.payload["nodes"] == found


def test_serialisation_and_pickles(tiny_m3: Path, nodes) -> None:
    reranker = M3Reranker(model_name=str(tiny_m3), device="cpu", top_n=2, weights=(1, 0, 1))
    stored = reranker.to_dict()
    assert (stored["class_name"], stored["top_n"]) == ("M3Reranker", 2)
    assert stored["weights"] == (1.0, 0.0, 1.0)
    assert stored.keys().isdisjoint({"device", "token", "encoder", "show_progress"})
    again = pickle.loads(pickle.dumps(reranker))
    assert again._encodings._opened is None
    assert again.to_dict() == stored
    found = reranker.postprocess_nodes(nodes, query_str=QUERY)
    assert again.postprocess_nodes(nodes, query_str=QUERY) == found
    assert M3Reranker.from_dict(stored).to_dict() == stored


def test_bad_input(encoder, tiny_dense: Path, nodes) -> None:
    for options in ({"top_n": 0}, {"topn": 3}, {"weights": (0, 0, 0)}, {"weights": (1, 1)}):
        with pytest.raises(ValidationError, match=next(iter(options))):
            M3Reranker(encoder=encoder, **options)
    for options in ({"weights": (-1, 1, 1)}, {"normalize": True}):
        with pytest.raises(ValidationError, match=next(iter(options))):
            M3Reranker(encoder=encoder, **options)
    with pytest.raises(MissingRepresentationError, match="colbert and sparse"):
        M3Reranker(model_name=str(tiny_dense))
    dense = M3Reranker(model_name=str(tiny_dense), weights=(1, 0, 0))
    assert len(dense.postprocess_nodes(nodes, query_str=QUERY)) == 6
    reranker = M3Reranker(encoder=encoder)
    with pytest.raises(ValueError, match="M3Reranker needs the query"):
        reranker.postprocess_nodes(nodes)
    for wrong in (None, "text", [node.node for node in nodes]):
        with pytest.raises(TypeError, match="nodes must be a list of NodeWithScore"):
            reranker.postprocess_nodes(wrong, query_str=QUERY)


async def test_query_engine_end_to_end(fresh_table, passes, corpus) -> None:
    nodes = [
        TextNode(text=document["text"], id_=document["id"], metadata={"topic": document["topic"]})
        for document in corpus["documents"]
    ]
    embedding = M3Embedding(encoder=fresh_table)
    reranker = M3Reranker(encoder=fresh_table, top_n=3)
    engine = RetrieverQueryEngine.from_args(
        VectorStoreIndex(nodes, embed_model=embedding).as_retriever(similarity_top_k=20),
        llm=MockLLM(),
        node_postprocessors=[reranker],
    )
    # The index keeps no multi-vectors, so its pass does not compute them.
    assert sum(passes) == len(nodes)
    read = 0
    for query in corpus["queries"]:
        passes.clear()
        answer = engine.query(query["text"])
        # The query once, for both; then the candidates that were not read before.
        assert passes[0] == 1
        read += sum(passes[1:])
        assert len(answer.source_nodes) == 3
        assert query["topic"] in {node.node.metadata["topic"] for node in answer.source_nodes}
        assert "topic: " in answer.response
        passes.clear()
        again = await engine.aquery(query["text"])
        assert again.source_nodes == answer.source_nodes
        assert passes == []
    assert read <= len(nodes)
