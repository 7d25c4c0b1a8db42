"""An encoded corpus put where it is searched."""

from __future__ import annotations

import importlib
from contextlib import closing
from typing import TYPE_CHECKING, Any

from m3_core.bulk.dataset import EncodedDataset
from m3_core.bulk.progress import Progress
from m3_core.bulk.recorded import RecordedEncoder
from m3_core.errors import DatasetError, StoreError
from m3_core.extras import needs_extra

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterator

    from m3_core.bulk.dataset import EncodedBatch
    from m3_core.encoder import TextEncoder
    from m3_core.stores.qdrant import Distance, LongMultiVectors, Names

_SEARCHED = (("sparse",), ("dense", "sparse"), ("dense", "sparse", "colbert"))
# Where a collection of Qdrant says what its documents were encoded with.
_MADE_WITH = "m3_fingerprint"


def load_into_collection(
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    representations: Collection[str] | None = None,
    encoder: TextEncoder | None = None,
    show_progress: bool | None = False,
) -> int:
    """Write an encoded corpus as the file of a collection in memory.

    ``M3InMemoryVectorStore.load`` and the retrievers of LangChain open it, with the model that it
    was encoded with. No model is needed here.

    Args:
        folder: Where ``encode_dataset`` has written.
        path: The file; an older collection is replaced when the new one is whole.
        representations: What is loaded: ``"sparse"`` alone, ``"dense"`` and ``"sparse"``, or all
            three, for ``rerank=True``; by default all that there is.
        encoder: The model that it shall be searched with, to be compared.
        show_progress: Show a progress bar; ``None``: where standard error is a terminal.

    Returns:
        How many documents.

    Raises:
        FileNotFoundError: The folder holds no encoded corpus.
        DatasetError: It is not complete, damaged, without texts, or of another model; or ``path``
            is a file of another kind.
        MissingRepresentationError: A representation was not encoded.
        TypeError: Metadata hold something that JSON does not have.
    """
    from m3_core.collection import DocumentCollection, is_something_else, kept
    from m3_core.encoder import CachedEncoder

    if is_something_else(path):
        raise DatasetError(
            f"{path} is there and is no collection, so it is not replaced: name another file, or "
            "delete this one first"
        )
    dataset, parts = _opened(folder, representations, encoder)
    if parts not in _SEARCHED:
        choices = "; ".join(", ".join(one) for one in _SEARCHED)
        raise DatasetError(
            f"a collection in memory is searched by one of: {choices}; asked for was "
            f"{', '.join(parts)}"
        )
    collection = DocumentCollection(
        CachedEncoder(RecordedEncoder(dataset.model), parts, reuse=False)
    )
    for batch, texts in _batches(dataset, parts, Progress(show_progress)):
        reps = kept(batch.representations, parts)
        collection.add(texts, batch.metadatas, batch.ids, encoded=[reps])
    collection.save(path)
    return len(collection)


def load_into_qdrant(
    folder: str | os.PathLike[str],
    collection_name: str = "m3",
    *,
    representations: Collection[str] | None = None,
    encoder: TextEncoder | None = None,
    names: Names | None = None,
    distance: Distance = "cosine",
    long_multi_vectors: LongMultiVectors = "error",
    batch_size: int | None = None,
    collection_create_options: dict[str, Any] | None = None,
    client: Any = None,
    show_progress: bool | None = False,
    **where: Any,
) -> int:
    """Put an encoded corpus into a collection of Qdrant, which ``QdrantHybridStore`` opens.

    Documents whose id is there are replaced, so that a load that was interrupted can be repeated.
    No model is needed.

    Args:
        folder: Where ``encode_dataset`` has written.
        collection_name: The collection; made if need be.
        representations: What is loaded; by default all that there is.
        encoder: The model that it shall be searched with, to be compared.
        names: Of vectors and payload keys; by default those of LangChain's ``QdrantHybridStore``.
            LlamaIndex's opens them by ``dense_vector_name="dense"``,
            ``sparse_vector_name="sparse"``, ``multi_vector_name="multi"``,
            ``text_key="page_content"`` and ``metadata_key="metadata"``.
        distance: Of dense vectors, ``"cosine"`` or ``"dot"``.
        long_multi_vectors: For those above Qdrant's limit of 1,048,576 numbers: ``"error"``, or
            ``"pool"``: means of neighbouring vectors.
        batch_size: Documents a request at most; no request is larger than a server takes.
        collection_create_options: Further arguments of ``QdrantClient.create_collection``.
        client: A ``QdrantClient`` to use; it is not closed.
        show_progress: Show a progress bar; ``None``: where standard error is a terminal.
        **where: Of ``QdrantClient`` otherwise: ``path``, ``url``, ``api_key`` and so on.

    Returns:
        How many documents.

    Raises:
        FileNotFoundError: The folder holds no encoded corpus.
        DatasetError: It is not complete, damaged, without texts, or of another model.
        MissingRepresentationError: A representation was not encoded.
        StoreError: Qdrant cannot be reached or refuses, or the collection holds other vectors, or
            those of another model.
        MissingPackageError: The extra ``qdrant`` is not installed.
        ValueError: A multi-vector is too long for Qdrant, two ids are one point there, or there
            is neither ``client`` nor a place.
    """
    with needs_extra("loading into Qdrant", "qdrant", "qdrant_client"):
        importlib.import_module("qdrant_client")
    from m3_core.stores.qdrant import (
        Connection,
        Layout,
        Names,
        NewPoints,
        QdrantCollection,
        refusals_told,
        remembers,
        write_document,
    )

    dataset, parts = _opened(folder, representations, encoder)
    if client is None and not where:
        raise ValueError("name a place for the collection: client=, path= or url=")
    if distance not in ("cosine", "dot"):
        raise ValueError(f"distance must be 'cosine' or 'dot'; got {distance!r}")
    asked = Names() if names is None else names
    # What is not loaded has no vector.
    called = Names(
        asked.dense if "dense" in parts else None,
        asked.sparse if "sparse" in parts else None,
        asked.multi,
        asked.content,
        asked.metadata,
        asked.keyword,
    )
    model = dataset.model
    width = model.colbert_dimension if "colbert" in parts else None
    layout = Layout(model.dimension, width, distance, called)
    made_with = RecordedEncoder(model).fingerprint(parts)
    made: dict[str, Any] = {"metadata": {_MADE_WITH: made_with}} if remembers() else {}
    made |= collection_create_options or {}
    with (
        refusals_told(where),
        closing(
            Connection(collection_name, layout, where, client, None, create_options=made)
        ) as connection,
    ):
        _check_made_with(connection, collection_name, made_with)
        store = QdrantCollection(
            RecordedEncoder(model), connection, long_multi_vectors=long_multi_vectors
        )
        for batch, texts in _batches(dataset, parts, Progress(show_progress)):
            rows = zip(batch.ids, texts, batch.metadatas, strict=True)
            payloads = [write_document(*row, called) for row in rows]
            new = NewPoints(batch.ids, texts, payloads)
            store.add_encoded(new, batch.representations, batch_size=batch_size)
    return len(dataset)


def _opened(
    folder: str | os.PathLike[str],
    representations: Collection[str] | None,
    encoder: TextEncoder | None,
) -> tuple[EncodedDataset, tuple[str, ...]]:
    dataset = EncodedDataset.open(folder)
    if not dataset.has_texts:
        raise DatasetError(
            f"{folder} was encoded without its texts, which stores give back: encode it with them"
        )
    parts = dataset.parts(representations)
    if encoder is not None:
        dataset.model.check(encoder, parts, str(folder))
    return dataset, parts


def _batches(
    dataset: EncodedDataset, parts: tuple[str, ...], progress: Progress
) -> Iterator[tuple[EncodedBatch, list[str]]]:
    with progress.bar("Loading", len(dataset), "text") as advance:
        for batch in dataset.batches(parts):
            yield batch, batch.texts or []
            advance(len(batch))


def _check_made_with(connection: Any, name: str, made_with: str) -> None:
    """Compare with what the collection says of itself, if it was made here."""
    config = connection.call("get_collection").config
    found = (getattr(config, "metadata", None) or {}).get(_MADE_WITH)
    if found is not None and found != made_with:
        raise StoreError(
            f"collection {name!r} holds documents encoded with {found!r}, these were with "
            f"{made_with!r}: use another collection, or encode them with the same model"
        )
