"""Filters of ``QdrantHybridStore``: what they mean in memory, they mean in Qdrant."""

from __future__ import annotations

import pytest
from llama_index.core.indices.vector_store import (
    VectorIndexRetriever,
)
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)
from qdrant_client import models
from tests.llamaindex_m3.nodes import QUERY, ids, only
from tests.llamaindex_m3.test_qdrant_store import (
    MODES,
    opened,
    search,
)
from tests.llamaindex_m3.test_qdrant_store import client as client
from tests.llamaindex_m3.test_qdrant_store import fake as fake
from tests.llamaindex_m3.test_qdrant_store import store as store

from llamaindex_m3 import QdrantHybridStore
from llamaindex_m3.filters import to_expression
from m3_core.errors import FilterError

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local")


METADATA = [
    {"n": 1, "half": 0.5, "name": "panda", "tags": ["a", "b"], "flag": True},
    {"n": 2, "half": 1.0, "name": "red panda", "tags": [], "flag": False},
    {"n": 3, "half": 1.5, "name": "", "tags": ["b"], "a.b": "x"},
    {"n": 0, "name": None, "größe": 7},
]


LEAVES = [
    *((key, 1, op) for key in ("n", "half") for op in ("==", "!=", ">", ">=", "<", "<=")),
    ("n", [1, 3], "in"),
    ("n", [1, 3], "nin"),
    ("name", ["panda", ""], "in"),
    ("name", "panda", "=="),
    ("name", "panda", "!="),
    ("name", "panda", "text_match"),
    ("name", None, "=="),
    ("name", None, "is_empty"),
    ("tags", None, "is_empty"),
    ("tags", "b", "contains"),
    ("tags", ["a", "b"], "all"),
    ("tags", ["a", "x"], "any"),
    ("flag", 1, "=="),
    ("flag", 0, "!="),
    ("a.b", "x", "=="),
    ("größe", 7, ">="),
]


@pytest.fixture
def filtered(store) -> QdrantHybridStore:
    store.add([TextNode(id_=str(i), text=QUERY, metadata=one) for i, one in enumerate(METADATA)])
    return store


@pytest.mark.parametrize("leaf", LEAVES, ids=str)
def test_filters_mean_what_they_mean_in_memory(filtered, leaf) -> None:
    one = only(*leaf)
    passing = {str(i) for i, row in enumerate(METADATA) if to_expression(one).evaluate(row)}
    assert {node.node_id for node in filtered.get_nodes(filters=one)} == passing
    for mode in MODES:
        assert search(opened(filtered), mode, filters=one).keys() == passing


def test_combined_filters(filtered) -> None:
    leaves = [MetadataFilter(key="n", value=1), MetadataFilter(key="name", value="red panda")]
    index = opened(filtered)

    def found(filters, **options) -> list[str]:
        return sorted(search(index, "hybrid", filters=filters, **options))

    def of(condition, parts=leaves) -> MetadataFilters:
        return MetadataFilters(filters=parts, condition=condition)

    assert found(of(FilterCondition.OR)) == ["0", "1"]
    assert found(of(FilterCondition.AND)) == []
    assert found(of(FilterCondition.NOT)) == ["2", "3"]
    nested = of(FilterCondition.NOT, [of(FilterCondition.OR), MetadataFilter(key="n", value=3)])
    assert found(nested) == ["3"]
    assert found(of(FilterCondition.AND, [])) == ["0", "1", "2", "3"]
    some = VectorIndexRetriever(index, similarity_top_k=9, node_ids=["1", "3", "9"])
    assert sorted(ids(some.retrieve(QUERY))) == ["1", "3"]
    above = models.FieldCondition(key="n", range=models.Range(gte=2))
    own = {"qdrant_filters": models.Filter(must=[above])}
    assert found(None, vector_store_kwargs=own) == ["1", "2"]
    assert found(of(FilterCondition.OR), vector_store_kwargs=own) == ["1"]


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (("name", "Panda", "text_match_insensitive"), "without regard to case"),
        (("name", "a", ">"), "orders numbers only"),
        (("n", 2**60, ">"), r"2\*\*53"),
        (('a"b', 1, "=="), "quotation mark"),
    ],
)
def test_what_qdrant_cannot_express_is_an_error_before_the_network(
    filtered, fake, leaf, message
) -> None:
    fake.calls.clear()
    with pytest.raises(FilterError, match=message):
        filtered.query(VectorStoreQuery(query_str=QUERY, mode="hybrid", filters=only(*leaf)))
    with pytest.raises(FilterError, match=message):
        filtered.delete_nodes(filters=only(*leaf))
    assert fake.calls == []
