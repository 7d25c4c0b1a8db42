"""Nodes with M3's representations in memory: what the retrievers and the index hold."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from llama_index.core.constants import DATA_KEY, TYPE_KEY
from llama_index.core.schema import (
    BaseNode,
    Document,
    IndexNode,
    MetadataMode,
    NodeWithScore,
    QueryBundle,
)
from llama_index.core.storage.docstore.utils import json_to_doc
from pydantic import Field, PrivateAttr, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from llamaindex_m3.filters import NodeFilter, to_expression
from llamaindex_m3.options import EncoderFields, hint
from m3_core.adapters import Explaining
from m3_core.arguments import check_ids
from m3_core.beside import beside
from m3_core.collection import DEFAULT_WEIGHTS
from m3_core.encoder import PARTS
from m3_core.expressions import Expression

if TYPE_CHECKING:
    from m3_core.collection import DocumentCollection, Hit
    from m3_core.representations import Representations

logger = logging.getLogger(__name__)

ScoredNode = tuple[BaseNode, float, dict[str, float]]

# Of a collection's metadata: the node as LlamaIndex's document store writes it, its document.
_NODE, _DOCUMENT = "node", "ref_doc_id"
# So many nodes are made of their records in about a millisecond.
_NODES_ON_THE_LOOP = 16


class NodeCollection(EncoderFields):
    """Nodes in a collection of the core.

    The text that is encoded is ``get_content(MetadataMode.EMBED)``. Nodes are kept as JSON, so
    those that come back are copies, and what JSON does not have (dates, say) comes back as a
    string. Safe under threads: a search sees each change wholly or not at all.
    """

    roles = ("query",)

    stored: tuple[str, ...] = Field(
        default=("dense", "sparse", "colbert"), frozen=True, description="What is kept of nodes."
    )

    _collection: Any = PrivateAttr()

    def _needed_parts(self) -> tuple[str, ...]:
        return self.stored

    def model_post_init(self, context: Any) -> None:
        """Load the model and begin an empty collection."""
        super().model_post_init(context)
        from m3_core.collection import DocumentCollection

        self._collection = DocumentCollection(self._source)

    def __len__(self) -> int:
        return len(self._documents)

    def __bool__(self) -> bool:
        return True

    def insert(
        self, nodes: Iterable[BaseNode], encoded: Sequence[Representations] | None = None
    ) -> list[str]:
        """Encode nodes and add them; those whose id is known replace what was there.

        Args:
            nodes: The nodes. Those without text are left out, as ``VectorStoreIndex`` does.
            encoded: What ``aencode`` has given for these nodes.

        Returns:
            The ids of those that were added.

        Raises:
            TypeError: An element is no node.
            ValueError: An id comes twice.
        """
        texts, records, ids = _columns(nodes)
        return self._documents.add(
            texts, records, ids, show_progress=self.show_progress, encoded=encoded
        )

    async def ainsert(self, nodes: Iterable[BaseNode]) -> list[str]:
        """Do ``insert`` without holding up the event loop; encoding occupies no thread."""
        texts, records, ids = await beside(_columns, nodes)
        return await self._documents.aadd(texts, records, ids, show_progress=self.show_progress)

    async def aencode(self, nodes: Iterable[BaseNode]) -> list[Representations]:
        """Encode nodes that are to be inserted, for who inserts them otherwise.

        Args:
            nodes: The nodes.

        Returns:
            What ``insert`` takes.
        """
        texts = [text for node in nodes if (text := _text(checked_node(node))).strip()]
        return await self._documents.aencode(texts, show_progress=self.show_progress)

    def delete(self, node_ids: Iterable[str]) -> int:
        """Delete nodes; unknown ids are ignored. Returns how many were there."""
        return self._documents.delete(node_ids)

    def delete_ref_doc(self, ref_doc_id: str) -> int:
        """Delete the nodes of a document. Returns how many there were."""
        return self.delete(self.ids_of_ref_doc(ref_doc_id))

    def ids_of_ref_doc(self, ref_doc_id: str) -> list[str]:
        """Ids of the nodes of a document, in the order of adding."""
        return self._documents.ids({_DOCUMENT: ref_doc_id})

    def node_ids(self) -> list[str]:
        """Ids of all nodes, in the order of adding."""
        return self._documents.ids()

    def by_ref_doc(self) -> dict[str, list[BaseNode]]:
        """Copies of the nodes by the documents that they are of; those of none are left out."""
        found: dict[str, list[BaseNode]] = {}
        for node in self.nodes():
            if node.ref_doc_id is not None:
                found.setdefault(node.ref_doc_id, []).append(node)
        return found

    def nodes(
        self, node_ids: Sequence[str] | None = None, filters: NodeFilter | None = None
    ) -> list[BaseNode]:
        """Give nodes without searching.

        Args:
            node_ids: Their ids; unknown ones are left out. ``None``: all.
            filters: Only those with such metadata.

        Returns:
            Copies of them.
        """
        accept = _test(filters, None)
        listed = self._documents.get(self.node_ids() if node_ids is None else check_ids(node_ids))
        return [
            _node(record) for _, _, record in listed if accept is None or accept.evaluate(record)
        ]

    def search(
        self,
        query: QueryBundle,
        k: int,
        *,
        filters: NodeFilter | None = None,
        node_ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
        **options: Any,
    ) -> list[ScoredNode]:
        """Find the best nodes for a query.

        Args:
            query: Its ``embedding``, if there is one, takes the place of the dense vector; else
                the mean of the vectors of its ``custom_embedding_strs``, if there are some. Both
                are scaled to length 1 where the nodes' vectors are, so that scores are cosines.
                Lexical weights and multi-vectors are always those of ``query_str``.
            k: How many nodes at most.
            filters: Only nodes with such metadata.
            node_ids: Only these nodes.
            doc_ids: Only nodes of these documents.
            **options: Of ``DocumentCollection.search``.

        Returns:
            Copies of the nodes, best first, with what they are sorted by and the scores by
            representation that it was made of.

        Raises:
            ValueError: The query has a vector and no text where others than dense scores count.
        """
        several = self._to_average(query)
        self._check_text(query, options.get("weights", DEFAULT_WEIGHTS))
        found = self._documents.search(
            query.query_str,
            k,
            where=_test(filters, doc_ids),
            ids=node_ids,
            vector=_mean(self._source.queries(several)) if several else query.embedding,
            **options,
        )
        return _scored(found)

    async def asearch(
        self,
        query: QueryBundle,
        k: int,
        *,
        filters: NodeFilter | None = None,
        node_ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
        **options: Any,
    ) -> list[ScoredNode]:
        """Do ``search`` without holding up the event loop; encoding occupies no thread."""
        several = self._to_average(query)
        self._check_text(query, options.get("weights", DEFAULT_WEIGHTS))
        found = await self._documents.asearch(
            query.query_str,
            k,
            where=_test(filters, doc_ids),
            ids=node_ids,
            vector=_mean(await self._source.aqueries(several)) if several else query.embedding,
            **options,
        )
        if len(found) <= _NODES_ON_THE_LOOP:
            return _scored(found)
        return await beside(_scored, found)

    def save(self, path: str | PathLike[str]) -> None:
        """Write nodes and representations into a file; an older one stays if this fails."""
        self._documents.save(path)

    def load(self, path: str | PathLike[str]) -> None:
        """Take over what ``save`` has written, in place of what is here.

        Args:
            path: The file.

        Raises:
            FileNotFoundError: There is no such file.
            IndexFileError: It is cut, damaged or something else, or the model or its options are
                others.
        """
        from m3_core.collection import DocumentCollection

        self._collection = DocumentCollection.load(path, self._source)

    @property
    def _documents(self) -> DocumentCollection:
        collection: DocumentCollection = self._collection
        return collection

    def _to_average(self, query: QueryBundle) -> list[str]:
        """The texts whose mean takes the place of the query's dense vector, if any."""
        if query.embedding is not None or "dense" not in self.stored:
            return []
        return query.custom_embedding_strs or []

    def _check_text(self, query: QueryBundle, weights: Sequence[float]) -> None:
        """Check that a query that brings a vector of its own has a text for the other scores."""
        has_vector = query.embedding is not None or query.custom_embedding_strs
        # What is no text at all is refused where it is encoded.
        if not has_vector or not isinstance(query.query_str, str) or query.query_str.strip():
            return
        needed = {name for name, weight in zip(PARTS, weights, strict=True) if weight}
        needed = (needed & set(self.stored)) - {"dense"}
        if needed:
            raise ValueError(
                f"the query has a vector and no text, and {' and '.join(sorted(needed))} scores "
                "need one: pass query_str too, or search by dense scores alone"
            )


def new_nodes(owner: type[Any], **options: Any) -> NodeCollection:
    """Begin an empty collection for a public class.

    Args:
        owner: The class, which errors name instead of ``NodeCollection``.
        **options: Fields of ``NodeCollection``.

    Returns:
        The collection.

    Raises:
        ValueError: There is no such option, or its value cannot be.
    """
    unknown = sorted(options.keys() - NodeCollection.model_fields.keys())
    if unknown:
        own = (vars(one).get("__init__") for one in owner.__mro__ if one.__module__ != "builtins")
        taken = {name for one in own if one for name in inspect.signature(one).parameters}
        hidden = {"self", "args", "kwargs", "options", "nodes", "stored"}
        names = sorted((taken | NodeCollection.model_fields.keys()) - hidden)
        raise ValueError(
            f"{owner.__name__} has no option {', '.join(map(repr, unknown))}"
            f"{hint(unknown[0], names)}: it takes {', '.join(names)}"
        )
    try:
        return NodeCollection(**options)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, one['loc']))}={one['input']!r}: {one['msg']}"
            for one in error.errors()
        )
        raise ValueError(f"{owner.__name__} cannot take {wrong}") from error


def checked_node(node: Any) -> BaseNode:
    """Check that something is a node.

    Args:
        node: Anything.

    Returns:
        The node.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(node, BaseNode):
        raise TypeError(f"nodes must be LlamaIndex nodes; got {type(node).__name__}")
    return node


class NodeExplaining(Explaining):
    """``explain`` of LlamaIndex's nodes."""

    @staticmethod
    def _told(document: BaseNode | NodeWithScore | str) -> str:
        if isinstance(document, str):
            return document
        node = document.node if isinstance(document, NodeWithScore) else document
        return _text(checked_node(node))


def check_listed(what: str, given: Any) -> None:
    """Check that nodes are in a list, since a node by itself is a list of its fields.

    Args:
        what: The argument's name.
        given: Its value.

    Raises:
        TypeError: It is one node, or nothing to iterate over.
    """
    if isinstance(given, (str, BaseNode)) or not isinstance(given, Iterable):
        raise TypeError(f"{what} must be in a list; got {type(given).__name__}")


def checked_documents(documents: Any) -> list[Document]:
    """Check that something is a list of documents, before LlamaIndex's own code works on it.

    Args:
        documents: Documents or other nodes.

    Returns:
        The same as a list.

    Raises:
        TypeError: They are none.
    """
    check_listed("documents", documents)
    listed = list(documents)
    for one in listed:
        if not isinstance(one, BaseNode):
            raise TypeError(
                f"documents must be LlamaIndex documents; got {type(one).__module__}."
                f"{type(one).__name__}: make them by Document(text=...)"
            )
    return listed


def without_objects(nodes: Iterable[BaseNode], objects: dict[str, Any]) -> list[BaseNode]:
    """Give nodes without what ``IndexNode`` stand for, which JSON does not have.

    Args:
        nodes: The nodes, which stay as they are.
        objects: Takes up what they stand for, by their ids.

    Returns:
        The nodes; copies of those that stood for something else than a node.
    """
    check_listed("nodes", nodes)
    kept = []
    for node in nodes:
        if isinstance(node, IndexNode) and not isinstance(node.obj, BaseNode | None):
            objects[node.index_id] = node.obj
            node = node.model_copy(update={"obj": None})
        kept.append(node)
    return kept


def nodes_with_text(nodes: Iterable[BaseNode]) -> list[BaseNode]:
    """Leave nodes without text out, as ``VectorStoreIndex`` does, and say so to the log.

    Args:
        nodes: The nodes.

    Returns:
        Those that have a text.

    Raises:
        TypeError: An element is no node.
    """
    listed = [checked_node(node) for node in nodes]
    filled = [node for node in listed if _text(node).strip()]
    if len(filled) < len(listed):
        logger.warning("%d nodes without text are left out", len(listed) - len(filled))
    return filled


def _text(node: BaseNode) -> str:
    return node.get_content(metadata_mode=MetadataMode.EMBED)


def _columns(nodes: Iterable[BaseNode]) -> tuple[list[str], list[dict[str, Any]], list[str]]:
    """Texts, records and ids of the nodes that have a text."""
    filled = nodes_with_text(nodes)
    ids = [node.node_id for node in filled]
    return [_text(node) for node in filled], [_record(node) for node in filled], ids


def _mean(reps: Representations) -> Any:
    return None if reps.dense_vecs is None else reps.dense_vecs.mean(axis=0)


def _scored(found: Iterable[Hit]) -> list[ScoredNode]:
    return [(_node(one.metadata), one.score, one.scores) for one in found]


def _record(node: BaseNode) -> dict[str, Any]:
    # Without the vector that an ingestion pipeline may have put into it: ours is kept beside it.
    check_writable(node)
    data = node.model_copy(update={"embedding": None}).model_dump(mode="json")
    data["metadata"] = _with_non_finite(data["metadata"], node.metadata)
    return {_NODE: {DATA_KEY: data, TYPE_KEY: node.get_type()}, _DOCUMENT: node.ref_doc_id}


def check_writable(node: BaseNode) -> None:
    """Check that the metadata of a node can be written as JSON.

    Args:
        node: The node.

    Raises:
        TypeError: They hold something that JSON does not have, as numbers of numpy.
    """
    for key, value in node.metadata.items():
        try:
            to_jsonable_python(value)
        except PydanticSerializationError as error:
            raise TypeError(
                f"the metadata of node {node.node_id!r} have {value!r:.80} of "
                f"{type(value).__module__}.{type(value).__name__} under {key!r}, and nodes are "
                "kept as JSON: convert it, a number of numpy by its item()"
            ) from error


def _with_non_finite(dumped: Any, given: Any) -> Any:
    """Put NaN and infinity back, of which pydantic makes null."""
    if dumped is None and isinstance(given, float):
        return given
    if isinstance(dumped, dict) and isinstance(given, Mapping) and len(dumped) == len(given):
        pairs = zip(dumped.items(), given.values(), strict=True)
        return {key: _with_non_finite(one, own) for (key, one), own in pairs}
    if isinstance(dumped, list) and isinstance(given, (list, tuple)):
        return [_with_non_finite(one, own) for one, own in zip(dumped, given, strict=True)]
    return dumped


def _node(record: Mapping[str, Any]) -> BaseNode:
    return json_to_doc(record[_NODE])


def _test(filters: NodeFilter | None, doc_ids: Sequence[str] | None) -> _OfNode | None:
    if filters is None and doc_ids is None:
        return None
    return _OfNode(
        to_expression(filters), None if doc_ids is None else frozenset(check_ids(doc_ids))
    )


@dataclass(frozen=True, slots=True)
class _OfNode(Expression):
    """A condition on the metadata of a stored node, and on its document."""

    where: Expression
    documents: frozenset[str] | None

    def evaluate(self, metadata: Mapping[str, Any]) -> bool:
        if self.documents is not None and metadata[_DOCUMENT] not in self.documents:
            return False
        return self.where.evaluate(metadata[_NODE][DATA_KEY]["metadata"])
