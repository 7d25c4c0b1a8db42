"""An encoder's network with its heads: batches to the three representations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from m3_core.encoder import heads
from m3_core.errors import UnsupportedModelError
from m3_core.network import (
    check_sizes,
    find_known,
    float_type,
    load_backbone,
    read_heads,
    to_device,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from m3_core.network import (
        Backbone,
        Checkpoint,
        Head,
        PackedBatch,
        Pooling,
        Results,
        Source,
        Tokenizer,
    )


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
    """A network with its heads: what an encoder's engine runs.

    Args:
        backbone: The network.
        tokenizer: Says which ids carry no lexical weight and how many ids there are.
        model_heads: Lexical and multi-vector head, or ``None`` for a dense model.
    """

    def __init__(
        self, backbone: Backbone, tokenizer: Tokenizer, model_heads: tuple[Head, Head] | None
    ) -> None:
        self.backbone = backbone
        self.device = backbone.device
        self.dtype = backbone.dtype
        self.vocabulary = max(
            tokenizer.vocabulary_size, int(tokenizer.unweighted_ids.max(initial=0)) + 1
        )
        self.vocabulary_size = tokenizer.vocabulary_size
        self._suffix_length = len(tokenizer.suffix)
        self._unweighted = np.zeros(self.vocabulary, bool)
        self._unweighted[tokenizer.unweighted_ids] = True
        self._sparse_head = self._colbert_head = None
        if model_heads is not None:
            sparse, colbert = model_heads
            self._sparse_head = _placed(sparse, backbone.device, torch.float32)
            self._colbert_head = _placed(colbert, backbone.device, float_type(backbone.dtype))

    @property
    def colbert_dtype(self) -> torch.dtype:
        """Of the multi-vectors: float32 of a float32 network, else float16."""
        return torch.float32 if self.dtype == torch.float32 else torch.float16

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states, and of whole dense vectors."""
        return self.backbone.hidden_size

    @property
    def colbert_dimension(self) -> int:
        """Width of the multi-vectors; 0 for a dense model."""
        return 0 if self._colbert_head is None else self._colbert_head.weight.shape[0]

    def default_token_budget(self) -> int:
        """Tokens a batch at which the device is well used."""
        return self.backbone.default_token_budget()

    def markers(self, offsets: NDArray[np.int64], every: int | None) -> NDArray[np.bool_]:
        """Which tokens are CLS markers: each text's first, with MCLS every so many.

        Args:
            offsets: Row boundaries of the texts. Shape: (texts + 1,).
            every: As in ``Request.marker_every``.

        Returns:
            Shape: (tokens,). Dtype: bool.
        """
        lengths = np.diff(offsets)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        markers: NDArray[np.bool_] = within == 0
        if every is not None:
            inside = within < np.repeat(lengths, lengths) - self._suffix_length
            markers |= (within % every == 0) & inside
        return markers

    def compute(
        self, batch: PackedBatch, tasks: Sequence[tuple[Hashable, NDArray[np.int64]]]
    ) -> list[Results]:
        """Start one forward pass, and of its states compute what each task asks for.

        Args:
            batch: The texts.
            tasks: Requests, and which texts of the batch they are about.

        Returns:
            Of each task: ``dense`` (texts, dim); ``sparse`` and ``sparse_keys``, one entry a text
            and token id, with ``sparse_offsets``; ``colbert`` (vectors, dim) with
            ``colbert_offsets``; and under names with ``_finite`` which rows are numbers.
        """
        hidden, offsets = self.backbone.forward(batch)
        results = []
        for task, texts in tasks:
            part, tokens = batch.take(texts)
            states, bounds = hidden, offsets
            if tokens is not None:
                states = hidden[self._on_device(tokens)]
                bounds = self._on_device(part.offsets)
            results.append(self._represent(states, bounds, part, cast("Request", task)))
        return results

    def _represent(
        self, hidden: torch.Tensor, offsets: torch.Tensor, batch: PackedBatch, request: Request
    ) -> Results:
        results: Results = {}
        if request.dense:
            pooled = self._pooled(hidden, offsets, batch, request)
            dense = heads.dense_vectors(
                pooled, normalize=request.normalize, truncate_dim=request.truncate_dim
            )
            results["dense"], results["dense_finite"] = dense, _finite_rows(dense)
        if request.sparse and self._sparse_head is not None:
            weights = heads.token_weights(hidden, self._sparse_head)
            kept, entries, keys = self._entries(batch)
            results["sparse"] = heads.merge_token_weights(
                weights[self._on_device(kept)], self._on_device(entries), len(keys)
            )
            results["sparse_finite"] = weights.isfinite()
            texts = np.arange(len(batch.offsets))
            results["sparse_offsets"] = np.searchsorted(keys, texts * self.vocabulary)
            results["sparse_keys"] = (keys % self.vocabulary).astype(np.int32)
            results["token_offsets"] = batch.offsets
        if request.colbert and self._colbert_head is not None:
            markers = self.markers(batch.offsets, request.marker_every)
            vectors = heads.multi_vectors(
                hidden[self._on_device(np.flatnonzero(~markers))],
                self._colbert_head,
                normalize=request.normalize,
                truncate_dim=request.truncate_dim,
            ).to(self.colbert_dtype)
            results["colbert"], results["colbert_finite"] = vectors, _finite_rows(vectors)
            counted = np.concatenate([np.zeros(1, np.int64), np.cumsum(~markers)])
            results["colbert_offsets"] = counted[batch.offsets]
        return results

    def _pooled(
        self, hidden: torch.Tensor, offsets: torch.Tensor, batch: PackedBatch, request: Request
    ) -> torch.Tensor:
        if request.marker_every is None:
            return heads.pool(hidden, offsets, request.pooling)
        markers = self.markers(batch.offsets, request.marker_every)
        counts = np.add.reduceat(markers.astype(np.int64), batch.offsets[:-1])
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        positions = self._on_device(np.flatnonzero(markers))
        return heads.pool_markers(hidden, positions, self._on_device(bounds))

    def _entries(
        self, batch: PackedBatch
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Positions of weighted tokens, the entry of each, and every entry's text and id."""
        kept = np.flatnonzero(~self._unweighted[batch.ids])
        texts = np.repeat(np.arange(len(batch.lengths)), batch.lengths)[kept]
        keys, entries = np.unique(texts * self.vocabulary + batch.ids[kept], return_inverse=True)
        return kept, entries.reshape(-1).astype(np.int64), keys

    def _on_device(self, array: NDArray[np.int64]) -> torch.Tensor:
        return to_device(array, self.device)


def load_pipeline(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    device: torch.device,
    dtype: torch.dtype,
    source: Source,
) -> Pipeline:
    """Load the network and the heads of an encoder's checkpoint.

    Args:
        checkpoint: Its folder and configuration.
        tokenizer: Its tokenizer.
        device: Where it shall run.
        dtype: In what data type.
        source: Whether its own code may run.

    Returns:
        The network with its heads.

    Raises:
        UnsupportedModelError: It is a reranker, or of an architecture not known here.
        CheckpointError: The files are absent, unreadable or incomplete.
    """
    known = find_known(checkpoint.name, checkpoint.config.get("_name_or_path"))
    architectures = [str(name) for name in checkpoint.config.get("architectures") or ()]
    is_classifier = any("ForSequenceClassification" in name for name in architectures)
    if is_classifier or (known is not None and known.pooling is None):
        raise UnsupportedModelError(
            f"{checkpoint.name!r} is a reranker, not an encoder: it scores pairs and gives no "
            "vectors. Load it with Reranker.from_pretrained, or BGEReranker in the frameworks"
        )
    check_sizes(checkpoint.config, checkpoint.folder)
    stored = read_heads(
        checkpoint.folder,
        int(checkpoint.config["hidden_size"]),
        required=known is not None and known.kind == "m3",
    )
    return Pipeline(load_backbone(checkpoint, device, dtype, source), tokenizer, stored)


def _finite_rows(vectors: torch.Tensor) -> torch.Tensor:
    return vectors.sum(-1, dtype=torch.float32).isfinite()


def _placed(head: Head, device: torch.device, dtype: torch.dtype) -> Head:
    return replace(head, weight=head.weight.to(device, dtype), bias=head.bias.to(device, dtype))
