"""Decoders on packed pairs: causal attention within each pair, and what the kinds share.

The numbers are FlagEmbedding's, which pads pairs and computes the vocabulary's logits at every
position; here nothing is padded and only the last position of a pair is scored.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from m3_core.errors import CorruptCheckpointError
from m3_core.network import Packing, default_token_budget, to_device, varlen_kernel
from m3_core.rerankers.pairs import prompt_layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from m3_core.network import Checkpoint, PackedBatch, Tokenizer
    from m3_core.rerankers.network import RerankerOptions
    from m3_core.rerankers.pairs import PairLayout

CAUSAL_ATTENTION_NAME = "m3_packed_causal"

# FlagEmbedding: inference/reranker/decoder_only/base.py, and lightweight.py.
YES_NO_PROMPT = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the "
    "query by providing a prediction of either 'Yes' or 'No'."
)
LIGHTWEIGHT_PROMPT = "Predict whether passage B contains an answer to query A."

# Attention scores held at a time where no fused kernel can cap them: 256 MiB in float32.
_SCORES_AT_A_TIME = 2**26


def causal_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend to the earlier tokens of the same pair.

    Args:
        module: The attention layer; not used.
        query: Shape: (1, heads, tokens, head_dim).
        key: Shape: (1, key heads, tokens, head_dim); each serves a group of heads.
        value: As key.
        attention_mask: Not used: nothing is padded.
        packing: Where pairs begin and end.
        scaling: Factor of the products; ``head_dim ** -0.5`` if ``None``.
        sliding_window: How many tokens back it reaches, the token itself counted.
        softcap: Limit of the scaled products: ``softcap * tanh(product / softcap)``.

    Returns:
        The attended values, shape (1, tokens, heads, head_dim), and no attention weights.
    """
    query, key, value = (part.squeeze(0).transpose(0, 1) for part in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if packing.varlen is not None and softcap is None:
        back = -1 if sliding_window is None else sliding_window - 1
        longest, boundaries = packing.longest, packing.boundaries
        output = packing.varlen(
            query,
            key,
            value,
            boundaries,
            boundaries,
            longest,
            longest,
            scale=scale,
            window_size=(back, 0),
            enable_gqa=True,
        )
        return output.unsqueeze(0), None
    output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    for start, count, length in packing.groups:
        pairs = slice(start, start + count * length)
        q, k, v = (
            p[pairs].unflatten(0, (count, length)).transpose(1, 2) for p in (query, key, value)
        )
        window = sliding_window if sliding_window is not None and sliding_window < length else None
        attended = (
            _fused(q, k, v, scale, window)
            if softcap is None
            else _capped(q, k, v, scale, window, softcap)
        )
        output[pairs].unflatten(0, (count, length)).copy_(attended.transpose(1, 2))
    return output.unsqueeze(0), None


def _fused(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, window: int | None
) -> torch.Tensor:
    mask = None if window is None else _visible(q.shape[2], window, q.device)
    return functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True
    )


def _capped(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    window: int | None,
    softcap: float,
) -> torch.Tensor:
    """The same with capped scores, as transformers computes them; no fused kernel does."""
    count, heads, length, _ = q.shape
    k, v = (part.repeat_interleave(heads // k.shape[1], dim=1) for part in (k, v))
    hidden = ~_visible(length, window, q.device)
    at_a_time = max(_SCORES_AT_A_TIME // (heads * length * length), 1)
    parts = []
    for first in range(0, count, at_a_time):
        rows = slice(first, first + at_a_time)
        scores = q[rows] @ k[rows].transpose(2, 3) * scale
        scores = (scores / softcap).tanh_().mul_(softcap).masked_fill_(hidden, float("-inf"))
        parts.append(scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v[rows])
    return torch.cat(parts)


def _visible(length: int, window: int | None, device: torch.device) -> torch.Tensor:
    visible = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return visible if window is None else visible.triu(1 - window)


def positions(batch: PackedBatch, device: torch.device) -> torch.Tensor:
    """Number each pair's tokens from 0.

    Args:
        batch: The pairs.
        device: Where the numbers are needed; counted on the host, which knows the lengths.

    Returns:
        Shape: (tokens,). Dtype: int64.
    """
    starts = np.repeat(batch.offsets[:-1], batch.lengths)
    return to_device(np.arange(len(starts)) - starts, device)


class Decoder:
    """What the three kinds of decoder share.

    Args:
        network: The model, loaded for ``CAUSAL_ATTENTION_NAME``.
        bos: The leading token of a pair, if there is one.
        device: Where it runs.
        dtype: Its data type.
    """

    def __init__(
        self, network: Any, bos: int | None, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.device = device
        self.dtype = dtype
        self.network = network.to(device).eval()
        self.bos = bos
        kernel = varlen_kernel(device, dtype)
        # Earlier releases of the kernel know neither windows nor grouped heads.
        windowed = kernel is not None and "window_size" in inspect.signature(kernel).parameters
        self.varlen: Callable[..., Any] | None = kernel if windowed else None

    def layout(self, tokenizer: Tokenizer, options: RerankerOptions) -> PairLayout:
        """How pairs are put together: query, document, prompt."""
        return prompt_layout(tokenizer, options.prompt, self.bos)

    def default_token_budget(self) -> int:
        """Tokens a batch at which the device is well used."""
        config = self.network.config
        width = max(config.hidden_size, config.intermediate_size // 4)
        return default_token_budget(self.device, self.dtype, width)

    def packed(self, batch: PackedBatch) -> tuple[torch.Tensor, Packing]:
        """Lay a batch onto the device.

        Args:
            batch: The pairs.

        Returns:
            Ids, shape (tokens,), int64, and what attention needs to know.
        """
        ids = to_device(batch.ids.astype(np.int64), self.device)
        return ids, Packing(batch, self.device, self.varlen)


class LayerHead(nn.Module):
    """One output after a layer, under the name that the checkpoints give it.

    Args:
        width: Of the hidden states.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_head = nn.Linear(width, 1, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Score states.

        Args:
            hidden: Shape: (pairs, width).

        Returns:
            Shape: (pairs, 1).
        """
        scores: torch.Tensor = self.linear_head(hidden)
        return scores


def check_layers(options: RerankerOptions, available: range) -> None:
    """Refuse cutoff layers without a head.

    Args:
        options: What the user asked for.
        available: After which layers the model has heads.

    Raises:
        ValueError: There are none, or one is not available.
    """
    if options.cutoff_layers is None:
        return
    wrong = [layer for layer in options.cutoff_layers if layer not in available]
    if wrong or not options.cutoff_layers:
        step = "" if available.step == 1 else f" in steps of {available.step}"
        raise ValueError(
            f"cutoff_layers is {list(options.cutoff_layers)}; this model has heads after layers "
            f"{available.start} to {available[-1]}{step}"
        )


def register_attention() -> None:
    """Make the attention of packed pairs known to transformers."""
    from transformers import AttentionInterface

    AttentionInterface.register(CAUSAL_ATTENTION_NAME, causal_attention)


def leading_token(
    checkpoint: Checkpoint, tokenizer: Tokenizer, *, unless_padding: bool
) -> int | None:
    """The token that FlagEmbedding puts before a pair.

    Args:
        checkpoint: Its ``config.json`` is asked where the tokenizer's files name no such token.
        tokenizer: Of the checkpoint.
        unless_padding: Leave it out where the padding token is the same one.

    Returns:
        The id of ``bos_token``, or ``None``.

    Raises:
        CorruptCheckpointError: ``config.json`` names an id that is not in the vocabulary.
    """
    bos = tokenizer.special_ids.get("bos_token", checkpoint.config.get("bos_token_id"))
    if unless_padding and bos == tokenizer.special_ids.get("pad_token"):
        return None
    size = checkpoint.config["vocab_size"]
    if bos is not None and (not isinstance(bos, int) or not 0 <= bos < size):
        raise CorruptCheckpointError(
            f"{checkpoint.folder} has bos_token_id={bos!r}; it must be an id of the vocabulary of "
            f"{size}"
        )
    return bos
