"""An index over M3's three representations, as LlamaIndex's bge-m3 managed index has them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any

from llama_index.core.callbacks import CallbackManager
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.indices.registry import INDEX_STRUCT_TYPE_TO_INDEX_CLASS
from llama_index.core.schema import BaseNode, IndexNode, TransformComponent
from llama_index.core.storage.docstore.types import RefDocInfo
from llama_index.core.storage.storage_context import StorageContext
from llama_index.core.vector_stores.types import VectorStoreQueryMode

from llamaindex_m3.filters import NodeFilter
from llamaindex_m3.index_options import (
    REPLACED,
    REPLACED_OF_RETRIEVERS,
    Mode,
    check_engine_options,
    query_mode,
    same_or_either,
    search_options,
)
from llamaindex_m3.index_saved import SavedIndex
from llamaindex_m3.index_storage import (
    STRUCT_TYPE,
    M3IndexDict,
    M3IndexRetriever,
    held_store,
    namespace,
)
from llamaindex_m3.node_store import M3NodeStore
from llamaindex_m3.nodes import checked_node
from llamaindex_m3.options import refuse_replaced
from m3_core.arguments import check_distinct
from m3_core.collection import DEFAULT_WEIGHTS
from m3_core.representations import Representations
from m3_core.scoring import normalized_weights


class M3Index(SavedIndex):
    """An index in memory with M3's dense vectors, lexical weights and multi-vectors.

    Each node goes through the network once. ``as_retriever`` and ``as_query_engine`` take a
    ``mode``; it stands for ``weights_for_different_modes`` of LlamaIndex's bge-m3 managed index:

    - ``"dense"``: cosines (-1 to 1); ``[1, 0, 0]``.
    - ``"sparse"``: lexical weights; ``[0, 1, 0]``. Not negative and not bounded; nodes that share
      no token with the query are not returned.
    - ``"colbert"``: multi-vectors, a mean of cosines; ``[0, 0, 1]``.
    - ``"hybrid"``: the weighted mean of all that is stored; ``weights``.

    Dense and sparse scores are always compared over all nodes, and so are multi-vectors while
    there are at most 1,000 nodes. Beyond that the best ``fetch_k`` of the dense and of the lexical
    ranking (100, or four times ``similarity_top_k``) are candidates, and multi-vectors score those
    exactly. ``exhaustive=True`` scores all nodes whatever their number, in a time that grows with
    their tokens; ``fetch_k`` sets the number of candidates.

    ``persist(folder)`` or ``storage_context.persist(folder)`` saves it, and
    ``M3Index.from_persist_dir(folder)`` loads it. LlamaIndex's ``load_index_from_storage`` gives
    the index of a storage context that is in memory; from a folder it is an error.

    ``vector_store`` is the index as LlamaIndex's vector stores are used, for what takes an index
    over one, as ``VectorIndexAutoRetriever`` does. Pickled, the index takes its nodes along, and
    loads the model again on first use.

    Args:
        nodes: Nodes to begin with; those without text are left out.
        objects: ``IndexNode`` to begin with, with what they stand for.
        index_struct: Of an index that the storage context holds already.
        storage_context: Where the index keeps its nodes and its structure.
        callback_manager: Told of insertions and queries.
        transformations: Applied to documents that are inserted.
        show_progress: Show a progress bar while nodes are encoded.
        model_name: Local folder or hub repository.
        encoder: An ``m3_core.Encoder`` that is loaded already, in place of the name.
        mode: Of retrievers that do not say otherwise.
        weights: Of dense, lexical and multi-vector scores in hybrid mode; by default the M3
            paper's, 1 / 0.3 / 1.
        weights_for_different_modes: The managed index's name of ``weights``.
        index_name: The managed index's name of the id of the index.
        multi_vectors: Keep multi-vectors, 2 KiB a token with M3's 1,024 dimensions; without, there
            is no mode ``"colbert"``, and hybrid is of the other two.
        **options: Further fields of the embeddings, as ``device`` or ``max_length``.

    Raises:
        ValueError: A mode, weights or options cannot be, or two nodes have one id.

    Example:
        .. code-block:: python

            index = M3Index.from_documents(documents)
            engine = index.as_query_engine(mode="hybrid", similarity_top_k=5)
            index.persist("storage")
            index = M3Index.from_persist_dir("storage")
    """

    index_struct_cls = M3IndexDict

    def __init__(
        self,
        nodes: Sequence[BaseNode] | None = None,
        objects: Sequence[IndexNode] | None = None,
        index_struct: M3IndexDict | None = None,
        storage_context: StorageContext | None = None,
        callback_manager: CallbackManager | None = None,
        transformations: list[TransformComponent] | None = None,
        show_progress: bool = False,
        *,
        model_name: str | None = None,
        encoder: Any = None,
        mode: Mode | None = None,
        weights: Sequence[float] | None = None,
        weights_for_different_modes: Sequence[float] | None = None,
        index_name: str | None = None,
        multi_vectors: bool | None = None,
        **options: Any,
    ) -> None:
        names = "weights and weights_for_different_modes"
        weights = same_or_either(names, weights, weights_for_different_modes)
        options = refuse_replaced(options, REPLACED)
        given = {"model_name": model_name, "encoder": encoder, "multi_vectors": multi_vectors}
        options |= {name: value for name, value in given.items() if value is not None}
        storage = storage_context or StorageContext.from_defaults()
        if index_struct is None:
            self._nodes = self._new_nodes({"show_progress": show_progress, **options})
        else:
            store = held_store(storage, index_struct.index_id)
            if options:
                raise ValueError(
                    f"{', '.join(sorted(options))} cannot be set for an index that is in the "
                    "storage context with its model: leave it out"
                )
            self._nodes = store.nodes
            if store.index is not None:
                # Two objects over the same nodes share what is known of them.
                index_struct = store.index.index_struct
                mode = mode or store.index._mode
                weights = store.index._weights if weights is None else weights
        normalized_weights(DEFAULT_WEIGHTS if weights is None else weights)
        dense, sparse, colbert = DEFAULT_WEIGHTS if weights is None else weights
        self._weights = (dense, sparse, colbert)
        self._mode: Mode = mode or "hybrid"
        search_options(self._mode, self._weights, similarity_top_k=1)
        # Read by LlamaIndex's retriever over vector stores, and used by it for none like ours.
        self._embed_model = None
        super().__init__(
            None if nodes is None else list(nodes),
            None if objects is None else list(objects),
            index_struct,
            storage,
            callback_manager,
            transformations,
            show_progress,
        )
        self._announce()
        if index_name:
            self.set_index_id(index_name)

    @property
    def vector_store(self) -> M3NodeStore:
        """The index as LlamaIndex's vector stores are used; changes there are changes here."""
        return held_store(self._storage_context, self.index_id)

    def __len__(self) -> int:
        return len(self._nodes)

    def __bool__(self) -> bool:
        return True

    def set_index_id(self, index_id: str) -> None:
        """Name the index; loading knows it by this name where a folder holds several.

        Args:
            index_id: The name.
        """
        self._storage_context.vector_stores.pop(namespace(self.index_id), None)
        super().set_index_id(index_id)
        self._announce()

    @property
    def ref_doc_info(self) -> dict[str, RefDocInfo]:
        """Documents of the index by their ids, as far as the document store knows them."""
        found = {one: self.docstore.get_ref_doc_info(one) for one in self._nodes.ref_doc_ids()}
        return {one: info for one, info in found.items() if info is not None}

    def as_retriever(
        self,
        *,
        mode: Mode | None = None,
        weights: Sequence[float] | None = None,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        filters: NodeFilter | None = None,
        node_ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
        fetch_k: int | None = None,
        exhaustive: bool | None = None,
        vector_store_query_mode: VectorStoreQueryMode | str | None = None,
        alpha: float | None = None,
        sparse_top_k: int | None = None,
        hybrid_top_k: int | None = None,
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
        **others: Any,
    ) -> M3IndexRetriever:
        """Make a retriever.

        Args:
            mode: ``"dense"``, ``"sparse"``, ``"colbert"`` or ``"hybrid"``; by default the index's.
            weights: Of the three scores, in place of the mode's.
            similarity_top_k: How many nodes to return at most.
            filters: Only nodes with such metadata: ``MetadataFilters``, nested to any depth, or a
                mapping in the language of ``m3_core.filters``, or a function of the metadata.
            node_ids: Only these nodes.
            doc_ids: Only nodes of these documents.
            fetch_k: Candidates of the dense and of the lexical ranking.
            exhaustive: Score all nodes; by default where that is quick: see the class.
            vector_store_query_mode: LlamaIndex's name of a mode: ``"default"`` is dense, as
                there, ``"sparse"`` and ``"text_search"`` are sparse, ``"hybrid"`` and
                ``"semantic_hybrid"`` hybrid.
            alpha: In hybrid mode, from 1 for dense to 0 for lexical scores alone: the weights
                ``(alpha, 1 - alpha, 0)``, since it knows only two. Lexical scores are not
                scaled to 0 to 1 for it.
            sparse_top_k: In sparse mode, how many nodes to return at most; in hybrid mode,
                another name of ``fetch_k``.
            hybrid_top_k: In hybrid mode, how many nodes to return at most.
            callback_manager: By default the index's.
            verbose: As of ``BaseRetriever``.
            **others: What query and chat engines take is passed over: LlamaIndex hands the
                keywords of ``as_query_engine`` and ``as_chat_engine`` to both.

        Returns:
            The retriever; it sees later changes of the index.

        Raises:
            ValueError: There is no such option, an option has no place in the mode, or mode,
                weights or a number cannot be.
        """
        others = refuse_replaced(others, REPLACED_OF_RETRIEVERS)
        weights = same_or_either(
            "weights and weights_for_different_modes",
            weights,
            others.pop("weights_for_different_modes", None),
        )
        if others:
            check_engine_options(others, _RETRIEVER_OPTIONS)
        if vector_store_query_mode is not None:
            asked = query_mode(vector_store_query_mode)
            mode = same_or_either("mode and vector_store_query_mode", mode, asked)
        return M3IndexRetriever(
            self._nodes,
            **search_options(
                mode or self._mode,
                self._weights,
                similarity_top_k=similarity_top_k,
                weights=weights,
                alpha=alpha,
                sparse_top_k=sparse_top_k,
                hybrid_top_k=hybrid_top_k,
                fetch_k=fetch_k,
            ),
            filters=filters,
            node_ids=node_ids,
            doc_ids=doc_ids,
            exhaustive=exhaustive,
            callback_manager=callback_manager or self._callback_manager,
            object_map=self._object_map,
            verbose=verbose,
        )

    def build_index_from_nodes(self, nodes: Sequence[BaseNode], **build_kwargs: Any) -> M3IndexDict:
        """Do what the constructor does with its nodes."""
        struct: M3IndexDict = super().build_index_from_nodes(_checked(nodes), **build_kwargs)
        return struct

    def insert_nodes(self, nodes: Sequence[BaseNode], **insert_kwargs: Any) -> None:
        """Encode nodes and add them; those whose id is known replace what was there.

        Args:
            nodes: The nodes; those without text are left out.
            **insert_kwargs: As of ``BaseIndex``.

        Raises:
            TypeError: An element is no node.
            ValueError: An id comes twice.
        """
        super().insert_nodes(_checked(nodes), **insert_kwargs)

    async def ainsert_nodes(self, nodes: Sequence[BaseNode], **insert_kwargs: Any) -> None:
        """Do ``insert_nodes`` without holding up the event loop; encoding occupies no thread."""
        checked = _checked(nodes)
        encoded = await self._nodes.aencode(checked)
        await asyncio.to_thread(self.insert_nodes, checked, encoded=encoded, **insert_kwargs)

    def delete_nodes(
        self, node_ids: Sequence[str], delete_from_docstore: bool = False, **delete_kwargs: Any
    ) -> None:
        """Delete nodes.

        Args:
            node_ids: Their ids; unknown ones are ignored.
            delete_from_docstore: Delete them from the document store too.
            **delete_kwargs: As of ``BaseIndex``.
        """
        # A copy: LlamaIndex hands over the document store's own list, which shortens meanwhile.
        super().delete_nodes(list(node_ids), delete_from_docstore, **delete_kwargs)

    async def adelete_nodes(
        self, node_ids: Sequence[str], delete_from_docstore: bool = False, **delete_kwargs: Any
    ) -> None:
        """Do ``delete_nodes`` with the document store's asynchronous methods."""
        await super().adelete_nodes(list(node_ids), delete_from_docstore, **delete_kwargs)

    def _build_index_from_nodes(self, nodes: Sequence[BaseNode], **_: Any) -> M3IndexDict:
        struct = M3IndexDict()
        for node_id in self._nodes.insert(nodes):
            struct.nodes_dict[node_id] = node_id
        return struct

    def _insert(
        self, nodes: Sequence[BaseNode], encoded: Representations | None = None, **_: Any
    ) -> None:
        for node_id in self._nodes.insert(nodes, encoded):
            self._index_struct.nodes_dict[node_id] = node_id

    def _delete_node(self, node_id: str, **_: Any) -> None:
        self._nodes.delete([node_id])
        self._index_struct.nodes_dict.pop(node_id, None)

    def _announce(self) -> None:
        store = M3NodeStore.of_index(self, self._nodes, self._weights)
        self._storage_context.add_vector_store(store, namespace(self.index_id))


def _checked(nodes: Sequence[BaseNode]) -> list[BaseNode]:
    checked = [checked_node(node) for node in nodes]
    check_distinct([node.node_id for node in checked])
    return checked


_RETRIEVER_OPTIONS = tuple(
    name
    for name in inspect.signature(M3Index.as_retriever).parameters
    if name not in ("self", "others")
)
INDEX_STRUCT_TYPE_TO_INDEX_CLASS[STRUCT_TYPE] = M3Index
