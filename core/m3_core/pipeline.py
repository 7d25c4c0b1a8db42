"""Tokens to representations: batches through the network and the heads, and back into order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from m3_core import heads
from m3_core.errors import NonFiniteError
from m3_core.execution import BatchRunner
from m3_core.representations import (
    LexicalWeights,
    MultiVectors,
    Representations,
    ragged_positions,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from m3_core.backbone import Backbone
    from m3_core.batches import PackedBatch
    from m3_core.checkpoint import Head, Pooling
    from m3_core.tokens import TokenBatch, Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to compute of each text.

    Attributes:
        dense: Whether to give dense vectors.
        sparse: Whether to give lexical weights.
        colbert: Whether to give multi-vectors.
        pooling: How the dense vector is taken.
        normalize: Whether dense and multi-vectors are scaled to length 1.
        truncate_dim: Width of dense and multi-vectors; ``None`` for all of it.
        marker_every: Tokens from one CLS marker to the next (MCLS), the marker counted; ``None``
            for the one at the start.
    """

    dense: bool
    sparse: bool
    colbert: bool
    pooling: Pooling
    normalize: bool = True
    truncate_dim: int | None = None
    marker_every: int | None = None


class Pipeline:
    """A network with its heads; safe under threads.

    Args:
        backbone: The network.
        tokenizer: Says which ids carry no lexical weight and how many ids there are.
        model_heads: Lexical and multi-vector head, or ``None`` for a dense model.
        token_budget: Tokens a batch at most; chosen from the device if ``None``.
    """

    def __init__(
        self,
        backbone: Backbone,
        tokenizer: Tokenizer,
        model_heads: tuple[Head, Head] | None,
        token_budget: int | None = None,
    ) -> None:
        self.backbone = backbone
        self.runner = BatchRunner(backbone.device, token_budget or backbone.default_token_budget())
        self._suffix_length = len(tokenizer.suffix)
        self.vocabulary_size = tokenizer.vocabulary_size
        self._unweighted = np.zeros(
            max(tokenizer.vocabulary_size, tokenizer.unweighted_ids.max(initial=0) + 1), bool
        )
        self._unweighted[tokenizer.unweighted_ids] = True
        self._sparse_head = self._colbert_head = None
        if model_heads is not None:
            sparse, colbert = model_heads
            self._sparse_head = _placed(sparse, backbone.device, torch.float32)
            self._colbert_head = _placed(colbert, backbone.device, backbone.dtype)

    @property
    def token_budget(self) -> int:
        """Tokens a batch at most, as of now."""
        return self.runner.token_budget

    @token_budget.setter
    def token_budget(self, tokens: int) -> None:
        self.runner.token_budget = tokens

    @property
    def colbert_dim(self) -> int:
        """Width of the multi-vectors; 0 for a dense model."""
        return 0 if self._colbert_head is None else self._colbert_head.weight.shape[0]

    def run(
        self,
        tokens: TokenBatch,
        request: Request,
        progress: Callable[[int], object] | None = None,
    ) -> Representations:
        """Compute the representations of tokenised texts.

        Args:
            tokens: The texts.
            request: What to compute.
            progress: Called with the number of texts each time some are done.

        Returns:
            Representations in the order of ``tokens``.

        Raises:
            OutOfMemoryError: A single text does not fit into memory.
            NonFiniteError: An output holds NaN or infinity.
        """
        collector = _Collector(self, tokens, request)
        self.runner.run(tokens, partial(self._compute, request=request), collector.add, progress)
        return collector.result()

    def markers(self, batch_offsets: NDArray[np.int64], every: int | None) -> NDArray[np.bool_]:
        """Which tokens are CLS markers: each text's first, with MCLS every so many.

        Args:
            batch_offsets: Row boundaries of the texts. Shape: (texts + 1,).
            every: As in ``Request.marker_every``.

        Returns:
            Shape: (tokens,). Dtype: bool.
        """
        lengths = np.diff(batch_offsets)
        within = np.arange(batch_offsets[-1]) - np.repeat(batch_offsets[:-1], lengths)
        markers: NDArray[np.bool_] = within == 0
        if every is not None:
            inside = within < np.repeat(lengths, lengths) - self._suffix_length
            markers |= (within % every == 0) & inside
        return markers

    def _compute(self, batch: PackedBatch, request: Request) -> dict[str, torch.Tensor]:
        markers = self.markers(batch.offsets, request.marker_every)
        hidden, offsets = self.backbone.forward(batch)
        tensors: dict[str, torch.Tensor] = {}
        if request.dense:
            if request.marker_every is None:
                pooled = heads.pool(hidden, offsets, request.pooling)
            else:
                counts = np.add.reduceat(markers.astype(np.int64), batch.offsets[:-1])
                bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
                positions = self._on_device(np.flatnonzero(markers))
                pooled = heads.pool_markers(hidden, positions, self._on_device(bounds))
            tensors["dense"] = heads.dense_vectors(
                pooled, normalize=request.normalize, truncate_dim=request.truncate_dim
            )
            tensors["dense_finite"] = _finite_rows(tensors["dense"])
        if request.sparse and self._sparse_head is not None:
            weights = heads.token_weights(hidden, self._sparse_head)
            tensors["sparse_finite"] = weights.isfinite()
            kept, entries, keys = self._entries(batch)
            merged = heads.merge_token_weights(
                weights[self._on_device(kept)], self._on_device(entries), len(keys)
            )
            tensors["sparse"] = merged
            tensors["entry_keys"] = torch.from_numpy(keys)
        if request.colbert and self._colbert_head is not None:
            rows = self._on_device(np.flatnonzero(~markers))
            tensors["colbert"] = heads.multi_vectors(
                hidden[rows],
                self._colbert_head,
                normalize=request.normalize,
                truncate_dim=request.truncate_dim,
            )
            tensors["colbert_finite"] = _finite_rows(tensors["colbert"])
        return tensors

    def _entries(
        self, batch: PackedBatch
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Positions of weighted tokens, the entry of each, and every entry's text and id."""
        kept = np.flatnonzero(~self._unweighted[batch.ids])
        texts = np.repeat(np.arange(len(batch.rows)), batch.lengths)[kept]
        keys, entries = np.unique(
            texts * len(self._unweighted) + batch.ids[kept], return_inverse=True
        )
        return kept, entries.reshape(-1).astype(np.int64), keys

    def _on_device(self, array: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.backbone.device, non_blocking=True)


class _Collector:
    """Puts the results of batches where the caller's order wants them."""

    def __init__(self, pipeline: Pipeline, tokens: TokenBatch, request: Request) -> None:
        self._request = request
        self._vocabulary_size = pipeline.vocabulary_size
        self._vocabulary = len(pipeline._unweighted)
        num_texts = len(tokens.lengths)
        hidden_size = pipeline.backbone.hidden_size
        limit = request.truncate_dim or hidden_size
        self._lexical: list[tuple[NDArray[Any], ...]] = []
        if request.dense:
            self._dense = np.empty((num_texts, min(limit, hidden_size)), np.float32)
        if request.colbert:
            markers = pipeline.markers(tokens.offsets, request.marker_every)
            counted = np.concatenate([np.zeros(1, np.int64), np.cumsum(~markers)])
            self._vector_offsets = counted[tokens.offsets]
            single = pipeline.backbone.dtype == torch.float32
            self._vectors = np.empty(
                (self._vector_offsets[-1], min(limit, pipeline.colbert_dim)),
                np.float32 if single else np.float16,
            )

    def add(self, batch: PackedBatch, arrays: dict[str, NDArray[Any]]) -> None:
        rows = batch.rows
        self._check(arrays, batch)
        if "dense" in arrays:
            self._dense[rows] = arrays["dense"]
        if "entry_keys" in arrays:
            positive = arrays["sparse"] > 0
            texts, ids = np.divmod(arrays["entry_keys"][positive], self._vocabulary)
            counts = np.bincount(texts, minlength=len(rows))
            # A copy: the host tensor may lie in scarce page-locked memory.
            self._lexical.append((rows, counts, ids.astype(np.int32), arrays["sparse"][positive]))
        if "colbert" in arrays:
            start = 0
            for row in rows.tolist():
                first, last = self._vector_offsets[row : row + 2].tolist()
                self._vectors[first:last] = arrays["colbert"][start : start + last - first]
                start += last - first

    def result(self) -> Representations:
        request = self._request
        return Representations(
            dense_vecs=self._dense if request.dense else None,
            lexical_weights=self._merged_lexical() if request.sparse else None,
            colbert_vecs=MultiVectors(self._vectors, self._vector_offsets)
            if request.colbert
            else None,
        )

    def _merged_lexical(self) -> LexicalWeights:
        empty = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int32))
        parts = [*self._lexical, (*empty, np.zeros(0, np.float32))]
        rows, counts, ids, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        positions, new_offsets = ragged_positions(offsets, np.argsort(rows))
        size = self._vocabulary_size
        return LexicalWeights(ids[positions], weights[positions], new_offsets, size)

    def _check(self, arrays: dict[str, NDArray[Any]], batch: PackedBatch) -> None:
        bad: set[int] = set()
        for name, finite in arrays.items():
            if not name.endswith("_finite") or finite.all():
                continue
            if name == "dense_finite":
                texts = np.flatnonzero(~finite)
            elif name == "sparse_finite":
                texts = np.searchsorted(batch.offsets, np.flatnonzero(~finite), "right") - 1
            else:
                vectors = np.concatenate(
                    [np.zeros(1, np.int64), np.cumsum(np.diff(self._vector_offsets)[batch.rows])]
                )
                texts = np.searchsorted(vectors, np.flatnonzero(~finite), "right") - 1
            bad.update(batch.rows[texts].tolist())
        if bad:
            listed = ", ".join(map(str, sorted(bad)[:10])) + (", …" if len(bad) > 10 else "")
            raise NonFiniteError(
                f"the model's output for {len(bad)} texts (positions {listed}) holds NaN or "
                "infinity: the weights are damaged, or their data type overflows: try "
                "dtype='float32'"
            )


def _finite_rows(vectors: torch.Tensor) -> torch.Tensor:
    return vectors.sum(-1, dtype=torch.float32).isfinite()


def _placed(head: Head, device: torch.device, dtype: torch.dtype) -> Head:
    return replace(head, weight=head.weight.to(device, dtype), bias=head.bias.to(device, dtype))
