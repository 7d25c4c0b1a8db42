from __future__ import annotations

import pytest
from llama_index.core.vector_stores.types import (
    FilterCondition,
    MetadataFilters,
)
from tests.llamaindex_m3.nodes import QUERY, ids, make_nodes, only

from llamaindex_m3 import M3HybridRetriever
from llamaindex_m3.filters import filter_test

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


def test_filters_that_cannot_be_are_refused() -> None:
    with pytest.raises(TypeError, match="must be MetadataFilters; got dict"):
        filter_test({"a": 1})
    with pytest.raises(TypeError, match="TEXT_MATCH"):
        filter_test(only("a", "x", "text_match"))({"a": 3})
