"""Texts of a packed batch, kept apart: attention within each of them, and their positions.

Nothing else in an encoder looks beyond its own token. Attention is FlashAttention's
variable-length kernel on CUDA in half precision, else one ``scaled_dot_product_attention`` for
each run of texts of equal length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from m3_core.network.transfer import to_device

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from m3_core.network.batches import PackedBatch


class Packing:
    """What a network needs to know of a batch: where texts begin and end, in how many rows.

    Args:
        batch: The texts.
        device: Where the network runs.
        varlen: The variable-length attention kernel, or ``None`` to attend group by group.

    Attributes:
        tokens: Of all texts together.
        rows: In how many rows a network does well to compute them, the last ones of no text.
    """

    def __init__(
        self, batch: PackedBatch, device: torch.device, varlen: Callable[..., Any] | None
    ) -> None:
        self.tokens = len(batch.ids)
        self.rows = few_counts(self.tokens) if device.type == "cpu" else self.tokens
        self.groups = batch.groups
        self.varlen = varlen
        self.longest = int(batch.lengths.max(initial=0))
        self.offsets = to_device(batch.offsets, device)
        self.boundaries = self.offsets.to(torch.int32) if varlen else None


def few_counts(tokens: int) -> int:
    """Round a number of rows up, by a tenth at most on average, to one of few numbers.

    oneDNN compiles a product for each number of rows that it meets and keeps a thousand of them:
    about a megabyte a number for a network of 12 layers, where only the first is worth it.

    Args:
        tokens: How many rows are needed.

    Returns:
        Itself up to 32, for lone queries; a multiple of 8, of 16 from 128 on, of 64 from 512 on.

    Example:
        >>> few_counts(10), few_counts(33), few_counts(513)
        (10, 40, 576)
    """
    step = 1 if tokens <= 32 else 8 if tokens <= 128 else 16 if tokens <= 512 else 64
    return -(-tokens // step) * step


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    scaling: float | None = None,
) -> torch.Tensor:
    """Attend within each text of a packed batch.

    Args:
        query: Shape: (rows, heads, head_dim), the batch's tokens first.
        key: As query.
        value: As query.
        packing: Where texts begin and end.
        scaling: Factor of the products; ``head_dim ** -0.5`` if ``None``.

    Returns:
        The attended values, 0 in rows of no text. Shape: (rows, heads, head_dim).
    """
    if packing.varlen is not None:
        # The kernel's own scale is head_dim ** -0.5; another one goes into the queries.
        if scaling is not None and scaling != query.shape[-1] ** -0.5:
            query = query * (scaling * query.shape[-1] ** 0.5)
        longest, boundaries = packing.longest, packing.boundaries
        attended: torch.Tensor = packing.varlen(
            query, key, value, boundaries, boundaries, longest, longest
        )
        return attended
    if len(packing.groups) == 1 and len(query) == packing.tokens:
        return _attend_equal(query, key, value, packing.groups[0][1], scaling)
    output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    # Whatever memory holds there, numbers or not, may be slow to compute with.
    output[packing.tokens :] = 0
    for start, count, length in packing.groups:
        texts = slice(start, start + count * length)
        output[texts] = _attend_equal(query[texts], key[texts], value[texts], count, scaling)
    return output


def _attend_equal(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    count: int,
    scaling: float | None,
) -> torch.Tensor:
    """Attend within each of ``count`` texts of equal length."""
    tokens, heads, width = query.shape
    shape = (count, tokens // count, heads, width)
    attended = functional.scaled_dot_product_attention(
        query.view(shape).transpose(1, 2),  # (texts, heads, length, head_dim)
        key.view(shape).transpose(1, 2),
        value.view(shape).transpose(1, 2),
        scale=scaling,
    )
    return attended.transpose(1, 2).reshape(tokens, heads, width)


def varlen_kernel(device: torch.device, dtype: torch.dtype) -> Callable[..., Any] | None:
    """The variable-length attention kernel, where torch has one for the device and type.

    Args:
        device: Where the network runs.
        dtype: Its data type.

    Returns:
        ``torch.nn.attention.varlen.varlen_attn``, or ``None``.
    """
    if device.type != "cuda" or dtype == torch.float32:
        return None
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


def position_ids(batch: PackedBatch, padding_id: int | None) -> NDArray[np.int64]:
    """Which row of the position embeddings each token gets.

    Args:
        batch: The texts.
        padding_id: Of RoBERTa and XLM-R, which count from the row after it on, and give a padding
            id in the text that row and no position; ``None`` for BERT, which counts from 0.

    Returns:
        Shape: (tokens,).

    Example:
        >>> from m3_core.network.batches import PackedBatch
        >>> batch = PackedBatch(np.array([0, 1, 5, 0], np.int32), np.array([0, 3, 4]))
        >>> position_ids(batch, None).tolist(), position_ids(batch, 1).tolist()
        ([0, 1, 2, 0], [2, 1, 3, 2])
    """
    starts = np.repeat(batch.offsets[:-1], batch.lengths)
    if padding_id is None:
        return np.arange(len(batch.ids)) - starts
    counted = (batch.ids != padding_id).astype(np.int64)
    running = np.concatenate([np.zeros(1, np.int64), np.cumsum(counted)])
    result: NDArray[np.int64] = (running[1:] - running[starts]) * counted
    return result + padding_id
