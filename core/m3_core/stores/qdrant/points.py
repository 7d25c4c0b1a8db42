"""What is stored in Qdrant: points, in requests that a server takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from qdrant_client import models

from m3_core.converters import to_qdrant
from m3_core.representations import LexicalWeights, Representations
from m3_core.stores.qdrant.layout import Names, point_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

LongMultiVectors = Literal["error", "pool"]

_LIMIT = 1_048_576  # Qdrant takes fewer numbers than this in one multi-vector
_REQUEST_NUMBERS = 1_000_000  # about 20 MB of JSON; a server takes 32 MB by default


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


def points(
    ids: Sequence[str],
    payloads: Sequence[Mapping[str, Any]],
    reps: Representations,
    policy: LongMultiVectors,
    names: Names,
    dense: Sequence[Sequence[float] | None] | None = None,
) -> list[models.PointStruct]:
    """Make the points of documents.

    Args:
        ids: One a document.
        payloads: One a document.
        reps: Their representations; multi-vectors if the collection has them.
        policy: For multi-vectors above Qdrant's limit.
        names: Of vectors.
        dense: One dense vector a document in place of its own, None where there is none.

    Returns:
        One a document.
    """
    made = []
    own = reps.dense_lists() if names.dense is not None else []
    for row, document_id in enumerate(ids):
        vectors: dict[str, Any] = {}
        if names.dense is not None:
            given = None if dense is None else dense[row]
            vectors[names.dense] = own[row] if given is None else list(given)
        if names.sparse is not None:
            sparse = sparse_vector(reps, row)
            if sparse.indices:
                vectors[names.sparse] = sparse
        if reps.colbert_vecs is not None:
            what = f"document {document_id!r}"
            vectors[names.multi] = fit_multi_vector(reps.colbert_vecs[row], policy, what).tolist()
        made.append(
            models.PointStruct(
                id=point_id(document_id), vector=vectors, payload=dict(payloads[row])
            )
        )
    return made


def requests(
    made: Iterable[models.PointStruct], batch_size: int | None = None
) -> Iterator[list[models.PointStruct]]:
    """Divide points so that none of the requests is larger than a server takes.

    Args:
        made: The points.
        batch_size: And has no more points than this.

    Yields:
        Some of them, in order.
    """
    batch: list[models.PointStruct] = []
    numbers = 0
    for point in made:
        assert isinstance(point.vector, dict)
        size = sum(_numbers(vector) for vector in point.vector.values())
        if batch and (numbers + size > _REQUEST_NUMBERS or len(batch) == batch_size):
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
