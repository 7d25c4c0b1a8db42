"""How the nodes of an ``M3Index`` are inserted and deleted."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

from llama_index.core.schema import BaseNode, Document
from typing_extensions import Self

from llamaindex_m3.index_saved import SavedIndex
from llamaindex_m3.index_storage import M3IndexDict
from llamaindex_m3.nodes import (
    NodeCollection,
    check_writable,
    checked_documents,
    checked_node,
    nodes_with_text,
    without_objects,
)
from m3_core.arguments import check_distinct, check_ids
from m3_core.beside import beside
from m3_core.representations import Representations


class ChangingIndex(SavedIndex):
    """An index whose nodes are inserted and deleted; the base of ``M3Index``."""

    _nodes: NodeCollection

    def build_index_from_nodes(self, nodes: Sequence[BaseNode], **build_kwargs: Any) -> M3IndexDict:
        """Do what the constructor does with its nodes."""
        struct: M3IndexDict = super().build_index_from_nodes(_checked(nodes), **build_kwargs)
        return struct

    @classmethod
    def from_documents(cls, documents: Sequence[Document], *args: Any, **options: Any) -> Self:
        """Make an index of documents.

        Args:
            documents: The documents; Settings' transformations cut them into nodes.
            *args: As of ``BaseIndex``.
            **options: Likewise, and those of the class.

        Returns:
            The index.

        Raises:
            TypeError: They are no documents.
        """
        made: Self = super().from_documents(checked_documents(documents), *args, **options)
        return made

    @classmethod
    def from_encoded(cls, folder: str | PathLike[str], **options: Any) -> Self:
        """Make an index of a corpus that ``m3-retrieval encode`` has encoded.

        Nothing is encoded anew. The nodes have the corpus's ids, texts and metadata; these are
        left out of what is embedded, as they were there. Documents without text are left out.

        Args:
            folder: The folder with the Parquet files.
            **options: Of the class; the model must be the one that the corpus was encoded with.
                Multi-vectors are kept if the corpus has them, unless ``multi_vectors=False``.

        Returns:
            The index.

        Raises:
            FileNotFoundError: The folder holds no encoded corpus.
            DatasetError: It is not complete, damaged, without texts, or of another model.
            MissingRepresentationError: It lacks dense vectors or lexical weights.
        """
        from llamaindex_m3.index_encoded import encoded_nodes, opened

        dataset = opened(folder)
        has_multi = "colbert" in dataset.representations
        made = cls([], **{"multi_vectors": has_multi, **options})
        parts = made._nodes.stored
        dataset.model.check(made._nodes._source, dataset.parts(parts), str(folder))
        for nodes, reps in encoded_nodes(dataset, parts):
            made.insert_nodes(nodes, encoded=[reps])
        return made

    def insert(self, document: Document, **insert_kwargs: Any) -> None:
        """Encode a document's nodes and add them.

        Args:
            document: The document; if it was inserted before, its nodes are there twice then.
            **insert_kwargs: As of ``BaseIndex``.

        Raises:
            TypeError: It is no document.
        """
        super().insert(*checked_documents([document]), **insert_kwargs)

    async def ainsert(self, document: Document, **insert_kwargs: Any) -> None:
        """Do ``insert`` without holding up the event loop; encoding occupies no thread."""
        await super().ainsert(*checked_documents([document]), **insert_kwargs)

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
        await beside(self.insert_nodes, checked, encoded=encoded, **insert_kwargs)

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
        super().delete_nodes(check_ids(node_ids), delete_from_docstore, **delete_kwargs)

    async def adelete_nodes(
        self, node_ids: Sequence[str], delete_from_docstore: bool = False, **delete_kwargs: Any
    ) -> None:
        """Do ``delete_nodes`` with the document store's asynchronous methods."""
        await super().adelete_nodes(check_ids(node_ids), delete_from_docstore, **delete_kwargs)

    def delete_ref_doc(
        self, ref_doc_id: str, delete_from_docstore: bool = False, **delete_kwargs: Any
    ) -> None:
        """Delete the nodes of a document, whether or not the document store still knows it.

        Args:
            ref_doc_id: Its id.
            delete_from_docstore: Delete it from the document store too.
            **delete_kwargs: As of ``BaseIndex``.
        """
        self.delete_nodes(
            self._nodes.ids_of_ref_doc(ref_doc_id), delete_from_docstore, **delete_kwargs
        )
        if delete_from_docstore:
            self.docstore.delete_ref_doc(ref_doc_id, raise_error=False)

    async def adelete_ref_doc(
        self, ref_doc_id: str, delete_from_docstore: bool = False, **delete_kwargs: Any
    ) -> None:
        """Do ``delete_ref_doc`` with the document store's asynchronous methods."""
        await self.adelete_nodes(
            self._nodes.ids_of_ref_doc(ref_doc_id), delete_from_docstore, **delete_kwargs
        )
        if delete_from_docstore:
            await self.docstore.adelete_ref_doc(ref_doc_id, raise_error=False)

    def add_to_store(
        self, nodes: Sequence[BaseNode], encoded: Sequence[Representations] | None = None
    ) -> list[str]:
        """Add nodes as to a vector store: the document store, which others keep, stays as it is.

        Args:
            nodes: The nodes; those without text are left out.
            encoded: Their representations, if they are known.

        Returns:
            The ids of those that were added.

        Raises:
            TypeError: An element is no node.
            ValueError: An id comes twice.
        """
        with self._callback_manager.as_trace("insert_nodes"):
            added = self._take(without_objects(_checked(nodes), self._object_map), encoded)
            self._storage_context.index_store.add_index_struct(self._index_struct)
        return added

    async def aadd_to_store(self, nodes: Sequence[BaseNode]) -> list[str]:
        """Do ``add_to_store`` without holding up the event loop."""
        checked = _checked(nodes)
        encoded = await self._nodes.aencode(checked)
        return await beside(self.add_to_store, checked, encoded)

    def _build_index_from_nodes(self, nodes: Sequence[BaseNode], **_: Any) -> M3IndexDict:
        struct = self._new_struct()
        for node_id in self._nodes.insert(nodes):
            struct.nodes_dict[node_id] = node_id
        return struct

    def _insert(
        self, nodes: Sequence[BaseNode], encoded: Sequence[Representations] | None = None, **_: Any
    ) -> None:
        self._take(nodes, encoded)

    def _take(
        self, nodes: Sequence[BaseNode], encoded: Sequence[Representations] | None
    ) -> list[str]:
        added = self._nodes.insert(nodes, encoded)
        self._index_struct.nodes_dict.update(zip(added, added, strict=True))
        return added

    def _delete_node(self, node_id: str, **_: Any) -> None:
        self._nodes.delete([node_id])
        self._index_struct.nodes_dict.pop(node_id, None)

    # Not abstract: LlamaIndex shows whatever implements an abstract method as a span.
    def _new_struct(self) -> M3IndexDict:
        """The structure of an index without nodes."""
        return M3IndexDict()


def _checked(nodes: Sequence[BaseNode]) -> list[BaseNode]:
    listed = [checked_node(node) for node in nodes]
    check_distinct([node.node_id for node in listed])
    for node in listed:
        check_writable(node)
    return nodes_with_text(listed)
