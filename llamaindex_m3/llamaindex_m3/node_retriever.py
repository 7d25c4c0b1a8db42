"""What all retrievers of this package have: nodes, restrictions, and a search over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.schema import IndexNode, NodeWithScore, QueryBundle, QueryType

from llamaindex_m3.filters import NodeFilter, to_expression
from llamaindex_m3.nodes import NodeCollection, NodeExplaining, ScoredNode
from llamaindex_m3.options import check_assignable
from m3_core.adapters import explained_search
from m3_core.arguments import check_count
from m3_core.collection import check_fusion
from m3_core.scoring import normalized_weights

if TYPE_CHECKING:
    from m3_core.encoder import TextEncoder

# Attributes of LlamaIndex's retriever over vector stores, and options of M3Index.as_retriever.
_ASSIGNED_OTHERWISE = {
    **{
        f"_{name}": f"assign {name}"
        for name in ("similarity_top_k", "filters", "node_ids", "doc_ids")
    },
    **dict.fromkeys(
        ("mode", "alpha", "_alpha", "vector_store_query_mode", "_vector_store_query_mode"),
        "assign weights, in the order dense, lexical, multi-vector, or make another retriever",
    ),
    **dict.fromkeys(
        ("sparse_top_k", "_sparse_top_k"),
        "assign fetch_k, or similarity_top_k where lexical scores alone count",
    ),
    **dict.fromkeys(("hybrid_top_k", "_hybrid_top_k"), "assign similarity_top_k"),
    **dict.fromkeys(("verbose", "objects"), "make another retriever with it"),
}


class NodeRetriever(NodeExplaining, BaseRetriever):
    """Retrieve nodes of a collection; the base of this package's retrievers.

    Args:
        nodes: The nodes.
        similarity_top_k: How many to return at most.
        filters: Only nodes with such metadata: ``MetadataFilters``, nested to any depth, or a
            mapping in the language of ``m3_core.filters``, or a function of the metadata.
        node_ids: Only these nodes.
        doc_ids: Only nodes of these documents.
        callback_manager: Told of every retrieval.
        object_map: What ``IndexNode`` stand for, by their index id.
        objects: ``IndexNode`` with what they stand for.
        verbose: Print what retrieving an ``IndexNode`` does.
        trace_explanations: While a span of OpenTelemetry is recording, put explanations of what is
            found into a child span ``"m3.explain"``, named as OpenInference names them. It
            encodes what was found.

    Raises:
        ValueError: ``similarity_top_k`` is below 1, or the filters cannot be.
        TypeError: ``filters`` are none.
    """

    def __init__(
        self,
        nodes: NodeCollection,
        *,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        filters: NodeFilter | None = None,
        node_ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
        callback_manager: CallbackManager | None = None,
        object_map: dict[str, Any] | None = None,
        objects: list[IndexNode] | None = None,
        verbose: bool = False,
        trace_explanations: bool = False,
    ) -> None:
        super().__init__(callback_manager, object_map, objects, verbose)
        self._nodes = nodes
        self.similarity_top_k = similarity_top_k
        self.filters = filters
        self.node_ids = node_ids
        self.doc_ids = doc_ids
        self.trace_explanations = trace_explanations

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign an option, checked as the constructor's; it counts from the next search on.

        Args:
            name: The option, or another attribute.
            value: Its value.

        Raises:
            AttributeError: There is no such option, or it has another name.
            ValueError: The value cannot be, or it is an option of the model.
        """
        if name not in NodeCollection.model_fields:
            check_assignable(self, name, _ASSIGNED_OTHERWISE)
        super().__setattr__(name, self._checked(name, value))

    def __repr__(self) -> str:
        where = "" if self.filters is None else f", filters={self.filters!r}"
        return (
            f"{type(self).__name__}({self._nodes.model_name!r}, nodes={len(self._nodes)}, "
            f"similarity_top_k={self.similarity_top_k}{where})"
        )

    def _checked(self, name: str, value: Any) -> Any:
        if name in NodeCollection.model_fields:
            raise ValueError(
                f"{name} belongs to the model, which is there already: make a new "
                f"{type(self).__name__} with {name}=...; models that are loaded are shared"
            )
        if name == "similarity_top_k" or (name == "fetch_k" and value is not None):
            return check_count(name, value)
        if name == "fusion":
            return check_fusion(value)
        if name == "weights":
            normalized_weights(value)
            return tuple(value)
        if name == "filters" and value is not None:
            to_expression(value)
        return value

    def search_with_scores(self, query: QueryType) -> list[ScoredNode]:
        """Find nodes, and say what their scores are made of.

        Nodes are as they were put in: an ``IndexNode`` is not followed to what it stands for, and
        nothing is written into metadata.

        Args:
            query: The query.

        Returns:
            Copies of the nodes, best first, each with the score that ``retrieve`` gives and
            ``{"dense": …, "sparse": …, "colbert": …}``, as far as it was made of these.

        Example:
            .. code-block:: python

                for node, score, scores in retriever.search_with_scores("What do pandas eat?"):
                    ...
        """
        return self._nodes.search(**self._asked(query))

    async def asearch_with_scores(self, query: QueryType) -> list[ScoredNode]:
        """Do ``search_with_scores`` without holding up the event loop."""
        return await self._nodes.asearch(**self._asked(query))

    def _asked(self, query: QueryType) -> dict[str, Any]:
        """Arguments of ``NodeCollection.search``."""
        return {
            "query": QueryBundle(query) if isinstance(query, str) else query,
            "k": self.similarity_top_k,
            "filters": self.filters,
            "node_ids": self.node_ids,
            "doc_ids": self.doc_ids,
            **self._search_options(),
        }

    def _explained(self) -> tuple[TextEncoder, dict[str, Any]]:
        return self._nodes._source, explained_search(self._nodes.stored, self._search_options())

    # Not abstract: LlamaIndex shows whatever implements an abstract method as a span.
    def _search_options(self) -> dict[str, Any]:
        """Options of ``DocumentCollection.search``."""
        return {}

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self.search_with_scores(query_bundle)
        if self.trace_explanations:
            nodes = [node for node, _, _ in found]
            self._show_in_trace(query_bundle, nodes, [node.node_id for node in nodes])
        return [NodeWithScore(node=node, score=score) for node, score, _ in found]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = await self.asearch_with_scores(query_bundle)
        if self.trace_explanations:
            nodes = [node for node, _, _ in found]
            await self._ashow_in_trace(query_bundle, nodes, [node.node_id for node in nodes])
        return [NodeWithScore(node=node, score=score) for node, score, _ in found]
