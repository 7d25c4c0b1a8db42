"""Nodes as points of Qdrant, and what LlamaIndex asks for as searches there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode, TextNode
from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import (
    legacy_metadata_dict_to_node,
    metadata_dict_to_node,
    node_to_metadata_dict,
)
from qdrant_client import models

from llamaindex_m3.filters import NodeFilter, to_expression
from llamaindex_m3.nodes import checked_node
from m3_core.arguments import check_count, check_distinct, check_ids
from m3_core.errors import StoreError
from m3_core.stores.qdrant import (
    Names,
    NewPoints,
    Rankings,
    ScoredPoint,
    Search,
    point_id,
    qdrant_filter,
    read_point,
    write_document,
)

# Of LlamaIndex's payloads: the node itself, and its document.
_NODE, _DOCUMENT = "_node_content", "doc_id"

_SPARSE = (VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.TEXT_SEARCH)
_HYBRID = (VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.SEMANTIC_HYBRID)
_MODES = (VectorStoreQueryMode.DEFAULT, *_SPARSE, *_HYBRID)


@dataclass(frozen=True, slots=True)
class Request:
    """A query of LlamaIndex as a search in a collection.

    Args:
        text: The query.
        k: Nodes to return.
        least: Candidates of the dense ranking at least.
        search: Filter and further options.
        rankings: Those of the query's mode.
    """

    text: str
    k: int
    least: int
    search: Search
    rankings: Rankings


def new_points(nodes: Sequence[BaseNode], names: Names) -> NewPoints:
    """Make documents of nodes.

    Args:
        nodes: The nodes; an embedding that one has stands for its dense vector.
        names: Of payload keys; with one of metadata, payloads are LangChain's too.

    Returns:
        Their embedded texts, and LlamaIndex's payloads.

    Raises:
        TypeError: An element is no node.
        ValueError: An id comes twice.
    """
    listed = [checked_node(node) for node in nodes]
    ids = check_ids([node.node_id for node in listed])
    check_distinct(ids)
    return NewPoints(
        ids,
        [node.get_content(metadata_mode=MetadataMode.EMBED) for node in listed],
        [_payload(node, names) for node in listed],
        [node.embedding for node in listed],
    )


def _payload(node: BaseNode, names: Names) -> dict[str, Any]:
    own = node_to_metadata_dict(node, remove_text=False, flat_metadata=False)
    if names.metadata is None:
        return own
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    return own | write_document(node.node_id, text, node.metadata, names)


def read_node(
    point: models.Record | models.ScoredPoint, vector: list[float] | None, names: Names
) -> BaseNode:
    """Read the node of a point, whoever has written it.

    Args:
        point: With its payload.
        vector: Its dense vector, if that was asked for.
        names: Of the keys of text and metadata, in payloads that hold no node.

    Returns:
        The node.

    Raises:
        StoreError: The payload has neither a node nor a text, or metadata that are no mapping.
    """
    payload = point.payload or {}
    if _NODE in payload:
        node = metadata_dict_to_node(payload)
    else:
        text = payload.get(names.content)
        if not isinstance(text, str):
            raise StoreError(
                f"point {point.id} holds neither a node of LlamaIndex nor a text under "
                f"{names.content!r}, but the keys {sorted(payload)}: name the right one by "
                "text_key="
            )
        if names.metadata is not None:
            stored = read_point(point, names)
            node = TextNode(id_=stored.id, text=text, metadata=stored.metadata)
        else:
            metadata, _, relationships = legacy_metadata_dict_to_node(payload, names.content)
            node = TextNode(
                id_=str(point.id), text=text, metadata=metadata, relationships=relationships
            )
    if vector is not None:
        node.embedding = vector
    return node


def condition(
    filters: NodeFilter | None = None,
    node_ids: Sequence[str] | None = None,
    doc_ids: Sequence[str] | None = None,
    also: models.Filter | None = None,
    metadata_key: str | None = None,
) -> models.Filter | None:
    """Make a filter of Qdrant.

    Args:
        filters: Only nodes with such metadata.
        node_ids: Only these nodes.
        doc_ids: Only nodes of these documents.
        also: Only nodes that this lets pass.
        metadata_key: The payload's key of metadata; None if they are the payload.

    Returns:
        What lets pass what all of them let pass; None for no restriction.

    Raises:
        FilterError: Qdrant cannot express the filter.
    """
    must: list[models.Condition] = []
    if filters is not None:
        where = qdrant_filter(to_expression(filters), metadata_key)
        assert where is not None
        must.append(where)
    if node_ids is not None:
        points = [point_id(one) for one in check_ids(node_ids)]
        must.append(models.HasIdCondition(has_id=list(points)))
    if doc_ids is not None:
        documents = models.MatchAny(any=check_ids(doc_ids))
        must.append(models.FieldCondition(key=_DOCUMENT, match=documents))
    if also is not None:
        must.append(also)
    return models.Filter(must=must) if must else None


def selector(
    filters: NodeFilter | None = None,
    node_ids: Sequence[str] | None = None,
    doc_ids: Sequence[str] | None = None,
    metadata_key: str | None = None,
) -> dict[str, Any]:
    """Say which points a call is about.

    Args:
        filters: As of ``condition``, and so are the others.
        node_ids: Only these nodes.
        doc_ids: Only nodes of these documents.
        metadata_key: The payload's key of metadata.

    Returns:
        An argument of ``QdrantClient.delete``; all points, if nothing is given.
    """
    where = condition(filters, node_ids, doc_ids, metadata_key=metadata_key)
    return {"points_selector": models.FilterSelector(filter=where or models.Filter())}


def text_query(query: str, k: int, filters: NodeFilter | None, mode: str) -> VectorStoreQuery:
    """Make the query that stands for a text.

    Args:
        query: The text.
        k: How many nodes.
        filters: Only those with such metadata.
        mode: Of ``read_query``.

    Returns:
        The query.
    """
    # Filters may be of the one language besides LlamaIndex's, which are those of the type.
    asked: Any = filters
    return VectorStoreQuery(
        query_str=query, similarity_top_k=k, filters=asked, mode=VectorStoreQueryMode(mode)
    )


def read_query(query: VectorStoreQuery, options: dict[str, Any], names: Names) -> Request:
    """Translate a query.

    Args:
        query: In the modes default (dense), sparse, text_search, hybrid, semantic_hybrid. Empty
            lists of ``node_ids`` and ``doc_ids`` mean all, as LlamaIndex passes them.
        options: ``qdrant_filters``, a filter of Qdrant besides; and fields of ``Search``.
        names: Of vectors and payload keys.

    Returns:
        The search.

    Raises:
        ValueError: There is no such mode here, an option has no place in it, it needs a text, or
            there are no such vectors.
        TypeError: There is no such option.
    """
    mode = VectorStoreQueryMode(query.mode)
    if mode not in _MODES:
        raise ValueError(
            f"vector_store_query_mode must be one of {', '.join(one.value for one in _MODES)}; "
            f"got {mode.value!r}"
        )
    is_hybrid, is_sparse = mode in _HYBRID, mode in _SPARSE
    for name, value, has_place in (
        ("alpha", query.alpha, is_hybrid),
        ("hybrid_top_k", query.hybrid_top_k, is_hybrid),
        ("sparse_top_k", query.sparse_top_k, is_hybrid or is_sparse),
    ):
        if value is not None and not has_place:
            raise ValueError(f"{name}={value!r} has no place in the mode {mode.value!r}")
    k, rankings = _rankings(query, is_hybrid=is_hybrid, is_sparse=is_sparse)
    if query.query_str is None and (is_hybrid or is_sparse or query.query_embedding is None):
        raise ValueError(f"a query in the mode {mode.value!r} needs its text: pass query_str=")
    rest = dict(options)
    params = rest.get("search_params")
    if isinstance(params, dict):
        rest["search_params"] = models.SearchParams(**params)
    where = condition(
        query.filters,
        query.node_ids or None,
        query.doc_ids or None,
        rest.pop("qdrant_filters", None),
        names.metadata,
    )
    for kind, is_asked, vector_name in (
        ("dense", rankings.dense, names.dense),
        ("sparse", rankings.sparse, names.sparse),
    ):
        if is_asked and vector_name is None:
            raise ValueError(
                f"the mode {mode.value!r} searches {kind} vectors, which this store has not, since "
                f"its {kind}_vector_name is None"
            )
    return Request(
        query.query_str or "",
        k,
        check_count("similarity_top_k", query.similarity_top_k),
        Search(where, **rest),
        rankings,
    )


def _rankings(query: VectorStoreQuery, *, is_hybrid: bool, is_sparse: bool) -> tuple[int, Rankings]:
    if is_hybrid:
        k = query.similarity_top_k if query.hybrid_top_k is None else query.hybrid_top_k
        return check_count("hybrid_top_k", k), Rankings(
            vector=query.query_embedding, alpha=query.alpha, sparse_k=query.sparse_top_k
        )
    if is_sparse:
        k = query.similarity_top_k if query.sparse_top_k is None else query.sparse_top_k
        return check_count("sparse_top_k", k), Rankings(dense=False, multi=False)
    vector = query.query_embedding
    return query.similarity_top_k, Rankings(sparse=False, multi=False, vector=vector)


def query_result(found: Sequence[ScoredPoint], names: Names) -> VectorStoreQueryResult:
    """Give what was found in LlamaIndex's form.

    Args:
        found: Points and their scores, best first.
        names: Of payload keys.

    Returns:
        Nodes, scores and ids.
    """
    nodes = [read_node(point, None, names) for point, _ in found]
    return VectorStoreQueryResult(
        nodes=nodes,
        similarities=[score for _, score in found],
        ids=[node.node_id for node in nodes],
    )
