"""From hidden states of packed texts to the three representations: pure tensor functions.

Source of the definitions: M3-Embedding (arXiv 2402.03216, section 3.2) as FlagEmbedding computes
them (``finetune/embedder/encoder_only/m3/modeling.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from m3_core.network import few_counts

if TYPE_CHECKING:
    from m3_core.network import Head, Pooling


def pool(hidden: torch.Tensor, offsets: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Take one vector a text from its hidden states.

    Args:
        hidden: Shape: (tokens, hidden). Dtype: float.
        offsets: Row boundaries of the texts. Shape: (texts + 1,). Dtype: int64.
        pooling: First token (``cls``), last token (``last``) or ``mean`` of all tokens.

    Returns:
        Shape: (texts, hidden). Dtype: float32.

    Example:
        >>> hidden = torch.tensor([[1.0], [3.0], [5.0]])
        >>> pool(hidden, torch.tensor([0, 2, 3]), "mean").tolist()
        [[2.0], [5.0]]
    """
    if pooling == "mean":
        lengths = offsets.diff()
        # Checking the lengths would wait for the device.
        return torch.segment_reduce(hidden.float(), "mean", lengths=lengths, axis=0, unsafe=True)
    index = offsets[:-1] if pooling == "cls" else offsets[1:] - 1
    return hidden[index].float()


def pool_markers(
    hidden: torch.Tensor, markers: torch.Tensor, offsets: torch.Tensor
) -> torch.Tensor:
    """Average the states of each text's CLS markers (MCLS).

    Source: M3-Embedding (arXiv 2402.03216), "Multiple CLS".

    Args:
        hidden: Shape: (tokens, hidden).
        markers: Positions of the markers, text after text. Shape: (markers,). Dtype: int64.
        offsets: Which markers belong to which text. Shape: (texts + 1,). Dtype: int64.

    Returns:
        Shape: (texts, hidden). Dtype: float32.
    """
    return pool(hidden[markers], offsets, "mean")


def dense_vectors(
    pooled: torch.Tensor, *, normalize: bool = True, truncate_dim: int | None = None
) -> torch.Tensor:
    """Cut pooled states to the wanted width and scale them to length 1.

    Args:
        pooled: Shape: (texts, hidden).
        normalize: Divide each row by its Euclidean norm.
        truncate_dim: Keep so many leading values (Matryoshka), before normalising.

    Returns:
        Shape: (texts, truncate_dim or hidden). Dtype: float32.

    Example:
        >>> dense_vectors(torch.tensor([[3.0, 4.0, 12.0]]), truncate_dim=2).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    vectors = pooled.float()[:, :truncate_dim]
    return functional.normalize(vectors, dim=-1) if normalize else vectors


def token_weights(hidden: torch.Tensor, head: Head) -> torch.Tensor:
    """Weigh every token: ReLU of a linear layer of one output.

    Args:
        hidden: Shape: (tokens, hidden).
        head: Lexical head in float32.

    Returns:
        Shape: (tokens,). Dtype: float32.
    """
    return functional.linear(hidden.float(), head.weight, head.bias).squeeze(-1).relu()


def merge_token_weights(
    weights: torch.Tensor, entries: torch.Tensor, num_entries: int
) -> torch.Tensor:
    """Take the largest weight of each token id of a text.

    Args:
        weights: Weights of tokens, not negative. Shape: (tokens,). Dtype: float32.
        entries: Number of the (text, token id) pair that each token belongs to.
            Shape: (tokens,). Dtype: int64.
        num_entries: How many such pairs there are.

    Returns:
        Shape: (num_entries,). Dtype: float32.

    Example:
        >>> weights, entries = torch.tensor([0.5, 0.25, 0.75]), torch.tensor([0, 1, 0])
        >>> merge_token_weights(weights, entries, 2).tolist()
        [0.75, 0.25]
    """
    return weights.new_zeros(num_entries).scatter_reduce_(0, entries, weights, "amax")


def multi_vectors(
    hidden: torch.Tensor, head: Head, *, normalize: bool = True, truncate_dim: int | None = None
) -> torch.Tensor:
    """Project each token's state and scale it to length 1.

    Args:
        hidden: Shape: (tokens, hidden).
        head: Multi-vector head, in the data type of ``hidden``.
        normalize: Divide each row by its Euclidean norm.
        truncate_dim: Keep so many leading values, before normalising.

    Returns:
        Shape: (tokens, dim). Dtype: float32 for float32 states, else float16.
    """
    tokens = len(hidden)
    if hidden.device.type == "cpu":
        hidden = functional.pad(hidden, (0, 0, 0, few_counts(tokens) - tokens))
    vectors = functional.linear(hidden, head.weight, head.bias)[:tokens, :truncate_dim]
    if normalize:
        vectors = functional.normalize(vectors.float(), dim=-1)
    return vectors.to(torch.float32 if hidden.dtype == torch.float32 else torch.float16)
