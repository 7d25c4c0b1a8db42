"""Batches as rectangles: what goes into the network in training, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from m3_core.network import TokenBatch


@dataclass(frozen=True, slots=True)
class Encoded:
    """Representations of a padded batch, with gradients.

    Attributes:
        dense: Length 1. Shape: (texts, hidden).
        sparse: A weight for each token id; ``None`` where not asked for. Shape: (texts, ids).
        colbert: Without the first token; length 1, zero where padded. Shape: (texts, tokens - 1,
            dim).
        mask: 1 for real vectors of ``colbert``. Shape: (texts, tokens - 1).
    """

    dense: torch.Tensor
    sparse: torch.Tensor | None
    colbert: torch.Tensor | None
    mask: torch.Tensor

    @staticmethod
    def join(parts: list[Encoded]) -> Encoded:
        """Put sub-batches together, padding their multi-vectors to the longest.

        Args:
            parts: In order.

        Returns:
            One batch.
        """
        if len(parts) == 1:
            return parts[0]
        width = max(part.mask.shape[1] for part in parts)

        def padded(values: torch.Tensor) -> torch.Tensor:
            missing = (0, width - values.shape[1])
            return functional.pad(values, (0, 0, *missing) if values.dim() == 3 else missing)

        sparse = [part.sparse for part in parts if part.sparse is not None]
        colbert = [padded(part.colbert) for part in parts if part.colbert is not None]
        return Encoded(
            torch.cat([part.dense for part in parts]),
            torch.cat(sparse) if sparse else None,
            torch.cat(colbert) if colbert else None,
            torch.cat([padded(part.mask) for part in parts]),
        )


def pad(tokens: TokenBatch, padding_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay texts out as a rectangle.

    Args:
        tokens: The texts.
        padding_id: Fills up short rows.

    Returns:
        Ids, int64, and mask, 1 for real tokens, int64, both of shape (texts, longest).
    """
    lengths = tokens.lengths
    inside = np.arange(lengths.max(initial=0)) < lengths[:, None]
    ids = np.full(inside.shape, padding_id, np.int64)
    ids[inside] = tokens.ids
    return torch.from_numpy(ids), torch.from_numpy(inside.astype(np.int64))
