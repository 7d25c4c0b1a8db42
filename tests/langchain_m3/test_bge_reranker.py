import copy
import math
import pickle

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document
from langchain_core.tracers.base import BaseTracer
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from langchain_m3 import (
    BGEReranker,
    M3CascadeReranker,
    M3Embeddings,
    M3Reranker,
    M3SparseRetriever,
)
from m3_core import Reranker
from m3_core.errors import NonFiniteError
from m3_core.testing.rerankers import tiny_reranker

QUERY = "what is a panda"
TEXTS = ["river", "a panda is a bear", "", "city model", "a panda is a bear", "water world"]
PAIRS = [(QUERY, text) for text in TEXTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_reranker(tmp_path_factory.mktemp("langchain") / "reranker")


@pytest.fixture(scope="module")
def core(folder):
    return Reranker.from_pretrained(folder, device="cpu", dtype="float32")


@pytest.fixture
def documents():
    return [Document(text, id=str(i), metadata={"n": [i]}) for i, text in enumerate(TEXTS)]


def test_scores_are_the_cores(folder, core, documents):
    reranker = BGEReranker(model_name=str(folder), dtype="float32", device="cpu")
    assert isinstance(reranker, BaseCrossEncoder)
    assert reranker.score(PAIRS) == pytest.approx(core.compute_score(PAIRS), abs=2e-6)
    before = copy.deepcopy(documents)
    ranked = reranker.compress_documents(documents, QUERY)
    assert documents == before
    expected = core.rank(QUERY, TEXTS)
    assert [(int(d.id), d.metadata["relevance_score"]) for d in ranked] == expected
    assert [d.metadata["n"] for d in ranked] == [[i] for i, _ in expected]
    assert reranker.compress_documents([], QUERY) == []
    assert reranker.score([]) == []


def test_options_reach_the_core(folder, core):
    options = {"max_length": 12, "query_max_length": 3, "query_instruction": "q: "}
    reranker = BGEReranker(model_name=str(folder), dtype="float32", device="cpu", **options)
    with pytest.warns(UserWarning, match="cut"):
        scores = reranker.score([(QUERY, "panda " * 30)])
    with pytest.warns(UserWarning, match="cut"):
        expected = core.with_options(**options).compute_score([(QUERY, "panda " * 30)])
    assert scores == expected


def test_top_n_and_an_inclusive_threshold(core, documents):
    ranked = core.rank(QUERY, TEXTS, normalize=True)
    threshold = ranked[2][1]
    reranker = BGEReranker(reranker=core, normalize=True, score_threshold=threshold)
    kept = reranker.compress_documents(documents, QUERY)
    assert kept[-1].metadata["relevance_score"] == threshold
    assert len(kept) == sum(score >= threshold for _, score in ranked)
    above = BGEReranker(
        reranker=core, normalize=True, score_threshold=math.nextafter(threshold, 1.0)
    )
    assert len(above.compress_documents(documents, QUERY)) < len(kept)
    assert len(BGEReranker(reranker=core, top_n=2).compress_documents(documents, QUERY)) == 2


class _Events(BaseCallbackHandler):
    def __init__(self):
        self.seen = []

    def on_custom_event(self, name, data, **_):
        self.seen.append((name, data["num_documents"], len(data["scores"])))


async def test_async_equals_sync_and_callbacks_hear_of_it(core, documents):
    reranker, events = BGEReranker(reranker=core, top_n=3), _Events()
    expected = reranker.compress_documents(documents, QUERY, callbacks=[events])
    assert await reranker.acompress_documents(documents, QUERY, callbacks=[events]) == expected
    assert events.seen == [("bge_rerank", 6, 3)] * 2


def test_pickling_keeps_options_and_scores(folder):
    reranker = BGEReranker(model_name=str(folder), device="cpu", normalize=True, top_n=2)
    again = pickle.loads(pickle.dumps(reranker))
    assert again.model_dump() == reranker.model_dump()
    assert again.score(PAIRS) == reranker.score(PAIRS)


def test_bad_input(folder, core):
    reranker = BGEReranker(reranker=core)
    for pairs in (None, [None], ["text"], [("a", "b", "c")]):
        with pytest.raises(TypeError, match="pair"):
            reranker.score(pairs)
    for documents in (None, "text", ["text"]):
        with pytest.raises(TypeError, match="documents must be a list of Document"):
            reranker.compress_documents(documents, QUERY)
    with pytest.raises(ValidationError):
        BGEReranker(reranker=core, top_k=3)
    with pytest.raises(ValidationError):
        BGEReranker(reranker=core, top_n=0)
    with pytest.raises(ValueError, match="device cannot be set together"):
        BGEReranker(reranker=core, device="cpu")
    with pytest.raises(TypeError, match=r"must be an m3_core\.Reranker"):
        BGEReranker(reranker=object())


def test_scores_that_are_no_numbers_are_an_error(folder, documents):
    broken = Reranker.from_pretrained(folder, device="cpu", dtype="float32")
    broken.model.network.network.backbone.words.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="NaN"):
        BGEReranker(reranker=broken).compress_documents(documents, QUERY)


async def test_contextual_compression_end_to_end(tiny_m3, encoder, core, documents):
    store = InMemoryVectorStore(M3Embeddings(model_name=str(tiny_m3)))
    store.add_documents(documents)
    base = store.as_retriever(search_kwargs={"k": 6})
    plain = ContextualCompressionRetriever(
        base_compressor=BGEReranker(reranker=core, top_n=3), base_retriever=base
    )
    found = plain.invoke(QUERY)
    scores = [document.metadata["relevance_score"] for document in found]
    assert scores == pytest.approx([s for _, s in core.rank(QUERY, TEXTS, 3)], abs=2e-6)
    assert [d.page_content for d in await plain.ainvoke(QUERY)] == [d.page_content for d in found]
    cascade = M3CascadeReranker(encoder=encoder, reranker=core, first=4, top_n=2)
    both = ContextualCompressionRetriever(base_compressor=cascade, base_retriever=base)
    assert len(both.invoke(QUERY)) == 2


def test_the_cascade_is_the_cores(tiny_m3, folder, encoder, core, documents):
    cascade = M3CascadeReranker(
        model_name=str(tiny_m3), reranker_name=str(folder), dtype="float32", first=3, device="cpu"
    )
    before = copy.deepcopy(documents)
    found = cascade.compress_documents(documents, QUERY)
    assert documents == before
    expected = cascade._cascade.compute(QUERY, TEXTS)
    assert [int(d.id) for d in found] == [one.index for one in expected]
    assert [d.metadata["relevance_score"] for d in found] == [one.score for one in expected]
    assert [d.metadata["first_score"] for d in found] == [one.first_score for one in expected]
    assert cascade.compress_documents([], QUERY) == []
    again = pickle.loads(pickle.dumps(cascade))
    assert again.compress_documents(documents, QUERY) == found


class _Runs(BaseTracer):
    """All runs, and the runs that events belong to."""

    def __init__(self):
        super().__init__()
        self.runs, self.events = {}, []

    def _persist_run(self, run):
        pass

    def _start_trace(self, run):
        super()._start_trace(run)
        self.runs[run.id] = run

    def on_custom_event(self, name, data, *, run_id, **_):
        self.events.append((name, run_id))


def _made(kind, encoder, core):
    return {
        BGEReranker: lambda: BGEReranker(reranker=core, top_n=2),
        M3Reranker: lambda: M3Reranker(encoder=encoder, top_n=2),
        M3CascadeReranker: lambda: M3CascadeReranker(encoder=encoder, reranker=core, top_n=2),
    }[kind]()


@pytest.mark.parametrize("kind", [BGEReranker, M3Reranker, M3CascadeReranker])
async def test_reranking_is_a_run_within_the_run_that_asked_for_it(kind, encoder, core):
    base = M3SparseRetriever.from_texts(TEXTS, encoder=encoder, k=4)
    reranker = _made(kind, encoder, core)
    retriever = ContextualCompressionRetriever(base_compressor=reranker, base_retriever=base)
    for is_async in (False, True):
        tracer = _Runs()
        config = {"callbacks": [tracer]}
        found = (
            await retriever.ainvoke(QUERY, config) if is_async else retriever.invoke(QUERY, config)
        )
        (own,) = [run for run in tracer.runs.values() if run.name == kind.__name__]
        parent = tracer.runs[own.parent_run_id]
        assert (parent.name, parent.parent_run_id) == ("ContextualCompressionRetriever", None)
        assert tracer.events == [(kind.event, own.id)]
        assert own.inputs["query"] == QUERY
        assert own.outputs["documents"] == found
        assert own.end_time is not None


async def test_errors_end_the_run_too(core):
    broken, tracers = BGEReranker(reranker=core), [_Runs(), _Runs()]
    with pytest.raises(TypeError, match="list of Document"):
        broken.compress_documents(["text"], QUERY, [tracers[0]])
    with pytest.raises(TypeError, match="list of Document"):
        await broken.acompress_documents(["text"], QUERY, [tracers[1]])
    for tracer in tracers:
        (run,) = tracer.runs.values()
        assert "list of Document" in run.error
        assert tracer.events == []
