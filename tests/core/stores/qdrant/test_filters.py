from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from m3_core.errors import FilterError
from m3_core.expressions import Contains, HasText, IsEmpty, Not, Or
from m3_core.filters import parse_filter
from m3_core.stores.qdrant.filters import qdrant_filter

KEYS = st.sampled_from(["a", "b", "a.b", "größe", "a b"])
NUMBERS = st.sampled_from([0, 1, 2, -3, 0.5, 1.0, 2.5])
TEXTS = st.sampled_from(["", "x", "xy", "X", "1"])
SCALARS = TEXTS | NUMBERS | st.sampled_from([True, False, None, 2**60, 2**60 + 1])
VALUES = SCALARS | st.lists(SCALARS | st.lists(SCALARS, max_size=2), max_size=3) | st.just({"a": 1})
METADATAS = st.lists(st.dictionaries(KEYS, VALUES, max_size=4), min_size=1, max_size=6)
LISTS = st.lists(SCALARS, max_size=4)
OPERATORS = st.one_of(
    st.dictionaries(st.sampled_from(["$eq", "$ne"]), SCALARS, min_size=1),
    st.dictionaries(st.sampled_from(["$in", "$nin"]), LISTS, min_size=1),
    st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), NUMBERS, min_size=1),
)
CONDITIONS = SCALARS | OPERATORS | st.builds(lambda one: {"$not": one}, SCALARS | OPERATORS)
FILTERS = st.recursive(
    st.dictionaries(KEYS, CONDITIONS, max_size=2),
    lambda inner: st.one_of(
        st.builds(lambda parts: {"$and": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: {"$or": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"$not": part}, inner),
    ),
    max_leaves=5,
)
BEYOND = st.one_of(
    st.builds(Contains, KEYS, SCALARS), st.builds(HasText, KEYS, TEXTS), st.builds(IsEmpty, KEYS)
)


@pytest.fixture(scope="module")
def client() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    yield client
    client.close()


def found(client: QdrantClient, metadatas, where, key: str | None = "metadata") -> list[int]:
    if client.collection_exists("c"):
        client.delete_collection("c")
    client.create_collection("c", vectors_config={})
    made = [
        models.PointStruct(id=i, vector={}, payload=metadata if key is None else {key: metadata})
        for i, metadata in enumerate(metadatas)
    ]
    client.upsert("c", points=made)
    records, _ = client.scroll("c", scroll_filter=qdrant_filter(where, key), limit=99)
    return sorted(record.id for record in records)


def passing(metadatas, where) -> list[int]:
    judge = parse_filter(where).evaluate
    return [i for i, metadata in enumerate(metadatas) if judge(metadata)]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(metadatas=METADATAS, where=FILTERS)
def test_qdrant_finds_what_passes_in_memory(client, metadatas, where) -> None:
    assert found(client, metadatas, where) == passing(metadatas, where)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(metadatas=METADATAS, where=BEYOND | BEYOND.map(Not))
def test_so_it_does_for_llamaindex_operators(client, metadatas, where) -> None:
    assert found(client, metadatas, where) == passing(metadatas, where)


@given(metadatas=METADATAS, where=FILTERS)
def test_metadata_may_be_the_payload_itself(client, metadatas, where) -> None:
    assert found(client, metadatas, where, key=None) == passing(metadatas, where)


def test_no_alternatives_find_nothing_and_no_conditions_everything(client) -> None:
    metadatas = [{"a": 1}, {}]
    assert found(client, metadatas, Or(())) == []
    assert found(client, metadatas, {"a": {"$in": []}}) == []
    assert found(client, metadatas, {"a": {"$nin": []}}) == [0, 1]
    assert found(client, metadatas, {}) == [0, 1]


def test_another_key_of_the_payload(client) -> None:
    assert found(client, [{"a": 1}, {"a": 2}], {"a": 2}, key="my meta.data") == [1]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"a": {"$gt": "x"}}, "orders numbers only.*'a'.*DatetimeRange"),
        ({"a": {"$gt": 2**53}}, r"2\*\*53.*'a'"),
        ({"a": {"$in": [2.0**60]}}, r"2\*\*53.*'a'"),
        ({'a"b': 1}, "quotation mark"),
        (lambda metadata: True, "function"),
        ({"$or": [{"a": 1}, lambda metadata: True]}, "function"),
        (HasText("a", "x", ignore_case=True), "'a' without regard to case"),
        ({"a": ["x"]}, r"'a'.*\$in"),
    ],
)
def test_what_qdrant_cannot_express_is_an_error(where, message) -> None:
    with pytest.raises(FilterError, match=message):
        qdrant_filter(where)


def test_filters_of_qdrant_stay_as_they_are() -> None:
    given_one = models.Filter()
    assert qdrant_filter(given_one) is given_one
    assert qdrant_filter(None) is None
    with pytest.raises(TypeError, match="filter must be a qdrant_client"):
        qdrant_filter("a")
