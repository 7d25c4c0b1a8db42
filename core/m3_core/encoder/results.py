"""The results of an encoder's batches, put where the caller's order wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.errors import NonFiniteError
from m3_core.representations import (
    LexicalWeights,
    MultiVectors,
    Representations,
    ragged_positions,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from m3_core.encoder.pipeline import Pipeline, Request
    from m3_core.network import TokenBatch


class RepresentationCollector:
    """Makes the representations of one call.

    Args:
        pipeline: What computes them.
        tokens: The caller's texts.
        request: What was asked for.
    """

    def __init__(self, pipeline: Pipeline, tokens: TokenBatch, request: Request) -> None:
        self._request = request
        self._vocabulary_size = pipeline.vocabulary_size
        num_texts = len(tokens.lengths)
        limit = request.truncate_dim or pipeline.hidden_size
        self._lexical: list[tuple[NDArray[Any], ...]] = []
        if request.dense:
            self._dense = np.empty((num_texts, min(limit, pipeline.hidden_size)), np.float32)
        if request.colbert:
            markers = pipeline.markers(tokens.offsets, request.marker_every)
            counted = np.concatenate([np.zeros(1, np.int64), np.cumsum(~markers)])
            self._offsets = counted[tokens.offsets]
            single = pipeline.colbert_dtype.itemsize == 4
            self._vectors = np.empty(
                (self._offsets[-1], min(limit, pipeline.colbert_dimension)),
                np.float32 if single else np.float16,
            )

    def add(
        self,
        results: Mapping[str, NDArray[Any]],
        places: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> None:
        """Take the results of some texts.

        Args:
            results: As of ``Pipeline.compute``, of these texts and of others'.
            places: Which of the results are these texts'. Shape: (texts,).
            rows: Which of the caller's texts they are. Shape: (texts,).

        Raises:
            NonFiniteError: One of them holds NaN or infinity.
        """
        _check(results, places, rows)
        if "dense" in results:
            self._dense[rows] = results["dense"][places]
        if "sparse" in results:
            positions, offsets = ragged_positions(results["sparse_offsets"], places)
            weights = results["sparse"][positions]
            positive = weights > 0
            counts = np.diff(np.concatenate([np.zeros(1, np.int64), np.cumsum(positive)])[offsets])
            ids = results["sparse_keys"][positions]
            self._lexical.append((rows, counts, ids[positive], weights[positive]))
        if "colbert" in results:
            vectors, starts = results["colbert"], results["colbert_offsets"]
            for place, row in zip(places.tolist(), rows.tolist(), strict=True):
                own = slice(self._offsets[row], self._offsets[row + 1])
                self._vectors[own] = vectors[starts[place] : starts[place + 1]]

    def result(self) -> Representations:
        """Give what was collected, in the order of the caller's texts."""
        request = self._request
        return Representations(
            dense_vecs=self._dense if request.dense else None,
            lexical_weights=self._merged_lexical() if request.sparse else None,
            colbert_vecs=MultiVectors(self._vectors, self._offsets) if request.colbert else None,
        )

    def _merged_lexical(self) -> LexicalWeights:
        if len(self._lexical) == 1 and len(self._lexical[0][0]) == 1:
            _, counts, ids, weights = self._lexical[0]
            bounds = np.array([0, counts[0]], np.int64)
            return LexicalWeights(ids, weights, bounds, self._vocabulary_size)
        empty = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int32))
        parts = [*self._lexical, (*empty, np.zeros(0, np.float32))]
        rows, counts, ids, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        positions, new_offsets = ragged_positions(offsets, np.argsort(rows))
        size = self._vocabulary_size
        return LexicalWeights(ids[positions], weights[positions], new_offsets, size)


_BOUNDS = {
    "dense_finite": None,
    "sparse_finite": "token_offsets",
    "colbert_finite": "colbert_offsets",
}


def _check(
    results: Mapping[str, NDArray[Any]], places: NDArray[np.int64], rows: NDArray[np.int64]
) -> None:
    bad: set[int] = set()
    for name, bounds in _BOUNDS.items():
        finite = results.get(name)
        if finite is None or finite.all():
            continue
        broken = ~finite
        if bounds is not None:
            counted = np.concatenate([np.zeros(1, np.int64), np.cumsum(broken)])
            broken = np.diff(counted[results[bounds]]) > 0
        bad.update(rows[broken[places]].tolist())
    if bad:
        listed = ", ".join(map(str, sorted(bad)[:10])) + (", …" if len(bad) > 10 else "")
        raise NonFiniteError(
            f"the model's output for {len(bad)} texts (positions {listed}) holds NaN or "
            "infinity: the weights are damaged, or their data type overflows: try "
            "dtype='float32'"
        )
