from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from llama_index.core.vector_stores.types import (
    FilterCondition,
    MetadataFilters,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn
from tests.llamaindex_m3.nodes import QUERY, ids, make_nodes, only

from llamaindex_m3 import M3HybridRetriever, M3Index
from llamaindex_m3.filters import to_expression
from m3_core.errors import FilterError

FILTERS = [
    (only("number", 7), lambda i: i == 7),
    (only("number", 7, "!="), lambda i: i != 7),
    (only("absent", 7, "!="), lambda i: True),
    (only("absent", 7), lambda i: False),
    (only("number", 20, ">"), lambda i: i > 20),
    (only("number", 20, ">="), lambda i: i >= 20),
    (only("number", 5, "<"), lambda i: i < 5),
    (only("number", 5, "<="), lambda i: i <= 5),
    (only("number", [3, 4, 99], "in"), lambda i: i in (3, 4)),
    (only("number", [3, 4], "nin"), lambda i: i not in (3, 4)),
    (only("tags", "t1", "contains"), lambda i: i % 3 == 1),
    (only("tags", ["t1", "t2"], "any"), lambda i: i % 3 > 0),
    (only("tags", ["all", "t2"], "all"), lambda i: i % 3 == 2),
    (only("name", "T-1", "text_match_insensitive"), lambda i: i // 10 == 1),
    (only("name", "t-1", "text_match"), lambda i: i // 10 == 1),
    (only("absent", None, "is_empty"), lambda i: True),
    (MetadataFilters(filters=[]), lambda i: True),
    (
        MetadataFilters(
            filters=[
                MetadataFilters(
                    filters=[*only("number", 3).filters, *only("number", 8).filters],
                    condition=FilterCondition.OR,
                ),
                MetadataFilters(filters=only("even", 1).filters, condition=FilterCondition.NOT),
            ]
        ),
        lambda i: i == 3,
    ),
    (
        MetadataFilters(
            filters=[
                MetadataFilters(
                    filters=[only("even", 1), only("number", 10, "<")],
                    condition=FilterCondition.AND,
                ),
                only("number", 25, ">"),
            ],
            condition=FilterCondition.NOT,
        ),
        lambda i: not ((i % 2 == 0 and i < 10) or i > 25),
    ),
]


@pytest.mark.parametrize(("filters", "expected"), FILTERS)
def test_every_filter_operator_and_nesting(encoder, filters, expected) -> None:
    nodes = make_nodes()
    for i, node in enumerate(nodes):
        node.metadata["name"] = f"part-{i // 10}"
    retriever = M3HybridRetriever.from_nodes(
        nodes, encoder=encoder, similarity_top_k=99, filters=filters
    )
    assert sorted(ids(retriever.retrieve(QUERY))) == sorted(
        f"n{i}" for i in range(30) if expected(i)
    )


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"number": 7}, lambda i: i == 7),
        ({"number": {"$in": [3, 4, 99]}, "even": {"$ne": 1}}, lambda i: i == 3),
        ({"$or": [{"tags": "t1"}, {"number": {"$gte": 28}}]}, lambda i: i % 3 == 1 or i >= 28),
        (lambda metadata: metadata["number"] < 3, lambda i: i < 3),
    ],
)
def test_retrievers_and_the_index_take_the_mappings_too(encoder, filters, expected) -> None:
    wanted = sorted(f"n{i}" for i in range(30) if expected(i))
    options = {"similarity_top_k": 99, "filters": filters}
    retriever = M3HybridRetriever.from_nodes(make_nodes(), encoder=encoder, **options)
    assert sorted(ids(retriever.retrieve(QUERY))) == wanted
    retriever = M3Index(make_nodes(), encoder=encoder).as_retriever(**options)
    assert sorted(ids(retriever.retrieve(QUERY))) == wanted


SCALARS = st.sampled_from(["", "x", "xy", "X", 0, 1, 2, 0.5, 1.0])
KEYS = st.sampled_from("ab")
METADATA = st.dictionaries(
    KEYS, SCALARS | st.sampled_from([None, True, False]) | st.lists(SCALARS, max_size=3)
)
LISTS = st.lists(st.sampled_from(["", "x", "xy"]), min_size=1, max_size=3) | st.lists(
    st.sampled_from([0, 1, 2]), min_size=1, max_size=3
)
SINGLES = (
    st.builds(only, KEYS, SCALARS, st.sampled_from(["==", "!=", ">", ">=", "<", "<=", "contains"]))
    | st.builds(only, KEYS, LISTS, st.sampled_from(["in", "nin", "any", "all"]))
    | st.builds(
        only,
        KEYS,
        st.sampled_from(["", "x", "Y"]),
        st.sampled_from(["text_match", "text_match_insensitive"]),
    )
    | st.builds(only, KEYS, st.none(), st.just("is_empty"))
)
BY_ELEMENT = {"==", "!=", "in", "nin", "text_match", "text_match_insensitive"}
ORDERS = {">", ">=", "<", "<="}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(METADATA, SINGLES)
def test_operators_mean_what_they_mean_in_simple_vector_store(metadata, filters) -> None:
    one = filters.filters[0]
    assume(not (one.operator.value in BY_ELEMENT and isinstance(metadata.get(one.key), list)))
    # Booleans have no order here, and one element of a list is enough.
    assume(not (one.operator.value in ORDERS and isinstance(metadata.get(one.key), (bool, list))))
    try:
        expected = build_metadata_filter_fn(lambda _: metadata, filters)("id")
    except TypeError:
        expected = False
    assert to_expression(filters).evaluate(metadata) is expected


def test_filters_that_cannot_be_are_refused() -> None:
    with pytest.raises(TypeError, match="a filter is a mapping or a function; got str"):
        to_expression("a")
    for wrong in (
        only("a", 3, "text_match"),
        only("a", "x", "in"),
        only("a", ["x"]),
        only("a", [], "all"),
        only("a", None, ">"),
        {"a": ["x"]},
    ):
        with pytest.raises(FilterError, match="'a'"):
            to_expression(wrong)


def test_values_of_another_type_do_not_pass() -> None:
    assert not to_expression(only("a", "x", "text_match")).evaluate({"a": 3})
    assert not to_expression(only("a", 3, ">")).evaluate({"a": "x"})
    assert to_expression(only("a", 1)).evaluate({"a": True})
    assert to_expression(only("a", 0, "!=")).evaluate({"a": True})
