"""An ``M3Index`` as LlamaIndex's vector stores are used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index.core.schema import BaseNode, QueryBundle
from llama_index.core.vector_stores.simple import NAMESPACE_SEP
from llama_index.core.vector_stores.types import (
    DEFAULT_PERSIST_FNAME,
    BasePydanticVectorStore,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from pydantic import BaseModel, Field, PrivateAttr, SkipValidation

from llamaindex_m3.filters import NodeFilter
from llamaindex_m3.index_files import write_state
from llamaindex_m3.index_options import query_mode, search_options
from llamaindex_m3.nodes import NodeCollection, ScoredNode


class M3NodeStore(BasePydanticVectorStore):
    """The nodes of an ``M3Index`` as a vector store: ``index.vector_store``.

    What is added or deleted here is added to or deleted from the index. It encodes by itself, so
    embeddings that nodes bring are passed over, and queries need none. A query's own embedding
    takes the place of its dense vector: what takes an index over this view encodes queries as
    for any vector store, so ``VectorStoreIndex.from_vector_store`` needs an ``M3Embedding`` over
    the same model as its ``embed_model``. An ``IngestionPipeline`` hands nodes on only with
    embeddings: have the same ``M3Embedding`` among its transformations.

    ``StorageContext.persist`` has it save the whole storage context beside LlamaIndex's files.
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    nodes: SkipValidation[NodeCollection] = Field(exclude=True, description="The nodes.")
    weights: tuple[float, float, float] = Field(
        default=(1.0, 0.3, 1.0), description="Of the three scores in hybrid queries."
    )

    _index: Any = PrivateAttr(default=None)

    @classmethod
    def of_index(cls, index: Any, nodes: NodeCollection, weights: Sequence[float]) -> M3NodeStore:
        """Make the view of an index.

        Args:
            index: The ``M3Index``.
            nodes: Its nodes.
            weights: Of its hybrid mode.

        Returns:
            The view.
        """
        dense, sparse, colbert = weights
        store = cls(nodes=nodes, weights=(dense, sparse, colbert))
        store._index = index
        return store

    # LlamaIndex pickles every attribute for a trial, which never ends with an index that holds
    # its store, and drops what it cannot pickle.
    def __getstate__(self) -> dict[Any, Any]:
        return BaseModel.__getstate__(self)

    def __setstate__(self, state: dict[Any, Any]) -> None:
        BaseModel.__setstate__(self, state)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex stores."""
        return "M3NodeStore"

    @property
    def client(self) -> NodeCollection:
        """The nodes."""
        return self.nodes

    @property
    def index(self) -> Any:
        """The ``M3Index``; ``None`` while it is being loaded."""
        return self._index

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: NodeFilter | None = None
    ) -> list[BaseNode]:
        """Give nodes without searching.

        Args:
            node_ids: Their ids; by default all.
            filters: Only those with such metadata.

        Returns:
            Copies of them.
        """
        return self.nodes.nodes(node_ids, filters)

    def add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """Encode nodes and add them to the index.

        As with other vector stores, the document store is left to who calls this.

        Args:
            nodes: The nodes; those without text are left out.

        Returns:
            The ids of those that were added.
        """
        added: list[str] = self._index.add_to_store(list(nodes))
        return added

    async def async_add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """Do ``add`` without holding up the event loop; encoding occupies no thread."""
        added: list[str] = await self._index.aadd_to_store(list(nodes))
        return added

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        """Delete the nodes of a document.

        Args:
            ref_doc_id: Its id.
        """
        self._index.delete_ref_doc(ref_doc_id, delete_from_docstore=True)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: NodeFilter | None = None,
        **_: Any,
    ) -> None:
        """Delete nodes.

        Args:
            node_ids: Their ids; unknown ones are ignored.
            filters: Only those with such metadata.

        Raises:
            ValueError: Neither is given; ``clear`` deletes all.
        """
        if node_ids is None and filters is None:
            raise ValueError("pass node_ids or filters; clear() deletes all nodes")
        self._delete([node.node_id for node in self.nodes.nodes(node_ids, filters)])

    def clear(self) -> None:
        """Delete all nodes."""
        self._delete(self.nodes.node_ids())

    def _delete(self, node_ids: list[str]) -> None:
        self._index.delete_nodes(node_ids, delete_from_docstore=True)

    def query(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """Find the best nodes.

        Args:
            query: In the modes default (dense), sparse, text_search, hybrid, semantic_hybrid. An
                empty list of ``node_ids`` means all nodes, as LlamaIndex passes it.
            **options: ``fetch_k`` and ``exhaustive``, as of ``M3Index.as_retriever``.

        Returns:
            Copies of nodes, their ids and scores.

        Raises:
            ValueError: There is no such mode here, an option has no place in it, or there is
                neither a text nor a vector, or no text where others than dense scores count.
        """
        return _result(self.nodes.search(**self._asked(query, options)))

    async def aquery(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """Do ``query`` without holding up the event loop; encoding occupies no thread."""
        return _result(await self.nodes.asearch(**self._asked(query, options)))

    def _asked(self, query: VectorStoreQuery, options: dict[str, Any]) -> dict[str, Any]:
        """Arguments of ``NodeCollection.search``."""
        if not query.query_str and query.query_embedding is None:
            raise ValueError("the query has neither query_str nor query_embedding: pass one")
        own = search_options(
            query_mode(query.mode),
            self.weights,
            similarity_top_k=query.similarity_top_k,
            alpha=query.alpha,
            sparse_top_k=query.sparse_top_k,
            hybrid_top_k=query.hybrid_top_k,
            fetch_k=options.pop("fetch_k", None),
        )
        return dict(
            query=QueryBundle(query.query_str or "", embedding=query.query_embedding),
            k=own.pop("similarity_top_k"),
            filters=query.filters,
            node_ids=query.node_ids or None,
            doc_ids=query.doc_ids,
            **{"exhaustive": None, **own, **options},
        )

    def persist(self, persist_path: str, fs: Any = None) -> None:
        """Save the whole storage context that the index is in: see ``index_files``.

        LlamaIndex calls this after it has written its own files.

        Args:
            persist_path: LlamaIndex's name for the file of this store.
            fs: Must be local, if given.

        Raises:
            ValueError: The file system is not local, or the file is another than LlamaIndex's own,
                by which alone it can be loaded.
            OSError: Something could not be written; the state before is as it was.
        """
        if fs is not None and "file" not in fs.protocol:
            raise ValueError(
                f"an M3Index is saved on local disks only; got {type(fs).__name__}: save it "
                "locally and copy the folder"
            )
        name = namespace(self._index.index_id)
        file = f"{name}{NAMESPACE_SEP}{DEFAULT_PERSIST_FNAME}"
        folder, found = str(persist_path)[: -len(file)], str(persist_path)[-len(file) :]
        if found != file or (folder and not folder.endswith(("/", os.sep))):
            asked = Path(persist_path).name.removeprefix(f"{name}{NAMESPACE_SEP}")
            raise ValueError(
                f"vector_store_fname={asked!r} cannot be honoured: an M3Index is saved with its "
                "storage context under LlamaIndex's own names, by which alone it can be loaded; "
                "save it again without"
            )
        storage = self._index.storage_context
        stores = {
            other: one.nodes
            for other, one in storage.vector_stores.items()
            if isinstance(one, M3NodeStore)
        }
        write_state(Path(folder), storage, stores | {name: self.nodes})


def namespace(index_id: str) -> str:
    """The name of an index's nodes among the vector stores of a storage context."""
    return f"m3-{index_id}"


def _result(found: list[ScoredNode]) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(
        nodes=[node for node, _, _ in found],
        similarities=[score for _, score, _ in found],
        ids=[node.node_id for node, _, _ in found],
    )
