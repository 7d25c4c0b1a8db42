import copy
import math
import pickle

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from pydantic import Field, ValidationError

from llamaindex_m3 import BGEReranker, M3CascadeReranker, M3Embedding, M3Reranker
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


class _Spans(BaseEventHandler):
    seen: list = Field(default_factory=list)

    @classmethod
    def class_name(cls):
        return "_Spans"

    def handle(self, event, **_):
        self.seen.append((event.class_name(), event.span_id))


@pytest.mark.parametrize("kind", [BGEReranker, M3Reranker, M3CascadeReranker])
async def test_events_lie_in_the_rerankers_only_span(kind, encoder, core, nodes, monkeypatch):
    reranker = {
        BGEReranker: lambda: BGEReranker(reranker=core),
        M3Reranker: lambda: M3Reranker(encoder=encoder),
        M3CascadeReranker: lambda: M3CascadeReranker(encoder=encoder, reranker=core),
    }[kind]()
    root, listener, spans = get_dispatcher("root"), _Spans(), SimpleSpanHandler()
    monkeypatch.setattr(root, "event_handlers", [listener])
    monkeypatch.setattr(root, "span_handlers", [spans])
    reranker.postprocess_nodes(nodes, query_str=QUERY)
    await reranker.apostprocess_nodes(nodes, query_str=QUERY)
    assert spans.open_spans == {}
    assert [span.id_.rsplit("-", 5)[0] for span in spans.completed_spans] == [
        f"{kind.__name__}._postprocess_nodes",
        f"{kind.__name__}._apostprocess_nodes",
    ]
    expected = [
        (name, span.id_)
        for span in spans.completed_spans
        for name in ("ReRankStartEvent", "ReRankEndEvent")
    ]
    assert listener.seen == expected


def test_what_is_assigned_takes_effect(folder, core, nodes):
    reranker = BGEReranker(model_name=str(folder), dtype="float32", device="cpu")
    plain = reranker.to_dict()
    for name, value in (("max_length", 12), ("query_instruction", "q: ")):
        setattr(reranker, name, value)
        expected = core.with_options(**{name: value})
        assert reranker.to_dict() == plain | {name: value}
        assert reranker._reranker.options == expected.options
        assert pickle.loads(pickle.dumps(reranker))._reranker.options == expected.options
        setattr(reranker, name, None)
        assert reranker.to_dict() == plain
        assert reranker._reranker.options == core.options
    reranker.top_n, reranker.normalize, reranker.keep_retrieval_score = 3, True, True
    found = reranker.postprocess_nodes(nodes, query_str=QUERY)
    expected = core.rank(QUERY, embedded(nodes), 3, normalize=True)
    assert [one for one, _ in ranking(found)] == [one for one, _ in expected]
    assert all("retrieval_score" in one.node.metadata for one in found)
    for name, value in (("top_n", 0), ("max_length", "many"), ("max_length", 10**6)):
        with pytest.raises(ValueError, match=name):
            setattr(reranker, name, value)
    for name in ("model_name", "device", "dtype", "reranker"):
        with pytest.raises(ValidationError, match="make a new object, BGEReranker"):
            setattr(reranker, name, "other")


def test_a_cascade_and_m3s_scores_follow_assignments(encoder, core, nodes):
    cascade = M3CascadeReranker(encoder=encoder, reranker=core)
    cascade.first, cascade.weights = 2, (1, 0, 0)
    reranker = M3Reranker(encoder=encoder, weights=(1, 0, 0))
    reranker.weights = (0.4, 0.2, 0.4)
    for assigned, made in (
        (
            cascade,
            M3CascadeReranker(encoder=encoder, reranker=core, first=2, weights=(1, 0, 0)),
        ),
        (reranker, M3Reranker(encoder=encoder, weights=(0.4, 0.2, 0.4))),
    ):
        found = assigned.postprocess_nodes(nodes, query_str=QUERY)
        expected = made.postprocess_nodes(nodes, query_str=QUERY)
        assert [one.node.node_id for one in found] == [one.node.node_id for one in expected]
        assert [one.score for one in found] == pytest.approx(
            [one.score for one in expected], abs=1e-6
        )
        assert assigned.to_dict() == made.to_dict()


def test_keywords_of_other_rerankers(folder, core, nodes):
    # FlagEmbeddingReranker's, then SentenceTransformerRerank's.
    for keywords in (
        {"top_n": 2, "model": str(folder), "use_fp16": False},
        {
            "top_n": 2,
            "model": str(folder),
            "device": "cpu",
            "keep_retrieval_score": False,
            "trust_remote_code": True,
            "model_kwargs": {"model_kwargs": {"torch_dtype": "float32"}},
        },
    ):
        reranker = BGEReranker(**keywords)
        assert (reranker.model_name, reranker.dtype) == (str(folder), "float32")
        found = reranker.postprocess_nodes(nodes, query_str=QUERY)
        expected = core.rank(QUERY, embedded(nodes), 2)
        assert [one for one, _ in ranking(found)] == [one for one, _ in expected]
    for keywords, message in (
        ({"use_fp16": True, "dtype": "float32"}, "dtype is set twice"),
        ({"batch_size": 4}, "filled by tokens"),
        ({"model": object()}, "passed as reranker="),
    ):
        with pytest.raises(ValidationError, match=message):
            BGEReranker(**keywords)
    for kind in (M3Reranker, M3CascadeReranker):
        with pytest.raises(ValidationError, match="use_fp16=True cannot be honoured: pass dtype="):
            kind(use_fp16=True)
        with pytest.raises(ValidationError, match="pass model_name="):
            kind(model="BAAI/bge-m3")
