"""Where an ``M3Index`` keeps its nodes, and how they are searched, saved and loaded.

They are one of the vector stores of LlamaIndex's storage context, which saves them with the rest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index.core.data_structs import IndexDict
from llama_index.core.schema import BaseNode, QueryBundle
from llama_index.core.storage.storage_context import StorageContext
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from pydantic import Field, SkipValidation

from llamaindex_m3.nodes import NodeCollection
from llamaindex_m3.retrievers import NodeRetriever
from m3_core.arguments import check_count
from m3_core.errors import IndexFileError
from m3_core.scoring import normalized_weights

WEIGHTS: dict[str, tuple[float, float, float]] = {
    "dense": (1.0, 0.0, 0.0),
    "sparse": (0.0, 1.0, 0.0),
    "colbert": (0.0, 0.0, 1.0),
}
_MODES = {
    VectorStoreQueryMode.DEFAULT: WEIGHTS["dense"],
    VectorStoreQueryMode.SPARSE: WEIGHTS["sparse"],
    VectorStoreQueryMode.TEXT_SEARCH: WEIGHTS["sparse"],
}


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
        normalized_weights(weights)
        self.weights = tuple(weights)
        self.fetch_k = None if fetch_k is None else check_count("fetch_k", fetch_k)
        self.exhaustive = exhaustive

    def _search_options(self) -> dict[str, Any]:
        return {"weights": self.weights, "fetch_k": self.fetch_k, "exhaustive": self.exhaustive}


def namespace(index_id: str) -> str:
    """The name of an index's nodes among the vector stores of a storage context."""
    return f"m3-{index_id}"


def _folder(persist_dir: Path, index_id: str) -> Path:
    """Where a storage context, saved with its default names, keeps an index's nodes."""
    return persist_dir / f"{namespace(index_id)}__vector_store"


class M3NodeStore(BasePydanticVectorStore):
    """The nodes of an ``M3Index`` as a vector store; made by the index, not by users.

    ``StorageContext.persist`` writes them into a folder beside its own files.
    """

    stores_text: bool = True
    is_embedding_query: bool = False
    nodes: SkipValidation[NodeCollection] = Field(exclude=True, description="The nodes.")
    weights: tuple[float, float, float] = Field(
        default=(1.0, 0.3, 1.0), description="Of the three scores in hybrid queries."
    )

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex stores."""
        return "M3NodeStore"

    @property
    def client(self) -> NodeCollection:
        """The nodes."""
        return self.nodes

    def add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """Encode nodes and add them.

        Args:
            nodes: The nodes.

        Returns:
            The ids of those that were added.
        """
        return self.nodes.insert(nodes)

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        """Delete the nodes of a document.

        Args:
            ref_doc_id: Its id.
        """
        self.nodes.delete_ref_doc(ref_doc_id)

    def query(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """Find the best nodes.

        Args:
            query: In the modes default (dense), sparse, text_search, hybrid, semantic_hybrid.
            **options: Of ``DocumentCollection.search``.

        Returns:
            Copies of nodes, their ids and scores.

        Raises:
            ValueError: There is no such mode here.
        """
        modes = {
            **_MODES,
            VectorStoreQueryMode.HYBRID: self.weights,
            VectorStoreQueryMode.SEMANTIC_HYBRID: self.weights,
        }
        if query.mode not in modes:
            raise ValueError(
                f"mode must be one of {', '.join(mode.value for mode in modes)}; "
                f"got {query.mode.value!r}"
            )
        found = self.nodes.search(
            QueryBundle(query.query_str or "", embedding=query.query_embedding),
            query.similarity_top_k,
            filters=query.filters,
            node_ids=query.node_ids,
            doc_ids=query.doc_ids,
            **{"weights": modes[query.mode], "exhaustive": None, **options},
        )
        return VectorStoreQueryResult(
            nodes=[one.node for one in found],
            similarities=[one.get_score() for one in found],
            ids=[one.node.node_id for one in found],
        )

    def persist(self, persist_path: str, fs: Any = None) -> None:
        """Write the nodes into a folder.

        Args:
            persist_path: The name of the folder with ``.json`` behind it.
            fs: Must be local, if given.

        Raises:
            ValueError: The file system is not local.
            OSError: Something could not be written; the older state is as it was.
        """
        if fs is not None and "file" not in fs.protocol:
            raise ValueError(
                f"an M3Index is saved on local disks only; got {type(fs).__name__}: save it "
                "locally and copy the folder"
            )
        # Without the ending, by which LlamaIndex would take the folder for a store of its own.
        self.nodes.save(Path(persist_path).with_suffix(""))


def held_nodes(storage: StorageContext, index_id: str) -> NodeCollection:
    """Give the nodes of an index that a storage context holds.

    Args:
        storage: The storage context.
        index_id: The index.

    Returns:
        The nodes.

    Raises:
        ValueError: It holds none.
    """
    store = storage.vector_stores.get(namespace(index_id))
    if not isinstance(store, M3NodeStore):
        raise ValueError(
            f"the storage context holds no nodes of the M3Index {index_id!r}: load a saved one "
            "with M3Index.from_persist_dir"
        )
    return store.nodes


def load_storage(
    persist_dir: Path, index_id: str | None, nodes: NodeCollection
) -> tuple[StorageContext, IndexDict]:
    """Read what ``StorageContext.persist`` has written.

    Args:
        persist_dir: The folder.
        index_id: Of the index; ``None``: there is only one.
        nodes: Takes over the nodes.

    Returns:
        The storage context with the nodes in it, and the index's structure.

    Raises:
        FileNotFoundError: There is no such folder, or it is not complete.
        IndexFileError: It holds no such index, or several and no id was given; files are cut,
            damaged or do not belong together; or the model or its options are others.
    """
    try:
        storage = StorageContext.from_defaults(persist_dir=str(persist_dir))
        structs = storage.index_store.index_structs()
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError) as error:
        raise IndexFileError(f"a file in {persist_dir} is cut or damaged: {error!r}") from error
    found = {
        one.index_id: one
        for one in structs
        if isinstance(one, IndexDict) and _folder(persist_dir, one.index_id).is_dir()
    }
    if index_id is None and len(found) == 1:
        (index_id,) = found
    if index_id is None or index_id not in found:
        raise IndexFileError(
            f"{persist_dir} holds M3Index {sorted(found)}, asked for was {index_id!r}: give one of "
            "these as index_id, or build the index anew"
        )
    struct = found[index_id]
    nodes.load(_folder(persist_dir, index_id))
    if set(nodes.node_ids()) != set(struct.nodes_dict):
        raise IndexFileError(
            f"the files in {persist_dir} do not belong together: the index store names "
            f"{len(struct.nodes_dict)} nodes, and other ones, {len(nodes)}, are saved: build the "
            "index anew"
        )
    storage.add_vector_store(M3NodeStore(nodes=nodes), namespace(index_id))
    return storage, struct
