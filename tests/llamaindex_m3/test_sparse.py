from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction
from pydantic import Field, ValidationError

from llamaindex_m3 import M3Embedding, M3MilvusSparseEmbeddingFunction, M3SparseEmbedding
from m3_core import Encoder
from m3_core.errors import MissingRepresentationError
from m3_core.scoring import lexical_scores

TEXTS = ["panda bear", "", "мир", "panda river panda", "panda bear"]


@pytest.fixture
def sparse(encoder: Encoder) -> M3SparseEmbedding:
    return M3SparseEmbedding(encoder=encoder, query_instruction="q: ", embed_batch_size=2)


def weights(encoder: Encoder, texts: list[str]) -> list[dict[int, float]]:
    reps = encoder.encode_documents(texts, return_dense=False, return_sparse=True)
    return list(reps.lexical_weights)


def assert_equal(found: list[dict[int, float]], expected: list[dict[int, float]]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)
        assert all(type(key) is int and type(value) is float for key, value in ours.items())


async def test_weights_are_the_cores(sparse, encoder) -> None:
    expected = weights(encoder, TEXTS)
    assert_equal(sparse.get_text_embedding_batch(TEXTS), expected)
    assert_equal(await sparse.aget_text_embedding_batch(TEXTS), expected)
    assert_equal([sparse.get_text_embedding("мир")], expected[2:3])
    assert_equal([await sparse.aget_text_embedding("мир")], expected[2:3])
    (asked,) = weights(encoder, ["q: panda"])
    assert_equal([sparse.get_query_embedding("panda")], [asked])
    assert_equal([await sparse.aget_query_embedding("panda")], [asked])
    assert sparse.get_text_embedding_batch([]) == []
    assert await sparse.aget_text_embedding_batch([]) == []


def test_similarity_is_the_raw_inner_product(sparse, encoder) -> None:
    reps = encoder.encode_documents(TEXTS, return_dense=False, return_sparse=True)
    expected = lexical_scores(reps.lexical_weights, reps.lexical_weights)
    rows = sparse.get_text_embedding_batch(TEXTS)
    found = [[sparse.similarity(one, other) for other in rows] for one in rows]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sparse.similarity({}, {3: 1.0}) == 0.0
    assert sparse.similarity({3: 2.0, 4: 5.0}, {3: 1.5}) == 3.0


def test_the_callables_for_qdrant(sparse, encoder) -> None:
    indices, values = sparse.sparse_doc_fn(TEXTS)
    rows = [dict(zip(*pair, strict=True)) for pair in zip(indices, values, strict=True)]
    assert_equal(rows, weights(encoder, TEXTS))
    indices, values = sparse.sparse_query_fn(["panda"])
    asked = dict(zip(indices[0], values[0], strict=True))
    assert_equal([asked], weights(encoder, ["q: panda"]))
    assert sparse.sparse_doc_fn([]) == ([], [])
    with pytest.raises(TypeError, match="text 1"):
        sparse.sparse_doc_fn(["panda", None])


async def test_the_function_for_milvus(encoder) -> None:
    function = M3MilvusSparseEmbeddingFunction(encoder=encoder, query_instruction="q: ")
    assert isinstance(function, BaseSparseEmbeddingFunction)
    expected, asked = weights(encoder, TEXTS), weights(encoder, ["q: panda"])
    assert_equal(function.encode_documents(TEXTS), expected)
    assert_equal(await function.async_encode_documents(TEXTS), expected)
    assert_equal(function.encode_queries(["panda"]), asked)
    assert_equal(await function.async_encode_queries(["panda"]), asked)
    assert function.encode_documents([]) == []
    again = pickle.loads(pickle.dumps(function))
    assert_equal(again.encode_queries(["panda"]), asked)


async def test_beside_dense_vectors_texts_are_computed_once(fresh_table, passes) -> None:
    dense = M3Embedding(encoder=fresh_table)
    sparse = M3SparseEmbedding(encoder=fresh_table)
    milvus = M3MilvusSparseEmbeddingFunction(encoder=fresh_table)
    dense.get_text_embedding_batch(TEXTS)
    for text in TEXTS:
        milvus.encode_documents([text])
    sparse.get_text_embedding_batch(TEXTS)
    sparse.sparse_doc_fn(TEXTS)
    assert passes == [4]
    await dense.aget_query_embedding("a question")
    sparse.sparse_query_fn(["a question"])
    await sparse.aget_query_embedding("a question")
    assert passes == [4, 1]
    assert {name for name in passes.threads if name.startswith("m3-processor")}


class _Listener(BaseEventHandler):
    seen: list = Field(default_factory=list)

    @classmethod
    def class_name(cls):
        return "_Listener"

    def handle(self, event, **_):
        if "SparseEmbedding" in event.class_name():
            self.seen.append(event)


def test_events_and_serialisation(sparse, encoder) -> None:
    root, listener = get_dispatcher("root"), _Listener()
    handlers = list(root.event_handlers)
    root.add_event_handler(listener)
    try:
        sparse.get_query_embedding("panda")
    finally:
        root.event_handlers = handlers
    start, end = listener.seen
    assert start.model_dict["class_name"] == "M3SparseEmbedding"
    assert start.model_dict["model_name"] == encoder.name
    assert start.model_dict["query_instruction"] == "q: "
    assert end.chunks == ["panda"]
    assert sparse.model_dump() == {
        "class_name": "M3SparseEmbedding",
        "base_url": None,
        "model_name": encoder.name,
        "revision": None,
        "dtype": "float32",
        "max_length": 8192,
        "query_instruction": "q: ",
        "document_instruction": "",
        "trust_remote_code": False,
    }


def test_pickles_load_on_first_use(sparse) -> None:
    again = pickle.loads(pickle.dumps(sparse))
    assert again._encodings._opened is None
    assert again.model_dump() == sparse.model_dump()
    for other in (again, copy.deepcopy(sparse)):
        assert other.get_query_embedding("panda") == sparse.get_query_embedding("panda")


def test_bad_input(sparse, encoder, tiny_bge: Path) -> None:
    for kind in (M3SparseEmbedding, M3MilvusSparseEmbeddingFunction):
        with pytest.raises(MissingRepresentationError, match="load an M3 checkpoint"):
            kind(model_name=str(tiny_bge))
        with pytest.raises(ValidationError, match="truncate_dim"):
            kind(encoder=encoder, truncate_dim=8)
        with pytest.raises(TypeError, match="must be an m3_core"):
            kind(encoder="m3-small")
    with pytest.raises(ValidationError, match="embed_batch_size"):
        M3SparseEmbedding(encoder=encoder, embed_batch_size=0)
    for wrong in (None, b"panda"):
        with pytest.raises(TypeError, match="text 1 is of type"):
            sparse.get_text_embedding_batch(["panda", wrong])
        with pytest.raises(TypeError, match="text 0 is of type"):
            sparse.get_query_embedding(wrong)
