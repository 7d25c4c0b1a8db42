"""An index over M3's three representations, as LlamaIndex's bge-m3 managed index has them."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from llama_index.core.callbacks import CallbackManager
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.data_structs import IndexDict
from llama_index.core.indices.base import BaseIndex
from llama_index.core.schema import BaseNode, IndexNode, TransformComponent
from llama_index.core.storage.docstore.types import RefDocInfo
from llama_index.core.storage.storage_context import StorageContext
from typing_extensions import Self

from llamaindex_m3.filters import NodeFilter
from llamaindex_m3.index_storage import (
    WEIGHTS,
    M3IndexRetriever,
    M3NodeStore,
    held_nodes,
    load_storage,
    namespace,
)
from llamaindex_m3.nodes import NodeCollection, checked_node
from m3_core.arguments import check_distinct
from m3_core.scoring import normalized_weights

Mode = Literal["dense", "sparse", "colbert", "hybrid"]


class M3Index(BaseIndex[IndexDict]):
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

    ``storage_context.persist(folder)`` saves it, ``M3Index.from_persist_dir(folder)`` loads it;
    LlamaIndex's ``load_index_from_storage`` knows only its own classes.

    Args:
        nodes: Nodes to begin with; those without text are left out.
        objects: As of ``BaseIndex``.
        index_struct: Of an index that the storage context holds already.
        storage_context: As of ``BaseIndex``.
        callback_manager: As there.
        transformations: As there.
        show_progress: Show a progress bar while nodes are encoded.
        model_name: Local folder or hub repository.
        encoder: An ``m3_core.Encoder`` that is loaded already, in place of the name.
        mode: Of retrievers that do not say otherwise.
        weights: Of dense, lexical and multi-vector scores in hybrid mode; by default the M3
            paper's.
        multi_vectors: Keep multi-vectors, 2 KiB a token with M3's 1,024 dimensions; without, there
            is no mode ``"colbert"``, and hybrid is of the other two.
        **options: Further fields of the embeddings, as ``device`` or ``max_length``.

    Raises:
        ValueError: A mode, weights or options cannot be, or two nodes have one id.

    Example:
        .. code-block:: python

            index = M3Index.from_documents(documents)
            engine = index.as_query_engine(mode="hybrid", similarity_top_k=5)
            index.storage_context.persist("storage")
            index = M3Index.from_persist_dir("storage")
    """

    index_struct_cls = IndexDict

    def __init__(
        self,
        nodes: Sequence[BaseNode] | None = None,
        objects: Sequence[IndexNode] | None = None,
        index_struct: IndexDict | None = None,
        storage_context: StorageContext | None = None,
        callback_manager: CallbackManager | None = None,
        transformations: list[TransformComponent] | None = None,
        show_progress: bool = False,
        *,
        model_name: str | None = None,
        encoder: Any = None,
        mode: Mode = "hybrid",
        weights: Sequence[float] = (1.0, 0.3, 1.0),
        multi_vectors: bool = True,
        **options: Any,
    ) -> None:
        normalized_weights(weights)
        dense, sparse, colbert = weights
        self._weights = (dense, sparse, colbert)
        self._mode = mode
        self._mode_weights(mode)
        if model_name is not None:
            options["model_name"] = model_name
        storage = storage_context or StorageContext.from_defaults()
        if index_struct is None:
            self._nodes = _new_nodes(
                multi_vectors=multi_vectors, encoder=encoder, show_progress=show_progress, **options
            )
        else:
            self._nodes = held_nodes(storage, index_struct.index_id)
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

    @classmethod
    def from_persist_dir(
        cls, persist_dir: str | PathLike[str], index_id: str | None = None, **options: Any
    ) -> Self:
        """Read what ``storage_context.persist`` has written.

        Args:
            persist_dir: The folder.
            index_id: Of the index, where the storage context had several of this class.
            **options: Of the constructor; the model must be the one it was made with.

        Returns:
            The index.

        Raises:
            FileNotFoundError: There is no such folder, or it is not complete.
            IndexFileError: It holds no such index, or several and no id was given; files are cut,
                damaged or do not belong together; or the model or its options are others.
        """
        known = {"multi_vectors", *NodeCollection.model_fields}
        nodes = _new_nodes(**{name: value for name, value in options.items() if name in known})
        storage, struct = load_storage(Path(persist_dir), index_id, nodes)
        return cls(index_struct=struct, storage_context=storage, **options)

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
        verbose: bool = False,
        **engine_options: Any,
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
            verbose: As of ``BaseRetriever``.
            **engine_options: What is meant for the query engine is passed over.

        Returns:
            The retriever; it sees later changes of the index.

        Raises:
            ValueError: Mode, weights or a number cannot be.
        """
        return M3IndexRetriever(
            self._nodes,
            weights=self._mode_weights(mode or self._mode) if weights is None else weights,
            similarity_top_k=similarity_top_k,
            filters=filters,
            node_ids=node_ids,
            doc_ids=doc_ids,
            fetch_k=fetch_k,
            exhaustive=exhaustive,
            callback_manager=self._callback_manager,
            object_map=self._object_map,
            verbose=verbose,
        )

    def build_index_from_nodes(self, nodes: Sequence[BaseNode], **build_kwargs: Any) -> IndexDict:
        """Do what the constructor does with its nodes."""
        struct: IndexDict = super().build_index_from_nodes(_checked(nodes), **build_kwargs)
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
        """Do ``insert_nodes`` off the event loop."""
        await self._nodes.run_async(self.insert_nodes, nodes, **insert_kwargs)

    def _build_index_from_nodes(self, nodes: Sequence[BaseNode], **_: Any) -> IndexDict:
        struct = IndexDict()
        for node_id in self._nodes.insert(nodes):
            struct.nodes_dict[node_id] = node_id
        return struct

    def _insert(self, nodes: Sequence[BaseNode], **_: Any) -> None:
        for node_id in self._nodes.insert(nodes):
            self._index_struct.nodes_dict[node_id] = node_id

    def _delete_node(self, node_id: str, **_: Any) -> None:
        self._nodes.delete([node_id])
        self._index_struct.nodes_dict.pop(node_id, None)

    def _announce(self) -> None:
        store = M3NodeStore(nodes=self._nodes, weights=self._weights)
        self._storage_context.add_vector_store(store, namespace(self.index_id))

    def _mode_weights(self, mode: Mode) -> tuple[float, float, float]:
        known = {**WEIGHTS, "hybrid": self._weights}
        if mode not in known:
            raise ValueError(f"mode must be one of {', '.join(known)}; got {mode!r}")
        return known[mode]


def _checked(nodes: Sequence[BaseNode]) -> list[BaseNode]:
    checked = [checked_node(node) for node in nodes]
    check_distinct([node.node_id for node in checked])
    return checked


def _new_nodes(*, multi_vectors: bool = True, **options: Any) -> NodeCollection:
    stored = ("dense", "sparse", "colbert") if multi_vectors else ("dense", "sparse")
    return NodeCollection(stored=stored, **options)
