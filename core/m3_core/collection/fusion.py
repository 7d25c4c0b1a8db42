"""What a search finds, and how several rankings become one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from m3_core.values import shown

if TYPE_CHECKING:
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
        raise ValueError(f"fusion must be 'weights' or 'rrf'; got {shown(fusion)}")
    return fusion  # type: ignore[no-any-return]
