"""A vector store over Qdrant with all three of M3's representations."""

from __future__ import annotations

from inspect import signature
from typing import Any, NoReturn, cast

from langchain_core.documents import Document
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from typing_extensions import Self

from langchain_m3.embeddings import M3Embeddings
from langchain_m3.qdrant_documents import QdrantDocuments
from langchain_m3.qdrant_vectors import StoreModel
from m3_core.arguments import check_count
from m3_core.stores.qdrant import Connection, Distance, Fusion, Layout, LongMultiVectors, Names

# What langchain-qdrant's store takes and this one has another way for.
_REPLACED = {
    "retrieval_mode": "both kinds of vectors are searched; vector_name=None leaves only sparse "
    "ones, sparse_vector_name=None only dense ones",
    "sparse_embedding": "the model gives the sparse vectors itself",
    "validate_embeddings": "they need no check",
    "validate_collection_config": "a collection is always checked; it may hold further vectors",
    "vector_params": "make the collection with the client; it is opened if its vectors fit",
    "sparse_vector_params": "make the collection with the client; it is opened if its vectors fit",
}
_CHOICES = {"fusion": ("rrf", "dbsf"), "long_multi_vectors": ("error", "pool")}
_CLIENT_OPTIONS = ("host", "port", "grpc_port", "prefer_grpc", "https", "prefix", "timeout")


class QdrantHybridStore(QdrantDocuments):
    """Documents in Qdrant with dense vectors, lexical weights and, to rerank, multi-vectors.

    Each text goes through the network once. A search is one query to Qdrant: the best ``fetch_k``
    documents of the dense and of the lexical ranking are fused there, and with ``rerank`` the best
    ``fetch_k`` of the fused ones are ordered by their multi-vectors.

    The score depends on what came last. ``fusion="rrf"``: sum of ``1 / (2 + rank)`` with ranks
    from 0, at most 1, which says nothing about similarity. ``fusion="dbsf"``: sum of both scores,
    each scaled by its distribution among the candidates. ``rerank``: M3's multi-vector score, the
    mean over the query's vectors of the largest cosine; Qdrant itself gives the sum, which is this
    times the number of the query's vectors.

    Where the collection has only dense or only sparse vectors, the score is the similarity of dense
    vectors or the lexical score.

    Collections that langchain-qdrant's ``QdrantVectorStore`` has made with the same model are
    opened by the names of their vectors: ``vector_name=""``, or None if there are only sparse ones,
    and ``sparse_vector_name="langchain-sparse"``, or None if there are only dense ones. Documents
    whose ids are UUIDs or whole numbers are points with these ids, as there; other ids are kept in
    the payload. A document that another program stored has its point's id.

    The collection is made if it does not exist. Without ``path``, ``url`` or a client, it is in
    memory and ends with the process. Asynchronous methods use ``async_client`` where there is
    one, else the synchronous client off the event loop. Safe under threads.

    Args:
        collection_name: The collection.
        rerank: Keep multi-vectors and rerank with them.
        fusion: By reciprocal rank, or by scores scaled to their distribution.
        fetch_k: Candidates of each ranking; by default four times ``k`` and at least 100.
        distance: Of dense vectors: ``"cosine"`` or ``"dot"``, or Qdrant's constants for them.
        vector_name: Of the dense vector, which may be ``""``; None if there shall be none.
        sparse_vector_name: Of the sparse vector; None if there shall be none.
        multi_vector_name: Of the multi-vector, with ``rerank``.
        content_payload_key: Of the text.
        metadata_payload_key: Of metadata.
        collection_create_options: Further arguments of ``QdrantClient.create_collection``, as
            ``on_disk_payload`` or ``quantization_config``.
        force_recreate: Delete what is there of that name, and make the collection anew.
        embedding: An ``M3Embeddings`` whose model is used.
        long_multi_vectors: For texts above Qdrant's limit of 1,048,576 numbers in a multi-vector
            (1,023 tokens of 1,024 dimensions): ``"error"`` before anything is sent, or ``"pool"``:
            means of neighbouring vectors.
        location: ``":memory:"``, as of ``QdrantClient``.
        path: Folder of an embedded Qdrant.
        url: Of a server or cluster.
        api_key: Of the server.
        model_api_key: Of the server at ``base_url``, which holds the model.
        client: A client in place of these; it is not closed here.
        async_client: Likewise for asynchronous methods; alone, synchronous ones do not work.
        **options: Fields of ``M3Embeddings`` that say which model: ``model_name``, ``device``,
            ``query_instruction``, ``encoder`` and so on; and of ``QdrantClient``: ``host``,
            ``port``, ``grpc_port``, ``prefer_grpc``, ``https``, ``prefix``, ``timeout``.

    Raises:
        StoreError: The collection exists and holds other vectors; with ``async_client`` alone, on
            first use.

    Example:
        .. code-block:: python

            store = QdrantHybridStore.from_texts(
                ["Pandas eat bamboo."], model_name="m3-small", rerank=True
            )
            documents = store.similarity_search("What do pandas eat?", k=1)
    """

    def __init__(
        self,
        collection_name: str = "m3",
        *,
        rerank: bool = False,
        fusion: Fusion = "rrf",
        fetch_k: int | None = None,
        distance: Distance | models.Distance = "cosine",
        vector_name: str | None = "dense",
        sparse_vector_name: str | None = "sparse",
        multi_vector_name: str = "multi",
        content_payload_key: str = "page_content",
        metadata_payload_key: str = "metadata",
        collection_create_options: dict[str, Any] | None = None,
        force_recreate: bool = False,
        embedding: M3Embeddings | None = None,
        long_multi_vectors: LongMultiVectors = "error",
        location: str | None = None,
        path: str | None = None,
        url: str | None = None,
        api_key: str | None = None,
        model_api_key: Any = None,
        client: QdrantClient | None = None,
        async_client: AsyncQdrantClient | None = None,
        **options: Any,
    ) -> None:
        for name in options.keys() & _REPLACED.keys():
            raise TypeError(f"QdrantHybridStore has no {name}: {_REPLACED[name]}")
        _check_choice("fusion", fusion, _CHOICES["fusion"])
        near = str(getattr(distance, "value", distance)).lower()
        _check_choice("distance", near, ("cosine", "dot"))
        _check_choice("long_multi_vectors", long_multi_vectors, _CHOICES["long_multi_vectors"])
        self.collection_name = collection_name
        self.rerank = rerank
        self.fusion = fusion
        self.fetch_k = fetch_k if fetch_k is None else check_count("fetch_k", fetch_k)
        self.long_multi_vectors = long_multi_vectors
        self.names = Names(
            vector_name,
            sparse_vector_name,
            multi_vector_name,
            content_payload_key,
            metadata_payload_key,
        )
        must_exist = options.pop("must_exist", False)
        places = {"location": location, "path": path, "url": url, "api_key": api_key}
        places |= {name: options.pop(name, None) for name in _CLIENT_OPTIONS}
        where = {name: value for name, value in places.items() if value is not None}
        if model_api_key is not None:
            options["api_key"] = model_api_key
        self._model = StoreModel(**_with_model(_checked(embedding), options), needed=self._needed())
        encoder = self._model._model
        self._is_following = not options.keys() & {
            "max_length",
            "query_instruction",
            "document_instruction",
        }
        self._embeddings = embedding or M3Embeddings(
            encoder=encoder, show_progress=self._model.show_progress
        )
        width = encoder.colbert_dimension if rerank else None
        layout = Layout(encoder.dimension, width, cast("Distance", near), self.names)
        self._connection = Connection(
            collection_name,
            layout,
            where,
            client,
            async_client,
            must_exist=must_exist,
            force_recreate=force_recreate,
            create_options=collection_create_options,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign ``fusion``, ``fetch_k``, ``long_multi_vectors`` or ``rerank``.

        Args:
            name: Which.
            value: Its value, checked as the constructor's; it counts from the next call on.

        Raises:
            AttributeError: It says what the collection is.
            ValueError: The value is none of the choices, or there are no multi-vectors.
        """
        if "_connection" in vars(self) and not name.startswith("_"):
            self._check_assigned(name, value)
        super().__setattr__(name, value)

    def _check_assigned(self, name: str, value: Any) -> None:
        if name == "rerank":
            if value and not self._collection.has_multi:
                raise ValueError(
                    "the collection has no multi-vectors to rerank with: make a store with "
                    "rerank=True"
                )
        elif name == "fetch_k":
            if value is not None:
                check_count("fetch_k", value)
        elif name in _CHOICES:
            _check_choice(name, value, _CHOICES[name])
        else:
            raise AttributeError(
                f"{name} cannot be assigned, since a store is over one collection: make another "
                "QdrantHybridStore",
                name=name,
                obj=self,
            )

    def __repr__(self) -> str:
        return (
            f"QdrantHybridStore({self.collection_name!r}, model_name={self._model.model_name!r}, "
            f"rerank={self.rerank}, fusion={self.fusion!r})"
        )

    def __copy__(self) -> Self:
        made = type(self).__new__(type(self))
        vars(made).update(vars(self))
        return made

    def __reduce__(self) -> NoReturn:
        """Refuse deep copies and pickles: a connection does not travel."""
        raise TypeError(
            "a QdrantHybridStore holds a connection, which can be neither pickled nor copied: make "
            "another over the same collection with from_existing_collection"
        )

    @property
    def embeddings(self) -> M3Embeddings:
        """The dense embeddings: the object that was given, else one over the store's model."""
        return self._embeddings

    @property
    def client(self) -> QdrantClient | None:
        """The synchronous client, if there is one."""
        return self._connection.client

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Any = None,
        metadatas: list[dict[str, Any]] | None = None,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a store of texts.

        Args:
            texts: The documents.
            embedding: None, or an ``M3Embeddings`` whose model is used.
            metadatas: One mapping a document.
            ids: One a document; random ones where there is none.
            **kwargs: Arguments of the store, and ``batch_size`` of ``add_texts``.

        Returns:
            The store.

        Raises:
            TypeError: ``embedding`` is of another class, which gives dense vectors only.
        """
        batch_size = kwargs.pop("batch_size", None)
        store = cls(embedding=embedding, **kwargs)
        store.add_texts(texts, metadatas, ids, batch_size)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Any = None,
        metadatas: list[dict[str, Any]] | None = None,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a store of texts, as ``from_texts``; only the model is loaded on the event loop."""
        batch_size = kwargs.pop("batch_size", None)
        store = cls(embedding=embedding, **kwargs)
        await store.aadd_texts(texts, metadatas, ids, batch_size)
        return store

    @classmethod
    def from_documents(
        cls, documents: list[Document], embedding: Any = None, **kwargs: Any
    ) -> Self:
        """Make a store of documents, as ``from_texts``; those with an ``id`` keep it."""
        return super().from_documents(documents, embedding, **kwargs)

    @classmethod
    async def afrom_documents(
        cls, documents: list[Document], embedding: Any = None, **kwargs: Any
    ) -> Self:
        """Make a store of documents, as ``afrom_texts``; those with an ``id`` keep it."""
        return await super().afrom_documents(documents, embedding, **kwargs)

    @classmethod
    def from_existing_collection(
        cls, collection_name: str, embedding: Any = None, **kwargs: Any
    ) -> Self:
        """Open a collection that exists, and never make one.

        Args:
            collection_name: The collection.
            embedding: None, or an ``M3Embeddings`` whose model is used.
            **kwargs: Arguments of the store.

        Returns:
            The store.

        Raises:
            StoreError: There is no such collection, or it holds other vectors; with
                ``async_client`` alone, on first use.
        """
        return cls(collection_name, embedding=embedding, must_exist=True, **kwargs)

    def close(self) -> None:
        """Close the client, unless it was given."""
        self._connection.close()

    def _needed(self) -> tuple[str, ...]:
        kept = {
            "dense": self.names.dense is not None,
            "sparse": self.names.sparse is not None,
            "colbert": self.rerank,
        }
        return tuple(name for name, is_kept in kept.items() if is_kept)


def _checked(embedding: Any) -> M3Embeddings | None:
    if embedding is None or isinstance(embedding, M3Embeddings):
        return embedding
    raise TypeError(
        f"embedding must be None or an M3Embeddings, whose model gives all three "
        f"representations; got {type(embedding).__name__}"
    )


def _with_model(embedding: M3Embeddings | None, options: dict[str, Any]) -> dict[str, Any]:
    if embedding is None:
        return options
    if options.keys() & {"encoder", "model_name", "base_url"}:
        raise ValueError(
            "name the model once: by embedding=, or by encoder=, base_url= or model_name="
        )
    return {"encoder": embedding._model} | options


# So that errors about options name the store's own too.
StoreModel.others = frozenset(signature(QdrantHybridStore).parameters) - {"options"}


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
