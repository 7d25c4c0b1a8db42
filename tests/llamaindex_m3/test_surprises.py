"""What users may do with the adapters besides what they are meant for."""

from __future__ import annotations

import pytest
import torch
from llama_index.core.schema import TextNode
from pydantic import ValidationError

from llamaindex_m3 import M3Embedding, M3HybridRetriever, M3SparseEmbedding
from m3_core.testing import FakeEncoder

QUERY = "What do pandas eat?"
TEXTS = ["Pandas eat bamboo.", "Rivers flow into the sea.", "Salt is white.", "Bears eat fish."]


def nodes() -> list[TextNode]:
    return [TextNode(id_=str(i), text=text, metadata={"n": i}) for i, text in enumerate(TEXTS)]


def test_a_copy_with_another_option_computes_with_it(encoder) -> None:
    plain = M3Embedding(encoder=encoder)
    copied = plain.model_copy(update={"query_instruction": "salt: ", "truncate_dim": 8})
    made = M3Embedding(encoder=encoder, query_instruction="salt: ", truncate_dim=8)
    assert copied.get_query_embedding(QUERY) == pytest.approx(
        made.get_query_embedding(QUERY), abs=1e-6
    )
    with pytest.raises(ValidationError, match="make a new object, M3Embedding"):
        plain.model_copy(update={"dtype": "float64"})


def _subclasses(kind: type) -> set[type]:
    return {kind}.union(*(_subclasses(one) for one in kind.__subclasses__()))


def test_no_class_of_ours_needs_a_thread_for_its_async_methods() -> None:
    from m3_core.adapters.twins import AsyncTwins, _left_behind

    ours = {one for one in _subclasses(AsyncTwins) if "_m3." in one.__module__}
    assert M3SparseEmbedding in ours
    assert [one for one in ours if list(_left_behind(one))] == []


async def test_async_follows_a_replaced_sync_method() -> None:
    class Salted(M3Embedding):
        def _get_query_embedding(self, query: str) -> list[float]:
            return super()._get_query_embedding("salt " + query)

    class First(M3HybridRetriever):
        def _retrieve(self, query_bundle):
            return super()._retrieve(query_bundle)[:1]

    salted, plain = Salted(encoder=FakeEncoder()), M3Embedding(encoder=FakeEncoder())
    assert await salted.aget_query_embedding(QUERY) == pytest.approx(
        plain.get_query_embedding("salt " + QUERY)
    )
    retriever = First.from_nodes(nodes(), encoder=FakeEncoder())
    assert len(await retriever.aretrieve(QUERY)) == len(retriever.retrieve(QUERY)) == 1


def test_filter_functions_get_copies_of_metadata_and_may_search() -> None:
    retriever = M3HybridRetriever.from_nodes(
        nodes(), encoder=FakeEncoder(), filters=lambda metadata: metadata.pop("n") < 2
    )
    assert {one.node_id for one in retriever.retrieve(QUERY)} <= {"0", "1"}
    retriever.filters = {"n": {"$lt": 2}}
    assert {one.node_id for one in retriever.retrieve(QUERY)} == {"0", "1"}
    inner = M3HybridRetriever.from_nodes(nodes(), encoder=FakeEncoder())
    retriever.filters = lambda metadata: inner.retrieve("salt") and metadata["n"] == 2
    assert [one.node_id for one in retriever.retrieve(QUERY)] == ["2"]

    async def late(metadata):
        return False

    with pytest.raises(TypeError, match="is asynchronous"):
        retriever.filters = late


def test_paths_devices_and_data_types_are_taken_as_they_are(tiny_m3) -> None:
    options = {"device": torch.device("cpu"), "dtype": torch.float32}
    made = M3Embedding(model_name=tiny_m3, **options)
    assert (made.model_name, made.dtype, made.device) == (str(tiny_m3), "float32", "cpu")
    sparse = M3SparseEmbedding(model_name=tiny_m3, **options)
    assert sparse._model.model is made._model.model


def test_pydantics_older_copy_takes_effect_too(encoder) -> None:
    plain = M3Embedding(encoder=encoder)
    assert len(plain.copy(update={"truncate_dim": 8}).get_query_embedding("panda")) == 8
    assert len(plain.copy(deep=True).get_query_embedding("panda")) == encoder.dimension
    for update in ({"truncate_dim": "many"}, {"model_name": "other"}, {"dimensions": 8}):
        with pytest.raises(ValidationError):
            plain.copy(update=update)
    with pytest.raises(TypeError, match="has all of its fields"):
        plain.copy(exclude={"normalize"})
