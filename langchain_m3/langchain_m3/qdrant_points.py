"""What ``QdrantHybridStore`` sends: schema, points and the one query."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from qdrant_client import models

from m3_core.converters import to_qdrant
from m3_core.errors import StoreError
from m3_core.representations import LexicalWeights, Representations

if TYPE_CHECKING:
    from numpy.typing import NDArray

DENSE, SPARSE, MULTI = "dense", "sparse", "multi"
"""The named vectors."""
TEXT, METADATA, ID = "page_content", "metadata", "id"
"""The keys of the payload; the first two are langchain-qdrant's."""

Fusion = Literal["rrf", "dbsf"]
Distance = Literal["cosine", "dot"]
LongMultiVectors = Literal["error", "pool"]

_LIMIT = 1_048_576  # Qdrant takes fewer numbers than this in one multi-vector
_REQUEST_NUMBERS = 1_000_000  # about 20 MB of JSON; a server takes 32 MB by default
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "m3-retrieval")
_DISTANCES = {"cosine": models.Distance.COSINE, "dot": models.Distance.DOT}
_FUSIONS = {"rrf": models.Fusion.RRF, "dbsf": models.Fusion.DBSF}


def point_id(document_id: str) -> str:
    """Make the id of a point, for which Qdrant takes only UUIDs and whole numbers.

    Args:
        document_id: Any string.

    Returns:
        The same UUID for the same string.

    Example:
        >>> point_id("panda-en")
        '2c65df01-c238-5be3-b70b-0d06b1e3372b'
    """
    return str(uuid.uuid5(_NAMESPACE, document_id))


def fit_multi_vector(
    vectors: NDArray[np.floating[Any]], policy: LongMultiVectors, what: str
) -> NDArray[np.floating[Any]]:
    """Keep a multi-vector below Qdrant's limit of 1,048,576 numbers.

    Args:
        vectors: One text's. Shape: (tokens, dim).
        policy: For a longer one: ``"error"``, or ``"pool"``: means of neighbouring vectors,
            scaled to length 1.
        what: The text's name for the error.

    Returns:
        Shape: (at most 1,048,575 // dim, dim).

    Raises:
        ValueError: It is too long, and the policy is ``"error"``.

    Example:
        >>> fit_multi_vector(np.ones((1500, 1024), np.float32), "pool", "a text").shape
        (750, 1024)
    """
    tokens, dim = vectors.shape
    most = (_LIMIT - 1) // dim
    if tokens <= most:
        return vectors
    if policy == "error":
        raise ValueError(
            f"the multi-vector of {what} has {tokens} x {dim} numbers; Qdrant takes fewer than "
            f"{_LIMIT}, that is {most} tokens: split the text, pass a max_length, or "
            f'long_multi_vectors="pool"'
        )
    width = -(-tokens // most)
    starts = np.arange(0, tokens, width)
    sums = np.add.reduceat(vectors.astype(np.float32), starts, axis=0)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    pooled: NDArray[np.floating[Any]] = sums / np.maximum(lengths, np.finfo(np.float32).tiny)
    return pooled


@dataclass(frozen=True, slots=True)
class Layout:
    """The vectors of a collection.

    Args:
        dense_dim: Size of dense vectors.
        multi_dim: Size of each vector of a multi-vector; None to have none.
        distance: Of dense vectors.
    """

    dense_dim: int
    multi_dim: int | None
    distance: Distance

    def vectors(self) -> dict[str, models.VectorParams]:
        """Describe the dense and the multi-vector.

        Returns:
            What ``create_collection`` takes as ``vectors_config``.
        """
        found = {
            DENSE: models.VectorParams(size=self.dense_dim, distance=_DISTANCES[self.distance])
        }
        if self.multi_dim is not None:
            found[MULTI] = models.VectorParams(
                size=self.multi_dim,
                distance=models.Distance.COSINE,
                multivector_config=models.MultiVectorConfig(
                    comparator=models.MultiVectorComparator.MAX_SIM
                ),
                # They only rerank candidates: a graph over them would never be used.
                hnsw_config=models.HnswConfigDiff(m=0),
            )
        return found

    def check(self, name: str, params: models.CollectionParams) -> None:
        """Compare with a collection that exists.

        Args:
            name: Its name.
            params: What it is made of.

        Raises:
            StoreError: It has other vectors.
        """
        there = params.vectors if isinstance(params.vectors, dict) else {"": params.vectors}
        have = {key: _described(one) for key, one in there.items() if one is not None}
        need = {key: _described(one) for key, one in self.vectors().items()}
        sparse = SPARSE in (params.sparse_vectors or {})
        if have != need or not sparse:
            raise StoreError(
                f"collection {name!r} has the vectors {have} and {'a' if sparse else 'no'} sparse "
                f"vector {SPARSE!r}; this store needs {need} and a sparse one: use the model, "
                f"distance and rerank= that it was made with, or another collection_name"
            )


def _described(params: models.VectorParams) -> str:
    kind = "" if params.multivector_config is None else " multi-vector"
    return f"{params.size} {params.distance.value}{kind}"


def points(
    ids: Sequence[str],
    texts: Sequence[str],
    metadatas: Sequence[Mapping[str, Any]],
    reps: Representations,
    policy: LongMultiVectors,
) -> list[models.PointStruct]:
    """Make the points of documents.

    Args:
        ids: One a document.
        texts: The documents.
        metadatas: One a document.
        reps: Their representations; multi-vectors if the collection has them.
        policy: For multi-vectors above Qdrant's limit.

    Returns:
        One a document.
    """
    made = []
    for row, dense in enumerate(reps.dense_lists()):
        vectors: dict[str, Any] = {DENSE: dense}
        sparse = sparse_vector(reps, row)
        if sparse.indices:
            vectors[SPARSE] = sparse
        if reps.colbert_vecs is not None:
            what = f"document {ids[row]!r}"
            vectors[MULTI] = fit_multi_vector(reps.colbert_vecs[row], policy, what).tolist()
        payload = {TEXT: texts[row], METADATA: dict(metadatas[row]), ID: ids[row]}
        made.append(models.PointStruct(id=point_id(ids[row]), vector=vectors, payload=payload))
    return made


def requests(made: Iterable[models.PointStruct]) -> Iterator[list[models.PointStruct]]:
    """Divide points so that none of the requests is larger than a server takes.

    Args:
        made: The points.

    Yields:
        Some of them, in order.
    """
    batch: list[models.PointStruct] = []
    numbers = 0
    for point in made:
        assert isinstance(point.vector, dict)
        size = sum(_numbers(vector) for vector in point.vector.values())
        if batch and numbers + size > _REQUEST_NUMBERS:
            yield batch
            batch, numbers = [], 0
        batch.append(point)
        numbers += size
    if batch:
        yield batch


def _numbers(vector: Any) -> int:
    if isinstance(vector, models.SparseVector):
        return 2 * len(vector.indices)
    return len(vector) * (len(vector[0]) if vector and isinstance(vector[0], list) else 1)


def sparse_vector(reps: Representations, row: int) -> models.SparseVector:
    """Give one text's lexical weights as Qdrant's.

    Args:
        reps: With lexical weights.
        row: The text.

    Returns:
        Its sparse vector; it may be empty.
    """
    assert isinstance(reps.lexical_weights, LexicalWeights)
    return models.SparseVector(**to_qdrant(reps.lexical_weights[row]))


def hybrid_query(
    reps: Representations,
    k: int,
    fetch_k: int,
    where: models.Filter | None,
    fusion: Fusion,
    multi: NDArray[np.floating[Any]] | None,
) -> dict[str, Any]:
    """Describe the search for one query text.

    Args:
        reps: The query's representations.
        k: Points to return.
        fetch_k: Candidates of each ranking, and of the fused one for reranking.
        where: The filter.
        fusion: Of the dense and the sparse ranking.
        multi: The query's multi-vector, to rerank with it. Shape: (tokens, dim).

    Returns:
        Keywords of ``query_points``.
    """
    prefetch = [
        models.Prefetch(query=reps.dense_lists()[0], using=DENSE, limit=fetch_k, filter=where)
    ]
    sparse = sparse_vector(reps, 0)
    if sparse.indices:
        prefetch.append(models.Prefetch(query=sparse, using=SPARSE, limit=fetch_k, filter=where))
    fused = models.FusionQuery(fusion=_FUSIONS[fusion])
    if multi is None:
        return {"prefetch": prefetch, "query": fused, "limit": k, "with_payload": True}
    return {
        "prefetch": models.Prefetch(prefetch=prefetch, query=fused, limit=fetch_k),
        "query": multi.tolist(),
        "using": MULTI,
        "limit": k,
        "with_payload": True,
    }
