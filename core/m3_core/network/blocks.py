"""Matrices stored in blocks of 4-bit values, as embedded models are, and how they are expanded.

The file is called ``model.blocks.safetensors``, so that other software finds no weights and says
so, where it would start from random ones with a mere warning. A matrix ``NAME`` of shape (rows,
columns), columns divisible by 32, is two tensors of it; what is no matrix is stored as it is:

* ``NAME.nibbles``, uint8, shape (rows, columns / 2): 16 bytes a block of 32 values, the lower four
  bits of its bytes the first 16 values, the upper four the last 16;
* ``NAME.scales``, float16, shape (rows, columns / 32): one a block.

A value is ``(nibble - 8) * scale``: 4.5 bits a value, and exactly the blocks of GGML's ``Q4_0``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BLOCKS_FILE = "model.blocks.safetensors"
NIBBLES, SCALES = ".nibbles", ".scales"
_BLOCK = 32
_ZERO = 8


def is_blocked(folder: Path) -> bool:
    """Whether a checkpoint's matrices are stored in blocks.

    Args:
        folder: The checkpoint.

    Returns:
        True if it has a file of that name.
    """
    return (folder / BLOCKS_FILE).is_file()


def plain_shapes(stored: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Tell what matrices a file holds once its blocks are expanded.

    Args:
        stored: Shapes of the file's tensors by name.

    Returns:
        The same with one matrix for each pair of nibbles and scales that fit each other.
    """
    shapes = dict(stored)
    for name, (*rows, width) in stored.items():
        plain = name.removesuffix(NIBBLES)
        fits = stored.get(plain + SCALES) == (*rows, width * 2 // _BLOCK)
        if plain != name and fits and not width * 2 % _BLOCK:
            shapes[plain] = (*rows, width * 2)
            del shapes[name], shapes[plain + SCALES]
    return shapes


def expand(nibbles: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Compute the values of some rows.

    Args:
        nibbles: Shape: (rows, columns / 2). Dtype: uint8.
        scales: Shape: (rows, columns / 32). Dtype: float16.

    Returns:
        Shape: (rows, columns). Dtype: float32.

    Example:
        >>> nibbles = torch.tensor([[0x19] + [0x88] * 15], dtype=torch.uint8)
        >>> values = expand(nibbles, torch.tensor([[0.5]], dtype=torch.float16))
        >>> values[0, [0, 1, 16]].tolist()
        [0.5, 0.0, -3.5]
    """
    blocks = nibbles.unflatten(1, (-1, _BLOCK // 2))  # (rows, blocks, 16)
    halves = torch.cat([blocks & 15, blocks >> 4], 2).to(torch.int8) - _ZERO  # (rows, blocks, 32)
    return (halves * scales.float()[:, :, None]).flatten(1)
