from __future__ import annotations

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.documents import Document
from pydantic import ValidationError
from tests.conftest import make_text

from langchain_m3 import M3Reranker, M3SparseRetriever
from m3_core import Encoder

TEXTS = ["river city", "panda bear", "panda water model", "", "panda panda"]
DOCUMENTS = [Document(page_content=text, metadata={"row": i}) for i, text in enumerate(TEXTS)]


def expected(encoder: Encoder, weights=(1.0, 0.3, 1.0)) -> list[float]:
    pairs = [("panda", text) for text in TEXTS]
    return encoder.compute_score(pairs, weights=weights)["colbert+sparse+dense"]


def test_scores_are_the_cores_and_documents_copies(encoder) -> None:
    reranker = M3Reranker(encoder=encoder)
    ranked = reranker.compress_documents(DOCUMENTS, "panda")
    scores = expected(encoder)
    order = sorted(range(5), key=lambda i: -scores[i])
    assert [document.metadata["row"] for document in ranked] == order
    found = [document.metadata["relevance_score"] for document in ranked]
    assert found == pytest.approx([scores[i] for i in order], abs=1e-5)
    assert all(type(score) is float for score in found)
    assert all("relevance_score" not in document.metadata for document in DOCUMENTS)


def test_top_n_threshold_weights_and_empty_lists(encoder) -> None:
    scores = sorted(expected(encoder, (0.4, 0.2, 0.4)), reverse=True)
    weights = (0.4, 0.2, 0.4)
    for options, count in (
        ({"top_n": 2}, 2),
        ({"score_threshold": (scores[2] + scores[3]) / 2}, 3),
        ({"top_n": 1, "score_threshold": -9.0}, 1),
        ({"score_threshold": 9.0}, 0),
    ):
        reranker = M3Reranker(encoder=encoder, weights=weights, **options)
        assert len(reranker.compress_documents(DOCUMENTS, "panda")) == count
    assert M3Reranker(encoder=encoder).compress_documents([], "panda") == []
    assert M3Reranker(encoder=encoder).score([]) == []
    for wrong in ({"top_n": 0}, {"weights": (0, 0, 0)}, {"weights": (1, 1)}, {"topn": 3}):
        with pytest.raises(ValidationError):
            M3Reranker(encoder=encoder, **wrong)


def test_the_threshold_itself_passes(encoder) -> None:
    ranked = M3Reranker(encoder=encoder).compress_documents(DOCUMENTS, "panda")
    third = ranked[2].metadata["relevance_score"]
    assert (
        len(
            M3Reranker(encoder=encoder, score_threshold=third).compress_documents(
                DOCUMENTS, "panda"
            )
        )
        == 3
    )


def test_a_dense_model_reranks_by_its_dense_score(tiny_dense) -> None:
    reranker = M3Reranker(model_name=str(tiny_dense), weights=(1, 0, 0))
    assert len(reranker.compress_documents(DOCUMENTS, "panda")) == 5


def test_pairs_of_several_queries_are_scored_each_alone(encoder) -> None:
    pairs = [("panda", "river city"), ("мир", "panda"), ("panda", "panda bear")]
    together = M3Reranker(encoder=encoder).score(pairs)
    alone = encoder.compute_score(pairs, weights=(1.0, 0.3, 1.0))["colbert+sparse+dense"]
    assert together == pytest.approx(alone, abs=1e-5)
    with pytest.raises(TypeError, match="pair 0"):
        M3Reranker(encoder=encoder).score(["panda"])


class Events(BaseCallbackHandler):
    def __init__(self) -> None:
        self.seen: list = []

    def on_custom_event(self, name, data, **_) -> None:
        self.seen.append((name, data))


class AsyncEvents(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.seen: list = []

    async def on_custom_event(self, name, data, **_) -> None:
        self.seen.append((name, data))


async def test_async_and_callbacks(encoder) -> None:
    reranker, events, async_events = M3Reranker(encoder=encoder, top_n=2), Events(), AsyncEvents()
    serial = reranker.compress_documents(DOCUMENTS, "panda", callbacks=[events])
    assert await reranker.acompress_documents(DOCUMENTS, "panda", [async_events]) == serial
    assert events.seen == async_events.seen
    ((name, data),) = events.seen
    assert (name, data["query"], data["top_n"]) == ("m3_rerank", "panda", 2)
    assert data["scores"] == [document.metadata["relevance_score"] for document in serial]


async def test_within_classics_retrievers(encoder) -> None:
    query = "world water der Fluss und Stadt"
    texts = [make_text(i, 8) for i in range(6)]
    base = M3SparseRetriever.from_texts(texts, encoder=encoder, k=3)
    reranker, events = M3Reranker(encoder=encoder, top_n=2), Events()
    retriever = ContextualCompressionRetriever(base_compressor=reranker, base_retriever=base)
    found = retriever.invoke(query, config={"callbacks": [events]})
    assert len(found) == 2
    assert [name for name, _ in events.seen] == ["m3_rerank"]
    assert await retriever.ainvoke(query) == found
    crossing = CrossEncoderReranker(model=reranker, top_n=2)
    documents = crossing.compress_documents(base.invoke(query), query)
    assert [d.page_content for d in documents] == [d.page_content for d in found]
