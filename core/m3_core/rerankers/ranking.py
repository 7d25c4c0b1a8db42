"""From scores to a ranking: what is kept, and in what order."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def select_best(
    scores: Sequence[float], top_n: int | None = None, threshold: float | None = None
) -> list[tuple[int, float]]:
    """Sort scores, drop those below a threshold, and keep the best.

    Args:
        scores: One score an item.
        top_n: How many to keep at most; all if ``None``.
        threshold: The lowest score that is kept: a score equal to it stays.

    Returns:
        (position, score), the best first; ties in the given order.

    Raises:
        ValueError: ``top_n`` is below 0.

    Example:
        >>> select_best([0.1, 0.5, 0.9, 0.5], top_n=2, threshold=0.5)
        [(2, 0.9), (1, 0.5)]
        >>> select_best([0.1, 0.5, 0.9, 0.5], threshold=0.5)
        [(2, 0.9), (1, 0.5), (3, 0.5)]
    """
    if top_n is not None and top_n < 0:
        raise ValueError(f"top_n must be at least 0; got {top_n}")
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    kept = [(i, scores[i]) for i in order if threshold is None or scores[i] >= threshold]
    return kept[:top_n]
