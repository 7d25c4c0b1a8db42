"""A vector store over Qdrant with all three of M3's representations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, model_validator
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from llamaindex_m3.embeddings import M3Embedding
from llamaindex_m3.filters import NodeFilter
from llamaindex_m3.nodes import NodeExplaining
from llamaindex_m3.options import EncoderFields, refuse_replaced
from llamaindex_m3.qdrant_nodes import (
    Request,
    condition,
    new_points,
    query_result,
    read_node,
    read_query,
    selector,
    text_query,
)
from m3_core.adapters import explained_search
from m3_core.encoder import TextEncoder
from m3_core.stores.qdrant import Connection, Layout, Names, QdrantCollection

# What LlamaIndex's own store takes and this one has another way for.
_REPLACED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "enable_hybrid": ((True,), "pass sparse_vector_name=None for dense vectors alone"),
    "sparse_doc_fn": ((None,), "the model weighs nodes itself"),
    "sparse_query_fn": ((None,), "the model weighs queries itself"),
    "fastembed_sparse_model": ((None,), "the model gives the sparse vectors itself"),
    "hybrid_fusion_fn": ((None,), "pass fusion='rrf' or fusion='dbsf', and alpha to the retriever"),
    "dense_config": ((None,), "make the collection with the client; it is opened if it fits"),
    "sparse_config": ((None,), "make the collection with the client; it is opened if it fits"),
    "parallel": ((1,), "leave it out: nodes are sent in requests that a server takes"),
    "payload_indexes": ((None,), "make them with client.create_payload_index"),
}


class QdrantHybridStore(NodeExplaining, EncoderFields, BasePydanticVectorStore):
    """Nodes in Qdrant with dense vectors, lexical weights and, to rerank, multi-vectors.

    For ``VectorStoreIndex``, ingestion pipelines and retrievers, in the modes default (dense),
    sparse, text_search, hybrid and semantic_hybrid; a search is one query to Qdrant. In hybrid
    mode the best ``fetch_k`` nodes of the dense and of the lexical ranking (``sparse_top_k`` of
    this one) are fused there, and with ``rerank`` the best of the fused ones are ordered by their
    multi-vectors. ``alpha`` weights the fusion by rank, from 0 (lexical) to 1 (dense).

    Beside an ``M3Embedding`` over the same model, as ``store.embed_model``, a node goes through
    the network once and a query too: what the embedding computes for the store is remembered. Of
    multi-vectors the memory holds few (128 MiB): with ``rerank``, hand over some dozens of long
    nodes at a time, by ``insert_batch_size``. The embeddings of nodes and queries, if there are
    any, are the dense vectors; what has none gets the model's own.

    Scores: the similarity of dense vectors in default mode, the lexical score in sparse mode; in
    hybrid mode the sum of ``1 / (2 + rank)`` with ranks from 0 (``fusion="rrf"``), the sum of both
    scores, each scaled by its distribution (``"dbsf"``), or with ``rerank`` M3's multi-vector
    score, the mean over the query's vectors of the largest cosine.

    Payloads, point ids and the names of vectors are those of LlamaIndex's ``QdrantVectorStore``,
    so that each opens collections of the other: with ``enable_hybrid`` as they are, without with
    ``dense_vector_name=""`` and ``sparse_vector_name=None``. Ids of nodes that are neither UUIDs
    nor whole numbers become UUIDs in Qdrant, and are the same again in what comes back.

    The collection is made if it does not exist. Without ``path``, ``url`` or a client, it is in
    memory and ends with the process. Asynchronous methods use ``aclient`` where there is one,
    else the synchronous client off the event loop. Safe under threads.

    Args:
        collection_name: The collection.
        client: A client in place of ``path``, ``url`` and so on; it is not closed here.
        aclient: Likewise for asynchronous methods; alone, synchronous ones do not work.
        **options: The fields below, and those of ``M3Embedding`` that say which model.

    Raises:
        StoreError: The collection exists and holds other vectors; with ``aclient`` alone, on
            first use.

    Example:
        .. code-block:: python

            store = QdrantHybridStore("notes", path="qdrant", rerank=True)
            index = VectorStoreIndex.from_documents(
                documents,
                storage_context=StorageContext.from_defaults(vector_store=store),
                embed_model=store.embed_model,
            )
            retriever = index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=5)
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True)

    stores_text: bool = True
    flat_metadata: bool = False

    collection_name: str = Field(default="m3", frozen=True, description="The collection.")
    rerank: bool = Field(
        default=False, frozen=True, description="Keep multi-vectors and rerank with them."
    )
    fusion: Literal["rrf", "dbsf"] = Field(
        default="rrf", description="By reciprocal rank, or by scores scaled to their distribution."
    )
    fetch_k: int | None = Field(
        default=None,
        gt=0,
        description="Candidates of each ranking in hybrid mode; by default four times as many as "
        "nodes are asked for, and at least 100.",
    )
    distance: Literal["cosine", "dot"] = Field(
        default="cosine", frozen=True, description="Of dense vectors."
    )
    dense_vector_name: str | None = Field(
        default="text-dense",
        frozen=True,
        description="Of the dense vector, '' for the unnamed one; None if there shall be none.",
    )
    sparse_vector_name: str | None = Field(
        default="text-sparse-new",
        frozen=True,
        description="Of the sparse vector; None if there shall be none.",
    )
    multi_vector_name: str = Field(
        default="text-multi", frozen=True, description="Of the multi-vector, with rerank."
    )
    text_key: str = Field(
        default="text",
        description="Of the text in payloads of others, which hold no node of LlamaIndex.",
    )
    metadata_key: str | None = Field(
        default=None,
        frozen=True,
        description="Of the metadata in payloads, where they lie under one key, as those of "
        "LangChain's store and of ``m3-retrieval load`` do under 'metadata'; by default they are "
        "the payload. Nodes that are added have both forms then.",
    )
    batch_size: int | None = Field(
        default=None, gt=0, description="Nodes a request to Qdrant at most."
    )
    long_multi_vectors: Literal["error", "pool"] = Field(
        default="error",
        description="Above Qdrant's limit of 1,048,576 numbers: an error before anything is sent, "
        "or means of neighbouring vectors.",
    )
    collection_create_options: dict[str, Any] | None = Field(
        default=None,
        frozen=True,
        description="Further arguments of QdrantClient.create_collection.",
    )
    path: str | None = Field(
        default=None, frozen=True, exclude=True, description="Folder of an embedded Qdrant."
    )
    url: str | None = Field(
        default=None, frozen=True, exclude=True, description="Of a server; not tried against one."
    )
    api_key: str | None = Field(  # type: ignore[assignment]  # Qdrant's own name for it
        default=None, frozen=True, exclude=True, repr=False, description="Of the server."
    )
    model_api_key: SecretStr | None = Field(
        default=None,
        frozen=True,
        exclude=True,
        repr=False,
        description="Of the server at base_url, which holds the model.",
    )
    client_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        frozen=True,
        exclude=True,
        description="Further arguments of QdrantClient.",
    )

    _connection: Connection = PrivateAttr()

    def __init__(
        self,
        collection_name: str = "m3",
        client: QdrantClient | None = None,
        aclient: AsyncQdrantClient | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**{"collection_name": collection_name, **options})
        places = {"path": self.path, "url": self.url, "api_key": self.api_key}
        where = {name: value for name, value in places.items() if value is not None}
        names = self._names()
        width = self._model.colbert_dimension if self.rerank else None
        self._connection = Connection(
            collection_name,
            Layout(self._model.dimension, width, self.distance, names),
            where | self.client_kwargs,
            client,
            aclient,
            create_options=self.collection_create_options,
        )

    def _server_key(self) -> Any:
        return self.model_api_key

    @model_validator(mode="before")
    @classmethod
    def _refuse_replaced(cls, values: Any) -> Any:
        return refuse_replaced(values, _REPLACED) if isinstance(values, dict) else values

    def __getstate__(self) -> dict[Any, Any]:
        raise TypeError(
            "a QdrantHybridStore holds a connection to Qdrant: make another one in the other "
            "process, with the same path= or url="
        )

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex stores."""
        return "QdrantHybridStore"

    @property
    def client(self) -> QdrantClient | AsyncQdrantClient | None:
        """The synchronous client, else the asynchronous one."""
        return self._connection.client or self._connection.async_client

    @property
    def embed_model(self) -> M3Embedding:
        """Dense vectors of the store's model, for ``VectorStoreIndex`` and pipelines."""
        return M3Embedding(encoder=self._model, show_progress=self.show_progress)

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Add nodes; those whose id is known replace what was there.

        Args:
            nodes: The nodes; an embedding that one has stands for its dense vector.
            **add_kwargs: As of ``QdrantClient.upsert``, as ``wait``.

        Returns:
            Their ids.

        Raises:
            TypeError: An element is no node.
            ValueError: An id comes twice, an embedding is of another size, or a text is too long
                for Qdrant.
        """
        new = new_points(nodes, self._names())
        self._collection.add(
            new, batch_size=self.batch_size, show_progress=self.show_progress, **add_kwargs
        )
        return list(new.ids)

    async def async_add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Do ``add`` without holding up the event loop."""
        new = new_points(nodes, self._names())
        await self._collection.aadd(
            new, batch_size=self.batch_size, show_progress=self.show_progress, **add_kwargs
        )
        return list(new.ids)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document.

        Args:
            ref_doc_id: Its id.
            **delete_kwargs: As of ``QdrantClient.delete``, as ``wait``.
        """
        self._connection.call("delete", **selector(doc_ids=[ref_doc_id]), **delete_kwargs)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Do ``delete`` without holding up the event loop."""
        await self._connection.acall("delete", **selector(doc_ids=[ref_doc_id]), **delete_kwargs)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: NodeFilter | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Delete nodes.

        Args:
            node_ids: Their ids; unknown ones are ignored.
            filters: Only those with such metadata.
            **delete_kwargs: As of ``QdrantClient.delete``, as ``wait``.

        Raises:
            ValueError: Neither is given; ``clear`` deletes all.
            FilterError: Qdrant cannot express the filter.
        """
        selected = self._some(node_ids, filters)
        self._connection.call("delete", **selected, **delete_kwargs)

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: NodeFilter | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Do ``delete_nodes`` without holding up the event loop."""
        selected = self._some(node_ids, filters)
        await self._connection.acall("delete", **selected, **delete_kwargs)

    def clear(self) -> None:
        """Delete all nodes; the collection stays."""
        self._connection.call("delete", **selector())

    async def aclear(self) -> None:
        """Do ``clear`` without holding up the event loop."""
        await self._connection.acall("delete", **selector())

    def get_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: NodeFilter | None = None,
        limit: int | None = None,
    ) -> list[BaseNode]:
        """Give nodes without searching.

        Args:
            node_ids: Their ids, in whose order they come; unknown ones are left out. None: all.
            filters: Only those with such metadata.
            limit: So many at most.

        Returns:
            The nodes with their dense vectors.

        Raises:
            FilterError: Qdrant cannot express the filter.
        """
        found = self._collection.scroll(self._condition(filters, node_ids), limit)
        return self._sorted(found, node_ids)

    async def aget_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: NodeFilter | None = None,
        limit: int | None = None,
    ) -> list[BaseNode]:
        """Do ``get_nodes`` without holding up the event loop."""
        found = await self._collection.ascroll(self._condition(filters, node_ids), limit)
        return self._sorted(found, node_ids)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find the best nodes.

        Args:
            query: In the modes default (dense), sparse, text_search, hybrid, semantic_hybrid; its
                embedding, if it has one, stands for the query's dense vector.
            **kwargs: What retrievers take as ``vector_store_kwargs``: ``qdrant_filters``, a filter
                of Qdrant besides; ``score_threshold``, ``offset``, ``hybrid_fusion``,
                ``search_params``, ``consistency``, ``timeout``, ``shard_key_selector`` of Qdrant.

        Returns:
            Nodes, their scores and ids, best first.

        Raises:
            ValueError: There is no such mode here, an option has no place in it, or the store has
                no such vectors.
            FilterError: Qdrant cannot express the filter.
        """
        asked = read_query(query, kwargs, self._names())
        collection = self._widened(asked)
        found = collection.search(asked.text, asked.k, asked.search, asked.rankings)
        return query_result(found, self._names())

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Do ``query`` without holding up the event loop."""
        asked = read_query(query, kwargs, self._names())
        collection = self._widened(asked)
        found = await collection.asearch(asked.text, asked.k, asked.search, asked.rankings)
        return query_result(found, self._names())

    def search_with_scores(
        self,
        query: str,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        filters: NodeFilter | None = None,
        mode: str = "hybrid",
        **kwargs: Any,
    ) -> list[tuple[BaseNode, float, dict[str, float]]]:
        """Search, and say what each representation says about the nodes that were found.

        Args:
            query: The query.
            similarity_top_k: How many nodes.
            filters: Only those with such metadata.
            mode: As of ``query``.
            **kwargs: As of ``query``.

        Returns:
            Nodes, their scores, and those by ``"dense"``, ``"sparse"`` and ``"colbert"``, as far as
            the mode uses them; best first.
        """
        wanted = text_query(query, similarity_top_k, filters, mode)
        asked = read_query(wanted, kwargs, self._names())
        found = self._collection.search_with_scores(
            asked.text, asked.k, asked.search, asked.rankings
        )
        return [
            (read_node(point, None, self._names()), score, scores) for point, score, scores in found
        ]

    async def asearch_with_scores(
        self,
        query: str,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        filters: NodeFilter | None = None,
        mode: str = "hybrid",
        **kwargs: Any,
    ) -> list[tuple[BaseNode, float, dict[str, float]]]:
        """Do ``search_with_scores`` without holding up the event loop."""
        wanted = text_query(query, similarity_top_k, filters, mode)
        asked = read_query(wanted, kwargs, self._names())
        found = await self._collection.asearch_with_scores(
            asked.text, asked.k, asked.search, asked.rankings
        )
        return [
            (read_node(point, None, self._names()), score, scores) for point, score, scores in found
        ]

    def _explained(self) -> tuple[TextEncoder, dict[str, Any]]:
        # In hybrid mode, where most is to be said.
        collection = self._collection
        return collection.encoder, explained_search(*collection.scored())

    def close(self) -> None:
        """Close the client, unless it was given."""
        self._connection.close()

    def _names(self) -> Names:
        return Names(
            self.dense_vector_name,
            self.sparse_vector_name,
            self.multi_vector_name,
            content=self.text_key,
            metadata=self.metadata_key,
            keyword="dense_vector_name",
        )

    def _condition(
        self, filters: NodeFilter | None, node_ids: Sequence[str] | None
    ) -> models.Filter | None:
        return condition(filters, node_ids, metadata_key=self.metadata_key)

    def _some(self, node_ids: list[str] | None, filters: NodeFilter | None) -> dict[str, Any]:
        if node_ids is None and filters is None:
            raise ValueError("pass node_ids or filters; clear() deletes all nodes")
        return selector(filters, node_ids, metadata_key=self.metadata_key)

    def _needed_parts(self) -> tuple[str, ...]:
        named = {"dense": self.dense_vector_name, "sparse": self.sparse_vector_name}
        kept = [part for part, name in named.items() if name is not None]
        return (*kept, "colbert") if self.rerank else tuple(kept)

    @property
    def _collection(self) -> QdrantCollection:
        # Made for each call of a copy, since fields may be assigned meanwhile.
        own = self._snapshot()
        return QdrantCollection(
            own._source, own._connection, own.fusion, own.fetch_k, own.long_multi_vectors
        )

    def _widened(self, asked: Request) -> QdrantCollection:
        """Where ``hybrid_top_k`` says how many nodes, the other number is of candidates."""
        collection = self._collection
        if asked.least <= asked.k:
            return collection
        fetch_k = collection.fetch_k or max(4 * asked.k, 100)
        return replace(collection, fetch_k=max(fetch_k, asked.least))

    def _sorted(self, found: list[models.Record], node_ids: Sequence[str] | None) -> list[BaseNode]:
        collection = self._collection
        nodes = [read_node(one, collection.dense_of(one), self._names()) for one in found]
        if node_ids is None:
            return nodes
        known = {node.node_id: node for node in nodes}
        return [known[one] for one in dict.fromkeys(node_ids) if one in known]
