"""The layers of XLM-R, RoBERTa and BERT in the type in which their weights are.

Source: "Attention Is All You Need" (arXiv 1706.03762, section 3.1) as BERT (arXiv 1810.04805) has
it: after each of the two halves comes a residual, then a norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from torch.nn import functional

from m3_core.network.packing import Packing, attend

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from m3_core.network.weights import Weights

L = TypeVar("L")


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer.

    Attributes:
        weight: Shape: (outputs, inputs).
        bias: Shape: (outputs,).
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """From (tokens, inputs) to (tokens, outputs)."""
        return functional.linear(states, self.weight, self.bias)

    @classmethod
    def of(cls, weights: Weights, *names: str, outputs: int, inputs: int) -> Linear:
        """Ask for a layer, or for several over the same inputs as one.

        Args:
            weights: Where they come from.
            *names: What they are called there.
            outputs: Width of each one's output.
            inputs: Width of their input.

        Returns:
            The layer, of ``len(names) * outputs`` outputs.
        """
        return cls(
            weights.ask(*(f"{name}.weight" for name in names), shape=(outputs, inputs)),
            weights.ask(*(f"{name}.bias" for name in names), shape=(outputs,)),
        )


@dataclass(frozen=True, slots=True)
class Table:
    """Embeddings.

    Attributes:
        weight: Shape: (rows, hidden).
    """

    weight: torch.Tensor

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """From (tokens,) to (tokens, hidden)."""
        return functional.embedding(ids, self.weight)

    @classmethod
    def of(cls, weights: Weights, name: str, *, rows: int, width: int) -> Table:
        """Ask for a table.

        Args:
            weights: Where it comes from.
            name: What it is called there.
            rows: How many embeddings it has.
            width: Of each.

        Returns:
            The table.
        """
        return cls(weights.ask(f"{name}.weight", shape=(rows, width)))


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Layer normalisation.

    Attributes:
        weight: Shape: (hidden,).
        bias: Shape: (hidden,).
        eps: Added to the variance.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    eps: float

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Each row of (tokens, hidden) by itself."""
        return functional.layer_norm(states, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class LayerParts(Generic[L]):
    """What a layer of the encoder is made of.

    Attributes:
        qkv: Query, key and value of all heads, from hidden to 3 * hidden.
        attention_output: From hidden to hidden.
        attention_norm: After attention.
        up: From hidden to intermediate.
        down: From intermediate to hidden.
        output_norm: After the feed-forward.
        heads: How many heads attend.
        activation: Between ``up`` and ``down``.
    """

    qkv: L
    attention_output: L
    attention_norm: LayerNorm
    up: L
    down: L
    output_norm: LayerNorm
    heads: int
    activation: Callable[[torch.Tensor], torch.Tensor]


class Layer(LayerParts[Linear]):
    """One layer of the encoder."""

    __slots__ = ()

    def __call__(self, states: torch.Tensor, packing: Packing) -> torch.Tensor:
        """From one layer's states to the next one's, both of shape (tokens, hidden)."""
        tokens, hidden = states.shape
        qkv = self.qkv(states).view(tokens, 3, self.heads, -1)  # (tokens, 3, heads, head_dim)
        query, key, value = qkv.unbind(1)  # each (tokens, heads, head_dim)
        attended = attend(query, key, value, packing)  # (tokens, heads, head_dim)
        attended = self.attention_output(attended.reshape(tokens, hidden))  # (tokens, hidden)
        states = self.attention_norm(attended.add_(states))  # (tokens, hidden)
        inner = self.activation(self.up(states))  # (tokens, intermediate)
        return self.output_norm(self.down(inner).add_(states))  # (tokens, hidden)
