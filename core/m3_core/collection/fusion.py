"""Several rankings of the same documents made into one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from m3_core.scoring import reciprocal_rank_fusion

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

Fusion = Literal["weights", "rrf"]


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that a search found.

    Attributes:
        id: Its id.
        text: Its text.
        metadata: A copy of what was stored with it, down to the last list.
        score: What results are sorted by.
        scores: The scores it was made of, by representation; a document that is outside the
            candidates of a ranking lacks that ranking's score only where fusion is by rank.
        vector: Its dense vector, where it was asked for. Shape: (dim,). Dtype: float32.
    """

    id: str
    text: str
    metadata: dict[str, Any]
    score: float
    scores: dict[str, float]
    vector: NDArray[np.float32] | None = field(default=None, compare=False)


def check_fusion(fusion: Any) -> Fusion:
    """Check the name of a way of fusing.

    Args:
        fusion: The name.

    Returns:
        The same.

    Raises:
        ValueError: There is no such way.

    Example:
        >>> check_fusion("rrf")
        'rrf'
    """
    if fusion not in ("weights", "rrf"):
        raise ValueError(f"fusion must be 'weights' or 'rrf'; got {fusion!r}")
    return fusion  # type: ignore[no-any-return]


def fuse(
    rankings: Mapping[str, Mapping[str, float]], weights: Mapping[str, float], fusion: Fusion
) -> list[tuple[str, float]]:
    """Merge rankings by weighted scores or by ranks.

    Args:
        rankings: By name, ``{id: score}``, best first.
        weights: A weight for each name; rankings with the weight 0 are left out.
        fusion: ``"weights"``: weighted mean of the scores, an absent one counting 0.
            ``"rrf"``: weighted reciprocal ranks.

    Returns:
        Ids and scores, best first.

    Raises:
        ValueError: All weights are 0.

    Example:
        >>> fuse({"x": {"a": 1.0, "b": 0.5}, "y": {"b": 1.0}}, {"x": 0.5, "y": 0.5}, "weights")
        [('b', 0.75), ('a', 0.5)]
    """
    used = [name for name in rankings if weights[name] > 0]
    if not used:
        raise ValueError("the weights of all scores that are there are 0")
    if fusion == "rrf":
        orders = [list(rankings[name]) for name in used]
        return reciprocal_rank_fusion(orders, weights=[weights[name] for name in used])
    total = sum(weights[name] for name in used)
    sums: dict[str, float] = {}
    for name in used:
        for one, score in rankings[name].items():
            sums[one] = sums.get(one, 0.0) + weights[name] / total * score
    return sorted(sums.items(), key=lambda pair: -pair[1])
