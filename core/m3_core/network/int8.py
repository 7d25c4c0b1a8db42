"""XLM-R, RoBERTa and BERT on CPUs with matrix products in int8.

Every row is rounded to integers of its own: rows of the weights (output channels) when they are
read, rows of the states (tokens) when they are multiplied. So what a text gets does not depend on
its neighbours. States are rounded between their least and their largest value, for a few large ones
lie on one side: between the largest magnitudes the error was twice as large. The products are exact
integers; attention is in bfloat16 where the CPU has it, everything else in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from m3_core.network.device import cpu_multiplies
from m3_core.network.layers import LayerParts
from m3_core.network.packing import Packing, attend

if TYPE_CHECKING:
    from m3_core.network.weights import Weights

# So many rows go through a half of a layer at once: what lies between its products stays in cache.
ROWS_AT_ONCE = 512
_HIGHEST = 127
# Of a row of zeros, which can be divided by anything.
_LEAST = 1e-30


@dataclass(frozen=True, slots=True, eq=False)
class Int8Rows:
    """Rows of integers, each with a scale; takes the rows of a file's tensor.

    Attributes:
        values: Shape: (rows, width). Dtype: int8.
        scales: What a row's integers are multiplied by. Shape: (rows,). Dtype: float32.
    """

    values: torch.Tensor
    scales: torch.Tensor

    @classmethod
    def empty(cls, rows: int, width: int) -> Int8Rows:
        """Make room for rows that are written later."""
        return cls(torch.empty(rows, width, dtype=torch.int8), torch.empty(rows))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor that this stands for."""
        return tuple(self.values.shape)

    def part(self, start: int, end: int) -> Int8Rows:
        """Some of the rows, in the same memory."""
        return Int8Rows(self.values[start:end], self.scales[start:end])

    def write(self, start: int, rows: torch.Tensor) -> None:
        """Quantise rows.

        Args:
            start: Where the first of them goes.
            rows: Shape: (n, width). Dtype: float.
        """
        # Some at a time: what they are in float32 shall not count.
        for part in rows.split(ROWS_AT_ONCE):
            end = start + len(part)
            values, scales = quantise(part.float())
            self.values[start:end] = values
            self.scales[start:end] = scales.squeeze(1)
            start = end


def quantise(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn each row of weights into integers and one scale.

    Args:
        rows: Shape: (n, width). Dtype: float32.

    Returns:
        The integers, shape (n, width), int8, and the scales, shape (n, 1), float32; NaN or
        infinity where the row holds such.

    Example:
        >>> values, scales = quantise(torch.tensor([[0.5, -1.0], [0.0, 0.0]]))
        >>> values.tolist(), (values * scales)[0, 1].item()
        ([[64, -127], [0, 0]], -1.0)
    """
    largest = torch.maximum(rows.amax(-1, keepdim=True), -rows.amin(-1, keepdim=True))
    largest.clamp_min_(_LEAST)
    values = (rows * (_HIGHEST / largest)).round_()  # (n, width)
    return values.to(torch.int8), largest.div_(_HIGHEST)


def quantise_states(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Turn each row of states into integers, a scale and the least value.

    Args:
        rows: Shape: (n, width). Dtype: float32.

    Returns:
        The integers, shape (n, width), uint8; the scales and the least values, both of shape
        (n, 1), float32; NaN where the row holds NaN or infinity. A row is integers times scale plus
        the least value.

    Example:
        >>> values, scales, least = quantise_states(torch.tensor([[-1.0, 0.0, 1.55]]))
        >>> values.tolist(), least.item(), round(scales.item(), 4)
        ([[0, 100, 255]], -1.0, 0.01)
    """
    width = rows.shape[1]
    # In one pass: the integers of each row, and behind them its scale and its least value.
    whole = torch.ops.quantized.embedding_bag_byte_prepack(rows)  # (n, width + 8), uint8
    scales, least = (
        whole[:, width:].reshape(-1).clone().view(torch.float32).view(-1, 2).split(1, dim=1)
    )
    # That passes over NaN, which a sum does not.
    return whole[:, :width].contiguous(), scales, least + 0 * rows.sum(1, keepdim=True)


@dataclass(frozen=True, slots=True, eq=False)
class Int8Table:
    """Embeddings.

    Attributes:
        rows: Shape: (rows, hidden).
    """

    rows: Int8Rows

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """From (tokens,) to (tokens, hidden), float32."""
        return self.rows.values[ids] * self.rows.scales[ids].unsqueeze(1)

    @classmethod
    def of(cls, weights: Weights, name: str, *, rows: int, width: int) -> Int8Table:
        """Ask for a table; as of ``Table.of``."""
        is_there = weights.has(f"{name}.weight", shape=(rows, width))
        target = Int8Rows.empty(rows if is_there else 0, width)
        if is_there:
            weights.ask_into(f"{name}.weight", target)
        return cls(target)


class Int8Linear:
    """A linear layer.

    Args:
        rows: The weights, of shape (outputs, inputs); to be written, then put in order.
        bias: Shape: (outputs,). Dtype: float32.
    """

    __slots__ = ("_bias", "_scales", "_sums", "_weight", "_zeros")

    def __init__(self, rows: Int8Rows, bias: torch.Tensor) -> None:
        self._weight = rows.values
        self._scales = rows.scales
        self._zeros = torch.zeros(len(rows.scales), dtype=torch.int64)
        self._sums = torch.empty_like(rows.scales)
        self._bias = bias

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """From (tokens, inputs) to (tokens, outputs), float32."""
        values, scales, least = quantise_states(states.float())
        # Unsigned times signed, as VNNI has it: without AMX oneDNN is a hundred times slower where
        # both are signed. Still without the tokens' scales: (tokens, outputs), float32.
        product: torch.Tensor = torch.ops.onednn.qlinear_pointwise.default(
            *(values, 1.0, 0, self._weight, self._scales, self._zeros, None),
            *(1.0, 0, torch.float32, "none", [], "none"),
        )
        of_least = torch.addcmul(self._bias, least, self._sums)  # (tokens, outputs)
        return torch.addcmul(of_least, product, scales, out=product)

    def order(self) -> None:
        """Put the weights in the order in which oneDNN reads them; once they are written."""
        torch.mul(self._weight.sum(1, dtype=torch.int32), self._scales, out=self._sums)
        self._weight = torch.ops.onednn.qlinear_prepack(self._weight, None)

    @classmethod
    def of(cls, weights: Weights, *names: str, outputs: int, inputs: int) -> Int8Linear:
        """Ask for a layer, or for several over the same inputs as one; as of ``Linear.of``."""
        matrices = [f"{name}.weight" for name in names]
        is_there = weights.has(*matrices, shape=(outputs, inputs))
        whole = Int8Rows.empty(len(names) * outputs if is_there else 0, inputs)
        for number, name in enumerate(matrices if is_there else ()):
            weights.ask_into(name, whole.part(number * outputs, (number + 1) * outputs))
        made = cls(whole, weights.ask(*(f"{name}.bias" for name in names), shape=(outputs,)))
        weights.when_filled(made.order)
        return made


class Int8Layer(LayerParts[Int8Linear]):
    """One layer of the encoder."""

    __slots__ = ()

    def __call__(self, states: torch.Tensor, packing: Packing) -> torch.Tensor:
        """From one layer's states to the next one's, in their place; shape (rows, hidden)."""
        rows, hidden = states.shape
        blocks = [slice(i, i + ROWS_AT_ONCE) for i in range(0, rows, ROWS_AT_ONCE)]
        dtype = torch.bfloat16 if cpu_multiplies(torch.bfloat16) else torch.float32
        qkv = torch.empty(rows, 3 * hidden, dtype=dtype)
        for block in blocks:
            qkv[block] = self.qkv(states[block])
        query, key, value = qkv.view(rows, 3, self.heads, -1).unbind(1)
        attended = attend(query, key, value, packing)  # (rows, heads, head_dim)
        attended = attended.reshape(rows, hidden)
        for block in blocks:
            states[block] = self._second_half(states[block], attended[block])
        return states

    def _second_half(self, states: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """What follows attention, of some rows."""
        states = self.attention_norm(self.attention_output(attended).add_(states))
        inner = self.activation(self.up(states))  # (rows, intermediate)
        return self.output_norm(self.down(inner).add_(states))
