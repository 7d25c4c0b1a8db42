"""The layers of XLM-R, RoBERTa and BERT in the type in which their weights are.

Source: "Attention Is All You Need" (arXiv 1706.03762, section 3.1) as BERT (arXiv 1810.04805) has
it: after each of the two halves comes a residual, then a norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch.nn import functional

from m3_core.network.device import cpu_multiplies, on_x86
from m3_core.network.packing import Packing, attend

if TYPE_CHECKING:
    from collections.abc import Callable

    from m3_core.network.weights import Weights

    Activation = Callable[[torch.Tensor], torch.Tensor]

L = TypeVar("L")


@dataclass(slots=True, eq=False)
class Linear:
    """A linear layer.

    On x86 CPUs oneDNN gets the weights in the order in which it reads them, once and for all: else
    it, or MKL, would put them in order for each product, which of few tokens takes longer than the
    product.

    Attributes:
        weight: Shape: (outputs, inputs); oneDNN's own order if ``ordered``.
        bias: Shape: (outputs,).
        ordered: Whether ``order`` changed the weights.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    ordered: bool = False

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """From (tokens, inputs) to (tokens, outputs)."""
        if self.ordered:
            return self._product(states, "none")
        return functional.linear(states, self.weight, self.bias)

    def activated(self, states: torch.Tensor, activation: Activation) -> torch.Tensor:
        """Put an activation on the output."""
        if self.ordered and activation is functional.gelu:
            return self._product(states, "gelu")
        return activation(self(states))

    def added(self, states: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Add a residual to the output, of the output's shape."""
        if self.ordered:
            added: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(
                states, residual, self.weight, self.bias, "add"
            )
            return added
        return self(states).add_(residual)

    def order(self) -> None:
        """Order the weights for the CPU, where that is known to help; after they are filled."""
        if orders_weights(self.weight):
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight)
            self.ordered = True

    def _product(self, states: torch.Tensor, then: str) -> torch.Tensor:
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise.default(
            states, self.weight, self.bias, then, [], "none"
        )
        return product

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
        made = cls(
            weights.ask(*(f"{name}.weight" for name in names), shape=(outputs, inputs)),
            weights.ask(*(f"{name}.bias" for name in names), shape=(outputs,)),
        )
        weights.when_filled(made.order)
        return made


def orders_weights(weight: torch.Tensor) -> bool:
    """Whether oneDNN multiplies with weights of its own order here.

    Args:
        weight: Where and in what type they are.

    Returns:
        True on x86 CPUs, for float32 and bfloat16, where torch has oneDNN.
    """
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and cpu_multiplies(weight.dtype)
        and on_x86()
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
    activation: Activation


class Layer(LayerParts[Linear]):
    """One layer of the encoder."""

    __slots__ = ()

    def __call__(self, states: torch.Tensor, packing: Packing) -> torch.Tensor:
        """From one layer's states to the next one's, both of shape (rows, hidden)."""
        rows, hidden = states.shape
        qkv = self.qkv(states).view(rows, 3, self.heads, -1)  # (rows, 3, heads, head_dim)
        query, key, value = qkv.unbind(1)  # each (rows, heads, head_dim)
        attended = attend(query, key, value, packing)  # (rows, heads, head_dim)
        attended = attended.reshape(rows, hidden)
        states = self.attention_norm(self.attention_output.added(attended, states))
        inner = self.up.activated(states, self.activation)  # (rows, intermediate)
        return self.output_norm(self.down.added(inner, states))  # (rows, hidden)
