"""Ways of ranking that are compared: single representations, and what joins them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from m3_core.collection import DEFAULT_WEIGHTS, check_fusion
from m3_core.encoder import PARTS
from m3_core.errors import MissingRepresentationError
from m3_core.rerankers import weighted_parts

if TYPE_CHECKING:
    from collections.abc import Collection

Weights = tuple[float, float, float]
Fusion = Literal["weights", "rrf"]

# Of dense with sparse and of all three, in FlagEmbedding's evaluation of M3 on these data (its
# folder C_MTEB); elsewhere 1, 0.3 and 1, 0.3, 1, as on MIRACL.
_PUBLISHED: dict[str, tuple[Weights, Weights]] = {
    "mldr": ((0.2, 0.8, 0.0), (0.15, 0.5, 0.35)),
}
_OF_MODEL_CARD = (0.4, 0.2, 0.4)


@dataclass(frozen=True, slots=True)
class Setting:
    """One way of ranking.

    Attributes:
        name: As tables and run files call it.
        weights: Of dense, lexical and multi-vector scores.
        fusion: By the weighted mean of scores, or by reciprocal ranks.

    Raises:
        ValueError: The weights are not three numbers of at least 0 with a sum above 0.
    """

    name: str
    weights: Weights
    fusion: Fusion = "weights"

    def __post_init__(self) -> None:
        weighted_parts(self.weights)
        check_fusion(self.fusion)

    @property
    def parts(self) -> tuple[str, ...]:
        """The representations with a weight, of ``"dense"``, ``"sparse"`` and ``"colbert"``."""
        return weighted_parts(self.weights)

    @classmethod
    def of(cls, weights: Weights, fusion: Fusion = "weights") -> Setting:
        """Name a setting by its weights.

        Args:
            weights: As of the class.
            fusion: Likewise.

        Returns:
            The setting.

        Example:
            >>> Setting.of((1.0, 0.3, 0.0)).name, Setting.of((1.0, 1.0, 1.0), "rrf").name
            ('1/0.3/0', 'rrf 1/1/1')
        """
        shown = "/".join(f"{weight:.6g}" for weight in weights)
        return cls(f"rrf {shown}" if fusion == "rrf" else shown, weights, fusion)


SINGLE = tuple(
    Setting(part, weights)
    for part, weights in zip(
        PARTS, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), strict=True
    )
)
"""The representations alone."""
DEFAULT = Setting("all 1/0.3/1", DEFAULT_WEIGHTS)
"""What retrievers and stores do with ``rerank=True``, unless told otherwise."""
DENSE_SPARSE = Setting("dense+sparse 1/0.3", (1.0, 0.3, 0.0))
"""What they do without it."""


def settings_for(
    representations: Collection[str],
    origin: str = "beir",
    more: Collection[Weights] = (),
) -> list[Setting]:
    """List what can be compared with some representations.

    Args:
        representations: Of ``"dense"``, ``"sparse"`` and ``"colbert"``, those that there are.
        origin: As of ``RetrievalData``: M3-Embedding's weights for these data come too.
        more: Further weights.

    Returns:
        Each representation; the published hybrids; reciprocal rank fusion; further ones.

    Raises:
        MissingRepresentationError: Further weights need a representation that there is not.

    Example:
        >>> [one.name for one in settings_for(["dense", "sparse"])]
        ['dense', 'sparse', 'dense+sparse 1/0.3', 'rrf 1/1/0']
    """
    wanted = [*SINGLE, DENSE_SPARSE, DEFAULT]
    wanted += [
        Setting(f"{origin} {Setting.of(one).name}", one) for one in _PUBLISHED.get(origin, ())
    ]
    wanted.append(Setting.of(_OF_MODEL_CARD))
    there = [float(part in representations) for part in PARTS]
    if sum(there) > 1:
        wanted.append(Setting.of((there[0], there[1], there[2]), "rrf"))
    asked = [Setting.of(weights) for weights in more]
    for one in asked:
        if absent := set(one.parts) - set(representations):
            raise MissingRepresentationError(
                f"the weights {one.name} (dense, sparse, colbert) need "
                f"{' and '.join(sorted(absent))}; the model has {' and '.join(representations)}"
            )
    usable = [one for one in [*wanted, *asked] if set(one.parts) <= set(representations)]
    return list({one.name: one for one in usable}.values())
