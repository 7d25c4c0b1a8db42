"""Retrievers over nodes in memory: lexical alone, and hybrid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from llama_index.core.callbacks import CallbackManager
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.indices.base import BaseIndex
from llama_index.core.schema import BaseNode, IndexNode
from llama_index.core.storage.docstore.types import BaseDocumentStore
from typing_extensions import Self

from llamaindex_m3.filters import NodeFilter
from llamaindex_m3.node_retriever import NodeRetriever
from llamaindex_m3.node_store import M3NodeStore
from llamaindex_m3.nodes import new_nodes, without_objects
from llamaindex_m3.options import refuse_replaced
from m3_core.errors import IndexFileError
from m3_core.scoring import normalized_weights

# The file in the folder that persist is given.
_SAVED = "nodes.m3"
# What LlamaIndex's BM25 retriever takes and lexical weights have no place for.
_OF_BM25: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "nodes": ((), "make the retriever by from_nodes(nodes) or from_defaults(nodes=nodes)"),
    "stemmer": ((None,), "the model's tokenizer cuts words into pieces that it has learnt"),
    "tokenizer": ((None,), "the tokenizer is the model's"),
    "language": (("en",), "the model weighs the words of all its languages by itself"),
    "skip_stemming": ((False, True), ""),
    "token_pattern": ((r"(?u)\b\w\w+\b",), "the tokenizer is the model's"),
    "existing_bm25": ((None,), "load saved nodes by from_persist_dir"),
    "corpus_weight_mask": ((None,), "pass filters=, node_ids= or doc_ids="),
}


class _OwnNodesRetriever(NodeRetriever):
    """A retriever with nodes of its own, which can be changed and saved.

    Args:
        model_name: Local folder or hub repository.
        encoder: An ``m3_core.Encoder`` that is loaded already, in place of the name.
        similarity_top_k: How many nodes to return at most.
        filters: Only nodes with such metadata: ``MetadataFilters``, nested to any depth, or a
            mapping in the language of ``m3_core.filters``, or a function of the metadata.
        node_ids: Only these nodes.
        doc_ids: Only nodes of these documents.
        callback_manager: Told of every retrieval.
        object_map: What ``IndexNode`` stand for, by their index id.
        objects: nodes to begin with, and what they stand for.
        verbose: Print what retrieving an ``IndexNode`` does.
        trace_explanations: While a span of OpenTelemetry is recording, put explanations of what is
            found into a child span ``"m3.explain"``, which encodes it.
        **options: Further fields of the embeddings, as ``device`` or ``max_length``.

    Raises:
        ValueError: ``similarity_top_k`` is below 1, or there is no such option.
    """

    def __init__(
        self,
        model_name: str | None = None,
        *,
        encoder: Any = None,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        filters: NodeFilter | None = None,
        node_ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
        callback_manager: CallbackManager | None = None,
        object_map: dict[str, Any] | None = None,
        objects: list[IndexNode] | None = None,
        verbose: bool = False,
        trace_explanations: bool = False,
        **options: Any,
    ) -> None:
        options = refuse_replaced(options, _OF_BM25)
        if not isinstance(model_name, str | PathLike | None):
            raise TypeError(
                f"model_name is a folder or repository; got {type(model_name).__name__}: nodes "
                f"are passed to {type(self).__name__}.from_nodes"
            )
        if model_name is not None:
            options["model_name"] = model_name
        super().__init__(
            new_nodes(
                type(self),
                stored=self._stored(),
                encoder=encoder,
                **options,
            ),
            similarity_top_k=similarity_top_k,
            filters=filters,
            node_ids=node_ids,
            doc_ids=doc_ids,
            callback_manager=callback_manager,
            object_map=object_map,
            objects=objects,
            verbose=verbose,
            trace_explanations=trace_explanations,
        )
        if objects:
            self.insert_nodes(objects)

    def _stored(self) -> tuple[str, ...]:
        """What is kept of nodes."""
        return ("sparse",)

    @classmethod
    def from_nodes(cls, nodes: Iterable[BaseNode], **options: Any) -> Self:
        """Make a retriever of nodes.

        Args:
            nodes: The nodes.
            **options: Of the constructor.

        Returns:
            The retriever.
        """
        retriever = cls(**options)
        retriever.insert_nodes(nodes)
        return retriever

    @classmethod
    def from_defaults(
        cls,
        index: BaseIndex[Any] | None = None,
        nodes: Iterable[BaseNode] | None = None,
        docstore: BaseDocumentStore | None = None,
        **options: Any,
    ) -> Self:
        """Make a retriever as LlamaIndex's BM25 retriever is made.

        Args:
            index: Of the nodes of an ``M3Index``; of another, those in its document store.
            nodes: Of these nodes.
            docstore: Of the nodes in it.
            **options: Of the constructor.

        Returns:
            The retriever.

        Raises:
            TypeError: ``index`` is none.
            ValueError: Not exactly one of the three is given, or the document store is empty.
        """
        if sum(one is not None for one in (index, nodes, docstore)) != 1:
            raise ValueError("pass exactly one of index, nodes and docstore")
        if index is not None:
            store = getattr(index, "vector_store", None)
            if isinstance(store, M3NodeStore):
                return cls.from_nodes(store.get_nodes(), **options)
            if not isinstance(index, BaseIndex):
                raise TypeError(
                    f"index must be an index; got {type(index).__name__}: pass nodes as nodes="
                )
            docstore = index.docstore
        if docstore is None:
            return cls.from_nodes(nodes or (), **options)
        held = list(docstore.docs.values())
        if not held:
            raise ValueError(
                "the document store holds no nodes: an index over a vector store that keeps the "
                "text leaves it empty; pass the nodes as nodes="
            )
        return cls.from_nodes(held, **options)

    @classmethod
    def from_persist_dir(cls, persist_dir: str | PathLike[str], **options: Any) -> Self:
        """Read what ``persist`` has written.

        Args:
            persist_dir: The folder.
            **options: Of the constructor; the model must be the one it was made with.

        Returns:
            The retriever.

        Raises:
            FileNotFoundError: There is no such folder.
            IndexFileError: No retriever was saved in it; or its file is cut, damaged or something
                else, or the model or its options are others.
        """
        retriever, file = cls(**options), Path(persist_dir) / _SAVED
        if file.parent.is_dir() and not file.exists():
            raise IndexFileError(f"{persist_dir} holds no saved collection: no {_SAVED} is in it")
        retriever._nodes.load(file)
        return retriever

    def __len__(self) -> int:
        return len(self._nodes)

    def __bool__(self) -> bool:
        return True

    def insert_nodes(self, nodes: Iterable[BaseNode]) -> list[str]:
        """Encode nodes and add them; those whose id is known replace what was there.

        Args:
            nodes: The nodes; those without text are left out. What an ``IndexNode`` stands for
                is kept in ``object_map``, and not by ``persist`` unless it is a node.

        Returns:
            The ids of those that were added.

        Raises:
            TypeError: An element is no node.
            ValueError: An id comes twice.
        """
        return self._nodes.insert(without_objects(nodes, self.object_map))

    async def ainsert_nodes(self, nodes: Iterable[BaseNode]) -> list[str]:
        """Do ``insert_nodes`` without holding up the event loop; encoding occupies no thread."""
        return await self._nodes.ainsert(without_objects(nodes, self.object_map))

    def delete(self, node_ids: Iterable[str]) -> int:
        """Delete nodes.

        Args:
            node_ids: Their ids; unknown ones are ignored.

        Returns:
            How many were there.
        """
        return self._nodes.delete(node_ids)

    def delete_ref_doc(self, ref_doc_id: str) -> int:
        """Delete the nodes of a document.

        Args:
            ref_doc_id: Its id.

        Returns:
            How many there were.
        """
        return self._nodes.delete_ref_doc(ref_doc_id)

    def persist(self, persist_dir: str | PathLike[str]) -> None:
        """Write nodes and representations into one file in a folder, whole or not at all.

        Args:
            persist_dir: The folder; made if need be. An older state in it is replaced once the new
                one is complete.

        Raises:
            TypeError: A node holds something that JSON does not have.
            OSError: Something could not be written; the older state is as it was.
        """
        self._nodes.save(Path(persist_dir) / _SAVED)


class M3SparseRetriever(_OwnNodesRetriever):
    """Retrieve nodes by M3's lexical weights, exactly, in memory.

    The score is the sum over shared tokens of the products of their weights: not negative and
    not bounded. Nodes that share no token with the query are not returned, so there may be fewer
    than ``similarity_top_k``. Returned nodes are copies.

    Safe under threads: a search sees each change of the nodes wholly or not at all.

    Example:
        .. code-block:: python

            sparse = M3SparseRetriever.from_nodes(nodes, similarity_top_k=10)
            dense = VectorStoreIndex(nodes, embed_model=M3Embedding()).as_retriever()
            fused = QueryFusionRetriever([dense, sparse], num_queries=1)
    """


class M3HybridRetriever(_OwnNodesRetriever):
    """Retrieve nodes by dense vectors and lexical weights, then rerank with multi-vectors.

    Each text goes through the network once for all representations. The best ``fetch_k`` nodes
    of the dense and of the lexical ranking are candidates; with ``rerank``, all of them are scored
    with their multi-vectors too. The rankings of the candidates are fused.

    With ``fusion="weights"`` the score is the weighted mean of the scores, each computed exactly
    for every candidate: dense is a cosine (-1 to 1), lexical is not negative and not bounded,
    the multi-vector score is a mean of cosines. With ``fusion="rrf"`` it is the sum of
    ``weight / (60 + rank)``, the weights scaled to the sum 1, which says nothing about
    similarity. Returned nodes are copies.

    A query's own ``embedding`` takes the place of its dense vector, and so does the mean of its
    ``custom_embedding_strs``. Multi-vectors are kept in float16: 2 KiB a token with M3's 1,024
    dimensions.

    Args:
        model_name: Local folder or hub repository.
        rerank: Keep multi-vectors and rerank with them.
        fusion: ``"weights"``, or ``"rrf"`` for reciprocal ranks.
        weights: Of dense, lexical and multi-vector scores; the default is that of the M3 paper.
        fetch_k: Candidates of each ranking; by default four times ``similarity_top_k`` and at
            least 100.
        **options: As of ``M3SparseRetriever``.

    Raises:
        ValueError: ``fetch_k`` is below 1, or fusion or weights cannot be.

    Example:
        .. code-block:: python

            retriever = M3HybridRetriever.from_nodes(nodes, similarity_top_k=10, rerank=True)
            found = retriever.retrieve("What do pandas eat?")
            retriever.persist("index")
    """

    def __init__(
        self,
        model_name: str | None = None,
        *,
        rerank: bool = False,
        fusion: Literal["weights", "rrf"] = "weights",
        weights: Sequence[float] = (1.0, 0.3, 1.0),
        fetch_k: int | None = None,
        **options: Any,
    ) -> None:
        self.rerank = rerank
        self.fusion = fusion
        self.weights = weights
        self.fetch_k = fetch_k
        super().__init__(model_name, **options)

    def _stored(self) -> tuple[str, ...]:
        return ("dense", "sparse", "colbert") if self.rerank else ("dense", "sparse")

    def _search_options(self) -> dict[str, Any]:
        weights = self.weights if self.rerank else (*self.weights[:2], 0.0)
        return {"fusion": self.fusion, "weights": weights, "fetch_k": self.fetch_k}

    def _checked(self, name: str, value: Any) -> Any:
        held = vars(self).get("_nodes")
        rerank = value if name == "rerank" else vars(self).get("rerank")
        weights = value if name == "weights" else vars(self).get("weights")
        if name in ("rerank", "weights") and weights is not None and not rerank:
            normalized_weights(weights)
            if not any(weights[:2]):
                raise ValueError(
                    f"weights {tuple(weights)} leave only multi-vectors, which need rerank=True"
                )
        if name == "rerank" and value and held is not None and "colbert" not in held.stored:
            raise ValueError(
                "rerank=True needs multi-vectors, and the nodes are held without: make the "
                "retriever with rerank=True"
            )
        return super()._checked(name, value)
