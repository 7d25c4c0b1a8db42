import copy
import math
import pickle

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from pydantic import Field, ValidationError

from llamaindex_m3 import BGEReranker, M3CascadeReranker, M3Embedding
from m3_core import Reranker
from m3_core.testing.rerankers import tiny_reranker

QUERY = "what is a panda"
TEXTS = ["river", "a panda is a bear", "", "city model", "a panda is a bear", "water world"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_reranker(tmp_path_factory.mktemp("llamaindex") / "reranker")


@pytest.fixture(scope="module")
def core(folder):
    return Reranker.from_pretrained(folder, device="cpu", dtype="float32")


@pytest.fixture
def nodes():
    return [
        NodeWithScore(node=TextNode(text=text, id_=str(i), metadata={"n": i}), score=0.1 * i)
        for i, text in enumerate(TEXTS)
    ]


def ranking(nodes):
    return [(int(node.node.node_id), node.score) for node in nodes]


def embedded(nodes):
    return [node.node.get_content(MetadataMode.EMBED) for node in nodes]


def test_scores_are_the_cores(folder, core, nodes):
    reranker = BGEReranker(model_name=str(folder), dtype="float32", device="cpu")
    before = copy.deepcopy(nodes)
    found = reranker.postprocess_nodes(nodes, query_str=QUERY)
    assert nodes == before
    assert ranking(found) == core.rank(QUERY, embedded(nodes))
    assert reranker.postprocess_nodes([], query_str=QUERY) == []
    with pytest.raises(ValueError, match="needs the query"):
        reranker.postprocess_nodes(nodes)
    with pytest.raises(TypeError, match="nodes must be a list of NodeWithScore"):
        reranker.postprocess_nodes(None, query_str=QUERY)
    with pytest.raises(TypeError, match="nodes must be a list of NodeWithScore"):
        reranker.postprocess_nodes([node.node for node in nodes], query_str=QUERY)


async def test_async_equals_sync(core, nodes):
    reranker = BGEReranker(reranker=core, top_n=2)
    expected = reranker.postprocess_nodes(nodes, QueryBundle(QUERY))
    assert len(expected) == 2
    assert await reranker.apostprocess_nodes(nodes, QueryBundle(QUERY)) == expected
    assert await reranker.apostprocess_nodes([], QueryBundle(QUERY)) == []
    with pytest.raises(ValueError, match="needs the query"):
        await reranker.apostprocess_nodes(nodes)


def test_the_threshold_is_inclusive(core, nodes):
    scores = [s for _, s in core.rank(QUERY, embedded(nodes), normalize=True)]
    at = BGEReranker(reranker=core, normalize=True, score_threshold=scores[2])
    kept = at.postprocess_nodes(nodes, query_str=QUERY)
    assert [node.score for node in kept] == [s for s in scores if s >= scores[2]]
    limit = math.nextafter(scores[2], 1.0)
    above = BGEReranker(reranker=core, normalize=True, score_threshold=limit)
    assert len(above.postprocess_nodes(nodes, query_str=QUERY)) < len(kept)


def test_the_retrievers_score_is_kept_on_demand(core, nodes):
    reranker = BGEReranker(reranker=core, keep_retrieval_score=True)
    found = reranker.postprocess_nodes(nodes, query_str=QUERY)
    for node in found:
        assert node.node.metadata["retrieval_score"] == 0.1 * int(node.node.node_id)
        assert "retrieval_score" not in node.node.get_content(MetadataMode.EMBED)
        assert "retrieval_score" not in node.node.get_content(MetadataMode.LLM)
    assert all(node.node.metadata == {"n": i} for i, node in enumerate(nodes))


class _Listener(BaseEventHandler):
    seen: list = Field(default_factory=list)

    @classmethod
    def class_name(cls):
        return "_Listener"

    def handle(self, event, **_):
        if "ReRank" in event.class_name():
            self.seen.append((event.class_name(), len(event.nodes)))


def test_listeners_hear_of_it(core, nodes):
    root, listener, debug = get_dispatcher("root"), _Listener(), LlamaDebugHandler(False)
    handlers = list(root.event_handlers)
    root.add_event_handler(listener)
    try:
        reranker = BGEReranker(reranker=core, top_n=2, callback_manager=CallbackManager([debug]))
        reranker.postprocess_nodes(nodes, query_str=QUERY)
    finally:
        root.event_handlers = handlers
    assert listener.seen == [("ReRankStartEvent", 6), ("ReRankEndEvent", 2)]
    ((start, end),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert start.payload["query_str"] == QUERY
    assert start.payload["top_k"] == 2
    assert start.payload["model_name"] == core.name
    assert len(end.payload["nodes"]) == 2


def test_what_changes_scores_is_serialised_and_pickled(folder, nodes):
    reranker = BGEReranker(model_name=str(folder), device="cpu", top_n=2, query_instruction="q: ")
    stored = reranker.to_dict()
    assert stored["class_name"] == "BGEReranker"
    assert stored["query_instruction"] == "q: "
    hidden = {"device", "token", "reranker", "callback_manager", "show_progress"}
    assert stored.keys().isdisjoint(hidden)
    again = pickle.loads(pickle.dumps(reranker))
    assert again.to_dict() == stored
    found = reranker.postprocess_nodes(nodes, query_str=QUERY)
    assert again.postprocess_nodes(nodes, query_str=QUERY) == found


def test_bad_options(core):
    for options in ({"top_n": 0}, {"top_k": 3}):
        with pytest.raises(ValidationError):
            BGEReranker(reranker=core, **options)
    with pytest.raises(ValueError, match="device cannot be set together"):
        BGEReranker(reranker=core, device="cpu")


def test_the_cascade_is_the_cores(tiny_m3, folder, nodes):
    cascade = M3CascadeReranker(
        model_name=str(tiny_m3), reranker_name=str(folder), dtype="float32", first=3, device="cpu"
    )
    found = cascade.postprocess_nodes(nodes, query_str=QUERY)
    assert ranking(found) == cascade._cascade.rank(QUERY, embedded(nodes))
    assert len(found) == 3
    assert cascade.to_dict()["class_name"] == "M3CascadeReranker"


async def test_query_engine_end_to_end(tiny_m3, encoder, core, nodes):
    embedding = M3Embedding(model_name=str(tiny_m3))
    full = [node.node for node in nodes if node.node.text]
    index = VectorStoreIndex(full, embed_model=embedding)
    for reranker in (
        BGEReranker(reranker=core, top_n=2),
        M3CascadeReranker(encoder=encoder, reranker=core, first=3, top_n=2),
    ):
        engine = RetrieverQueryEngine.from_args(
            index.as_retriever(similarity_top_k=5), llm=MockLLM(), node_postprocessors=[reranker]
        )
        answer = engine.query(QUERY)
        assert len(answer.source_nodes) == 2
        scores = [node.score for node in answer.source_nodes]
        assert scores == sorted(scores, reverse=True)
        again = await engine.aquery(QUERY)
        assert ranking(again.source_nodes) == ranking(answer.source_nodes)
