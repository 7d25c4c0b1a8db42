"""Nodes that several test files share."""

from __future__ import annotations

from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters
from tests.conftest import make_text

QUERY = "world water der Fluss und Stadt"


def make_nodes(number: int = 30) -> list[TextNode]:
    return [
        TextNode(
            id_=f"n{i}",
            text=make_text(i, 3 + i % 6),
            metadata={"number": i, "even": int(i % 2 == 0), "tags": ["all", f"t{i % 3}"]},
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc{i // 10}")},
        )
        for i in range(number)
    ]


def ids(found: list[NodeWithScore]) -> list[str]:
    return [one.node.node_id for one in found]


def only(key: str, value: object, operator: str = "==") -> MetadataFilters:
    return MetadataFilters(
        filters=[MetadataFilter(key=key, value=value, operator=FilterOperator(operator))]
    )
