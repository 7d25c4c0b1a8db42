"""Scores of pairs as they come from the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.errors import NonFiniteError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class ScoreCollector:
    """Puts the scores of one call into its order.

    Args:
        num_pairs: Pairs of the call.
        columns: Scores a pair: one a cutoff layer.

    Attributes:
        scores: Raw scores. Shape: (pairs, columns). Dtype: float32.
    """

    def __init__(self, num_pairs: int, columns: int) -> None:
        self.scores: NDArray[np.float32] = np.empty((num_pairs, columns), np.float32)

    def add(
        self,
        results: Mapping[str, NDArray[Any]],
        places: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> None:
        """Take the scores of some pairs.

        Args:
            results: ``scores`` of these pairs and of others'.
            places: Which of them are these pairs'. Shape: (pairs,).
            rows: Which of the caller's pairs they are. Shape: (pairs,).

        Raises:
            NonFiniteError: One of them is NaN or infinite.
        """
        scores = results["scores"][places]
        bad = sorted(rows[~np.isfinite(scores).all(1)].tolist())
        if bad:
            listed = ", ".join(map(str, bad[:10])) + (", …" if len(bad) > 10 else "")
            raise NonFiniteError(
                f"the scores of {len(bad)} pairs (positions {listed}) are NaN or infinite: the "
                "weights are damaged, or their data type overflows: try dtype='bfloat16' or "
                "'float32'"
            )
        self.scores[rows] = scores


def sigmoid(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Put raw scores into 0 to 1, in double precision so that large ones stay apart.

    Args:
        scores: Logits of any shape.

    Returns:
        ``1 / (1 + exp(-score))``, of the same shape.

    Example:
        >>> sigmoid(np.array([0.0, -1000.0, 1000.0], np.float32)).tolist()
        [0.5, 0.0, 1.0]
    """
    # exp only of negative numbers: it cannot overflow.
    small = np.exp(-np.abs(scores.astype(np.float64)))
    result: NDArray[np.float64] = np.where(scores >= 0, 1.0, small) / (1.0 + small)
    return result
