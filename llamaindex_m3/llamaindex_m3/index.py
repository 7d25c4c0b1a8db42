"""An index over M3's three representations, as LlamaIndex's bge-m3 managed index has them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, cast

from llama_index.core.callbacks import CallbackManager
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.indices.registry import INDEX_STRUCT_TYPE_TO_INDEX_CLASS
from llama_index.core.schema import (
    BaseNode,
    IndexNode,
    NodeWithScore,
    QueryType,
    TransformComponent,
)
from llama_index.core.storage.docstore.types import RefDocInfo
from llama_index.core.storage.storage_context import StorageContext
from llama_index.core.vector_stores.types import VectorStoreQueryMode

from llamaindex_m3.embeddings import M3Embedding
from llamaindex_m3.filters import NodeFilter
from llamaindex_m3.index_changes import ChangingIndex
from llamaindex_m3.index_options import (
    REPLACED,
    REPLACED_OF_RETRIEVERS,
    Mode,
    check_engine_options,
    query_mode,
    same_or_either,
    search_options,
)
from llamaindex_m3.index_storage import (
    STRUCT_TYPE,
    M3IndexDict,
    M3IndexRetriever,
    held_store,
    refuse_foreign_store,
)
from llamaindex_m3.node_store import M3NodeStore, namespace
from llamaindex_m3.nodes import (
    NodeCollection,
)
from llamaindex_m3.options import check_assignable, refuse_replaced
from m3_core.collection import DEFAULT_WEIGHTS
from m3_core.explanations import Explanation
from m3_core.scoring import normalized_weights


class _QueryEmbedding(M3Embedding):
    """An embedding of queries alone, so that nodes are encoded for no one else."""

    roles = ("query",)


class M3Index(ChangingIndex):
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
        TypeError: ``objects`` is a string.
        ValueError: A mode, weights or options cannot be, two nodes have one id, or the storage
            context has a vector store of another kind that no other index uses.

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
        if isinstance(objects, str):
            raise TypeError(f"objects are IndexNodes; got {objects!r}: the model is model_name=")
        storage = storage_context or StorageContext.from_defaults()
        if index_struct is None:
            refuse_foreign_store(storage)
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
            mode = mode or cast("Mode | None", index_struct.mode)
            weights = index_struct.weights if weights is None else weights
        self._weights = _checked_weights(DEFAULT_WEIGHTS if weights is None else weights)
        self._mode: Mode = mode or "hybrid"
        search_options(self._mode, self._weights, similarity_top_k=1)
        if index_struct is not None:
            index_struct.mode, index_struct.weights = self._mode, list(self._weights)
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

    @classmethod
    def from_vector_store(cls, vector_store: Any, **_: Any) -> M3Index:
        """Give the index of a view; other vector stores have no room for what it keeps.

        Args:
            vector_store: The ``vector_store`` of an ``M3Index``.

        Returns:
            That index.

        Raises:
            ValueError: It is another vector store.
        """
        index = vector_store.index if isinstance(vector_store, M3NodeStore) else None
        if not isinstance(index, M3Index):
            raise ValueError(
                f"an M3Index keeps its nodes itself, not in a {type(vector_store).__name__}: make "
                "it by M3Index(nodes), or pass that store and an M3Embedding to "
                "VectorStoreIndex.from_vector_store"
            )
        return index

    @property
    def vector_store(self) -> M3NodeStore:
        """The index as LlamaIndex's vector stores are used; changes there are changes here."""
        return held_store(self._storage_context, self.index_id)

    @property
    def mode(self) -> Mode:
        """The mode of retrievers that do not say otherwise; assigned, of those made from then on.

        It is saved with the index.
        """
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        search_options(mode, self._weights, similarity_top_k=1)
        self._mode = mode
        self._remember_options()

    @property
    def weights(self) -> tuple[float, float, float]:
        """Of the hybrid mode; assigned, of retrievers made and of the view's searches from then on.

        They are saved with the index.
        """
        return self._weights

    @weights.setter
    def weights(self, weights: Sequence[float]) -> None:
        self._weights = _checked_weights(weights)
        if self.vector_store.index is self:
            self.vector_store.weights = self._weights
        self._remember_options()

    @property
    def weights_for_different_modes(self) -> tuple[float, float, float]:
        """The managed index's name of ``weights``."""
        return self._weights

    @weights_for_different_modes.setter
    def weights_for_different_modes(self, weights: Sequence[float]) -> None:
        self.weights = weights

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign an option of the index.

        Args:
            name: ``mode``, ``weights`` or an attribute of ``BaseIndex``.
            value: Its value.

        Raises:
            AttributeError: There is no such option, or it belongs to retrievers or to the model.
        """
        check_assignable(self, name, _ASSIGNED_ELSEWHERE)
        super().__setattr__(name, value)

    def _remember_options(self) -> None:
        self._index_struct.mode, self._index_struct.weights = self._mode, list(self._weights)
        self._storage_context.index_store.add_index_struct(self._index_struct)

    @property
    def _embed_model(self) -> M3Embedding:
        """What LlamaIndex's own retrievers over an index encode queries with."""
        return _QueryEmbedding(
            encoder=self._nodes._model, reuse_encodings=self._nodes.reuse_encodings
        )

    def __repr__(self) -> str:
        return (
            f"M3Index({self._nodes.model_name!r}, nodes={len(self)}, mode={self.mode!r}, "
            f"weights={self.weights})"
        )

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
        """The nodes of the index by the documents that they are of."""
        return {
            ref_doc_id: RefDocInfo(
                node_ids=[node.node_id for node in nodes],
                metadata=dict(nodes[0].source_node.metadata if nodes[0].source_node else {}),
            )
            for ref_doc_id, nodes in self._nodes.by_ref_doc().items()
        }

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

    def explain(
        self,
        query: QueryType,
        node: BaseNode | NodeWithScore | str,
        *,
        mode: Mode | None = None,
        weights: Sequence[float] | None = None,
    ) -> Explanation:
        """Say why a node matches a query: the parts of its scores, word by word.

        Args:
            query: The query.
            node: A node, with a score or without, or a text; it need not be of the index.
            mode: As of ``as_retriever``.
            weights: Likewise.

        Returns:
            The explanation, with the scores by which such a retriever sorts.
        """
        return self.as_retriever(mode=mode, weights=weights).explain(query, node)

    async def aexplain(
        self,
        query: QueryType,
        node: BaseNode | NodeWithScore | str,
        *,
        mode: Mode | None = None,
        weights: Sequence[float] | None = None,
    ) -> Explanation:
        """Do ``explain`` without holding up the event loop."""
        return await self.as_retriever(mode=mode, weights=weights).aexplain(query, node)

    def _new_struct(self) -> M3IndexDict:
        return M3IndexDict(mode=self._mode, weights=list(self._weights))

    def _announce(self) -> None:
        store = M3NodeStore.of_index(self, self._nodes, self._weights)
        self._storage_context.add_vector_store(store, namespace(self.index_id))


def _checked_weights(weights: Sequence[float]) -> tuple[float, float, float]:
    normalized_weights(weights)
    dense, sparse, colbert = weights
    return dense, sparse, colbert


_RETRIEVER_OPTIONS = tuple(
    name
    for name in inspect.signature(M3Index.as_retriever).parameters
    if name not in ("self", "others")
)
# What is assigned to other objects than the index.
_ASSIGNED_ELSEWHERE = {
    **dict.fromkeys(
        (*_RETRIEVER_OPTIONS, "embed_model"),
        "pass it to as_retriever or as_query_engine, or assign it to the retriever",
    ),
    **dict.fromkeys(
        sorted(NodeCollection.model_fields), "it belongs to the model: make a new index with it"
    ),
}
INDEX_STRUCT_TYPE_TO_INDEX_CLASS[STRUCT_TYPE] = M3Index
