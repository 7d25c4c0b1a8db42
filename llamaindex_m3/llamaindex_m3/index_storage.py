"""Where an ``M3Index`` keeps its nodes, and how they are searched, saved and loaded.

They are one of the vector stores of LlamaIndex's storage context, which saves them with the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from llama_index.core.data_structs import IndexDict
from llama_index.core.data_structs.registry import INDEX_STRUCT_TYPE_TO_INDEX_STRUCT_CLASS
from llama_index.core.data_structs.struct_type import IndexStructType
from llama_index.core.storage.storage_context import StorageContext
from llama_index.core.vector_stores.simple import DEFAULT_VECTOR_STORE, SimpleVectorStore

from llamaindex_m3.index_files import STATE, State, read_state
from llamaindex_m3.node_retriever import NodeRetriever
from llamaindex_m3.node_store import M3NodeStore, namespace
from llamaindex_m3.nodes import NodeCollection
from m3_core.errors import IndexFileError

# LlamaIndex looks types of structures and indices up in dictionaries, and this one is not of its
# own: where this module has not been imported, loading fails with the name as the KeyError.
STRUCT_TYPE = cast("IndexStructType", "llamaindex_m3.M3Index")


# How often to begin anew when a later state takes the place of the one that is read.
_READING_TIMES = 100


@dataclass
class M3IndexDict(IndexDict):
    """The ids of an ``M3Index``'s nodes, under a type by which LlamaIndex takes it for no other.

    Attributes:
        mode: Of retrievers that do not say otherwise; ``None`` in files that do not know it.
        weights: Of the hybrid mode, likewise.
    """

    mode: str | None = None
    weights: list[float] | None = None

    @classmethod
    def get_type(cls) -> IndexStructType:
        """The name that LlamaIndex stores."""
        return STRUCT_TYPE


INDEX_STRUCT_TYPE_TO_INDEX_STRUCT_CLASS[STRUCT_TYPE] = M3IndexDict


class M3IndexRetriever(NodeRetriever):
    """Retrieve from an ``M3Index``; made by its ``as_retriever``.

    Args:
        nodes: The index's nodes.
        weights: Of dense, lexical and multi-vector scores.
        fetch_k: Candidates of each first ranking.
        exhaustive: Score all nodes.
        **options: Of ``NodeRetriever``.
    """

    def __init__(
        self,
        nodes: NodeCollection,
        *,
        weights: Sequence[float],
        fetch_k: int | None = None,
        exhaustive: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__(nodes, **options)
        self.weights = weights
        self.fetch_k = fetch_k
        self.exhaustive = exhaustive

    def _search_options(self) -> dict[str, Any]:
        return {"weights": self.weights, "fetch_k": self.fetch_k, "exhaustive": self.exhaustive}


def held_store(storage: StorageContext, index_id: str) -> M3NodeStore:
    """Give the view of an index that a storage context holds.

    Args:
        storage: The storage context.
        index_id: The index.

    Returns:
        The view.

    Raises:
        ValueError: It holds none.
    """
    store = storage.vector_stores.get(namespace(index_id))
    if not isinstance(store, M3NodeStore):
        raise ValueError(
            f"the storage context holds no nodes of the M3Index {index_id!r}: load a saved one "
            "with M3Index.from_persist_dir(folder); LlamaIndex's load_index_from_storage cannot "
            "read them from a folder"
        )
    return store


def refuse_foreign_store(storage: StorageContext) -> None:
    """Check that a new index passes over no vector store that was meant for it.

    Args:
        storage: Its storage context.

    Raises:
        ValueError: There is one of another kind, and no other index that may use it.
    """
    store = storage.vector_stores.get(DEFAULT_VECTOR_STORE)
    if isinstance(store, (SimpleVectorStore, M3NodeStore, type(None))):
        return
    if any(not isinstance(one, M3IndexDict) for one in storage.index_store.index_structs()):
        return
    raise ValueError(
        f"an M3Index keeps its nodes itself and would leave the {type(store).__name__} of the "
        "storage context empty: leave it out, or use VectorStoreIndex with an M3Embedding over it"
    )


def load_storage(
    persist_dir: Path, index_id: str | None, nodes: NodeCollection
) -> tuple[StorageContext, M3IndexDict]:
    """Read the last whole state that ``StorageContext.persist`` has written.

    Args:
        persist_dir: The folder.
        index_id: Of the index; ``None``: there is only one.
        nodes: Takes over the nodes.

    Returns:
        The storage context with the nodes in it, and the index's structure.

    Raises:
        FileNotFoundError: There is no such folder.
        IndexFileError: It holds no such index, or several and no id was given; files are cut,
            damaged or absent; or the model or its options are others.
    """
    for _ in range(_READING_TIMES):
        try:
            with read_state(persist_dir) as state:
                struct = _struct(persist_dir, state, index_id)
                name = namespace(struct.index_id)
        except FileNotFoundError:
            raise _nothing_saved(persist_dir, index_id) from None
        try:
            nodes.load(state.nodes[name])
        except FileNotFoundError:
            # A later state has taken its place.
            continue
        struct.nodes_dict = {one: one for one in nodes.node_ids()}
        state.storage.add_vector_store(M3NodeStore(nodes=nodes), name)
        return state.storage, struct
    raise IndexFileError(
        f"{persist_dir} lacks files with nodes that {STATE} names: copy the whole folder again, or "
        "build the index anew"
    )


def _struct(persist_dir: Path, state: State, index_id: str | None) -> M3IndexDict:
    found = {
        one.index_id: one
        for one in state.storage.index_store.index_structs()
        if isinstance(one, M3IndexDict) and namespace(one.index_id) in state.nodes
    }
    if index_id is None and len(found) == 1:
        (index_id,) = found
    if index_id is None or index_id not in found:
        raise IndexFileError(
            f"{persist_dir} holds M3Index {sorted(found)}, asked for was {index_id!r}: give one of "
            "these as index_id, or build the index anew"
        )
    return found[index_id]


def _nothing_saved(persist_dir: Path, index_id: str | None) -> Exception:
    if (persist_dir / "multi_embed_store.pkl").exists():
        return IndexFileError(
            f"{persist_dir} was saved by BGEM3Index, whose pickle is not read: build the index "
            "anew from its nodes, M3Index(list(StorageContext.from_defaults("
            "persist_dir=folder).docstore.docs.values()))"
        )
    if not persist_dir.is_dir():
        return FileNotFoundError(f"there is no folder {persist_dir}")
    return IndexFileError(
        f"{persist_dir} holds M3Index [], asked for was {index_id!r}: no storage context with one "
        "was saved there, or none to its end"
    )
