"""The vectors and the payload of a collection, by name."""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qdrant_client import models

from m3_core.errors import StoreError
from m3_core.expressions import is_list, plain

ID = "id"
"""The key of a document's id in the payload."""

Distance = Literal["cosine", "dot"]

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "m3-retrieval")
_UUID = re.compile("[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_NUMBER = re.compile("0|[1-9][0-9]{0,19}")
_DISTANCES = {"cosine": models.Distance.COSINE, "dot": models.Distance.DOT}


@dataclass(frozen=True, slots=True)
class Names:
    """What vectors and payload keys of a collection are called.

    Args:
        dense: The dense vector; None for none.
        sparse: The sparse vector; None for none.
        multi: The multi-vector, if there is one.
        content: The payload's key of the text.
        metadata: The payload's key of metadata; None if they are the payload.
        keyword: What the store's users name the dense vector by, for errors.

    Raises:
        ValueError: There is neither a dense nor a sparse vector, or two things have one name.
    """

    dense: str | None = "dense"
    sparse: str | None = "sparse"
    multi: str = "multi"
    content: str = "page_content"
    metadata: str | None = "metadata"
    keyword: str = "vector_name"

    def __post_init__(self) -> None:
        if self.dense is None and self.sparse is None:
            raise ValueError(
                f"{self.keyword} and sparse_vector_name are both None: nothing to search"
            )
        vectors = [one for one in (self.dense, self.sparse, self.multi) if one is not None]
        keys = [one for one in (self.content, self.metadata, ID) if one is not None]
        for kind, names in (("vectors", vectors), ("payload keys", keys)):
            if len(set(names)) < len(names):
                raise ValueError(
                    f"the names of {kind} must differ; got {', '.join(map(repr, names))}"
                )


@dataclass(frozen=True, slots=True)
class Stored:
    """A document as a point holds it."""

    id: str
    text: str
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """The vectors of a collection.

    Args:
        dense_dim: Size of dense vectors.
        multi_dim: Size of each vector of a multi-vector; None to have none.
        distance: Of dense vectors.
        names: What they are called.
    """

    dense_dim: int
    multi_dim: int | None
    distance: Distance
    names: Names

    def vectors(self) -> dict[str, models.VectorParams]:
        """Describe the dense and the multi-vector.

        Returns:
            What ``create_collection`` takes as ``vectors_config``.
        """
        found = {}
        if self.names.dense is not None:
            distance = _DISTANCES[self.distance]
            found[self.names.dense] = models.VectorParams(size=self.dense_dim, distance=distance)
        if self.multi_dim is not None:
            found[self.names.multi] = models.VectorParams(
                size=self.multi_dim,
                distance=models.Distance.COSINE,
                multivector_config=models.MultiVectorConfig(
                    comparator=models.MultiVectorComparator.MAX_SIM
                ),
                # They only rerank candidates: a graph over them would never be used.
                hnsw_config=models.HnswConfigDiff(m=0),
            )
        return found

    def sparse_vectors(self) -> dict[str, models.SparseVectorParams]:
        """Describe the sparse vector.

        Returns:
            What ``create_collection`` takes as ``sparse_vectors_config``.
        """
        return {} if self.names.sparse is None else {self.names.sparse: models.SparseVectorParams()}

    def check(self, name: str, params: models.CollectionParams) -> None:
        """Compare with a collection that exists.

        Args:
            name: Its name.
            params: What it is made of.

        Raises:
            StoreError: It lacks a vector that is needed, has it in another form, has
                multi-vectors, which documents that are added here would lack, or sparse vectors
                that Qdrant weights anew.
        """
        there = params.vectors if isinstance(params.vectors, dict) else {"": params.vectors}
        have = {key: _described(one) for key, one in there.items() if one is not None}
        need = {key: _described(one) for key, one in self.vectors().items()}
        sparse = sorted(params.sparse_vectors or {})
        differs = any(have.get(key) != one for key, one in need.items())
        lacks = self.names.sparse is not None and self.names.sparse not in sparse
        if differs or lacks or (self.multi_dim is None and self.names.multi in have):
            raise StoreError(
                f"collection {name!r} has the vectors {have} and the sparse vectors {sparse}; this "
                f"store needs {need} and {sorted(self.sparse_vectors())}: use the model, distance "
                f"and rerank= that it was made with, name its vectors by {self.names.keyword}=, "
                f"sparse_vector_name= (None for none) and multi_vector_name=, or use another "
                f"collection_name"
            )
        own = (params.sparse_vectors or {}).get(self.names.sparse or "")
        if self.names.sparse is not None and own and own.modifier == models.Modifier.IDF:
            raise StoreError(
                f"the sparse vectors {self.names.sparse!r} of collection {name!r} have the "
                f"modifier 'idf', as those of BM25, which would change M3's lexical scores: use "
                f"another collection_name, or another sparse_vector_name="
            )


def _described(params: models.VectorParams) -> str:
    kind = "" if params.multivector_config is None else " multi-vector"
    return f"{params.size} {params.distance.value}{kind}"


def point_id(document_id: str) -> str | int:
    """Make the id of a point, for which Qdrant takes only UUIDs and whole numbers.

    Args:
        document_id: Any string.

    Returns:
        What the string names, if it is a UUID or a whole number; else a UUID, the same for the
        same string.

    Example:
        >>> point_id("panda-en"), point_id("42")
        ('2c65df01-c238-5be3-b70b-0d06b1e3372b', 42)
    """
    if _NUMBER.fullmatch(document_id) and int(document_id) < 2**64:
        return int(document_id)
    if _UUID.fullmatch(document_id):
        return str(uuid.UUID(document_id))
    return str(uuid.uuid5(_NAMESPACE, document_id))


def write_document(
    document_id: str, text: str, metadata: Mapping[str, Any], names: Names
) -> dict[str, Any]:
    """Make the payload that ``read_point`` reads.

    Args:
        document_id: The document's id.
        text: The document.
        metadata: What is known about it.
        names: Of the payload's keys.

    Returns:
        The payload.

    Raises:
        TypeError: The metadata are no mapping, or hold what JSON does not have.
    """
    if not isinstance(metadata, Mapping):
        raise TypeError(f"the metadata of document {document_id!r} must be a mapping")
    kept = {key: _in_json(document_id, key, value) for key, value in dict(metadata).items()}
    own = kept if names.metadata is None else {names.metadata: kept}
    return {**own, names.content: text, ID: document_id}


def _in_json(document_id: str, key: Any, value: Any) -> Any:
    """A value of metadata as Qdrant keeps it, or an error before anything is encoded."""
    if not isinstance(key, str):
        raise TypeError(
            f"the metadata of document {document_id!r} have the key {key!r} of type "
            f"{type(key).__name__}: Qdrant keeps strings as keys"
        )
    value = plain(value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, Mapping):
        return {inner: _in_json(document_id, inner, one) for inner, one in value.items()}
    if is_list(value):
        return [_in_json(document_id, key, one) for one in value]
    raise TypeError(
        f"the metadata of document {document_id!r} have {value!r} of type {type(value).__name__} "
        f"under {key!r}, which Qdrant cannot keep: store what JSON has"
    )


def read_point(point: models.Record | models.ScoredPoint, names: Names) -> Stored:
    """Read the document of a point, whoever has written it.

    Args:
        point: With its payload.
        names: Of the payload's keys.

    Returns:
        The document; its id is the point's, unless it was stored under another one.

    Raises:
        StoreError: The payload has no text, or metadata that are no mapping.
    """
    payload = point.payload or {}
    known = payload.get(ID)
    is_ours = isinstance(known, str) and str(point_id(known)) == str(point.id)
    if names.metadata is None:
        metadata: Any = {k: v for k, v in payload.items() if k not in (names.content, ID)}
    else:
        metadata = payload.get(names.metadata)
    text = payload.get(names.content)
    if not isinstance(text, str):
        raise StoreError(
            f"point {point.id} has no text under {names.content!r}, but the keys "
            f"{sorted(payload)}: name the right one by content_payload_key="
        )
    if not isinstance(metadata, (Mapping, type(None))):
        raise StoreError(
            f"point {point.id} has under {names.metadata!r} no metadata but "
            f"{type(metadata).__name__}: name the right key by metadata_payload_key="
        )
    known_id = known if isinstance(known, str) and is_ours else str(point.id)
    return Stored(known_id, text, dict(metadata or {}))
