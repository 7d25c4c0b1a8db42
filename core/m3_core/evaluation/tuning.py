"""Which weights and which fusion fit a collection, told on queries that did not choose them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.encoder import PARTS
from m3_core.evaluation.settings import DEFAULT, DENSE_SPARSE, SINGLE, Setting
from m3_core.evaluation.significance import Difference, compare_values

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from numpy.typing import NDArray

    from m3_core.evaluation.settings import Weights

# Below this, chance alone would often make such a difference.
SIGNIFICANT = 0.05
# Parts of ten; a finer grid finds no more than noise.
_STEPS = 10
_FUSED: tuple[Weights, ...] = (
    (1.0, 1.0, 0.0),
    (1.0, 0.0, 1.0),
    (0.0, 1.0, 1.0),
    (1.0, 1.0, 1.0),
    (1.0, 0.3, 1.0),
)


def weight_grid(parts: Collection[str]) -> list[Setting]:
    """List what is tried.

    Args:
        parts: Of ``"dense"``, ``"sparse"`` and ``"colbert"``, those that there are.

    Returns:
        Weights in tenths with the sum 1, the published ones, and reciprocal rank fusions.

    Example:
        >>> len(weight_grid(["dense", "sparse"])), len(weight_grid(["dense"]))
        (13, 1)
    """
    tenths = [
        (dense, sparse, _STEPS - dense - sparse)
        for dense in range(_STEPS + 1)
        for sparse in range(_STEPS + 1 - dense)
    ]
    grid = [DEFAULT, DENSE_SPARSE, *SINGLE]
    grid += [
        Setting.of((dense / _STEPS, sparse / _STEPS, colbert / _STEPS))
        for dense, sparse, colbert in tenths
        if _STEPS not in (dense, sparse, colbert)
    ]
    grid += [Setting.of(weights, "rrf") for weights in _FUSED]
    return [one for one in grid if set(one.parts) <= set(parts)]


@dataclass(frozen=True, slots=True)
class Advice:
    """What to weigh the scores with.

    Attributes:
        parts: The representations that were joined.
        measure: What was made as large as possible.
        best: The best setting over all queries; the one to use.
        best_value: Its measure over all queries, which chose it: an optimist's figure.
        crossed_value: The measure on queries that did not choose the setting used for them.
        chosen: What each fold's other queries chose.
        default: What is done unless told otherwise.
        default_value: Its measure.
        single: The best representation alone.
        single_value: Its measure.
        gain: The cross-validated choice against the default, query by query.
        loss: The default against the best representation alone.
    """

    parts: tuple[str, ...]
    measure: str
    best: Setting
    best_value: float
    crossed_value: float
    chosen: tuple[Setting, ...]
    default: Setting
    default_value: float
    single: Setting
    single_value: float
    gain: Difference
    loss: Difference

    @property
    def warning(self) -> str | None:
        """What is wrong with the default on these data; ``None`` if nothing is."""
        if self.default_value >= self.single_value:
            return None
        sure = "" if self.loss.p_randomisation < SIGNIFICANT else ", which may be chance"
        return (
            f"the default hybrid ({self.default.name}) is worse than {self.single.name} alone: "
            f"{self.measure} {self.default_value:.3f} against {self.single_value:.3f} "
            f"(p = {self.loss.p_randomisation:.3g}{sure})"
        )

    @property
    def arguments(self) -> str:
        """What to pass to retrievers and stores."""
        weights = ", ".join(f"{weight:g}" for weight in self.best.weights)
        rerank = "rerank=True, " if "colbert" in self.best.parts else ""
        fusion = "" if self.best.fusion == "weights" else f', fusion="{self.best.fusion}"'
        return f"{rerank}weights=({weights}){fusion}"

    @property
    def text(self) -> str:
        """What the folds say, and what to do."""
        joined, found = "+".join(self.parts), f"{self.measure} {self.crossed_value:.3f}"
        folds = (
            f"{found} against {self.default_value:.3f} on queries that did not choose, "
            f"{len(self.chosen)} folds, p = {self.gain.p_randomisation:.3g}"
        )
        use = f"M3HybridRetriever(..., {self.arguments})"
        if self.gain.mean > 0 and self.gain.p_randomisation < SIGNIFICANT:
            return (
                f"{joined}: {self.best.name} fits these data better than {self.default.name} "
                f"({folds}). To use it: {use}, and the same in stores and indexes"
            )
        start = f"{joined}: no weights are clearly better than {self.default.name} ({folds})"
        if self.best == self.default:
            return f"{start}, which is also the best over all queries: {use}"
        return (
            f"{start}. The best over all queries, which chose it, is {self.best.name} "
            f"({self.best_value:.3f}): {use}"
        )

    def to_json(self) -> dict[str, Any]:
        """Give it as plain values."""
        return {
            "representations": list(self.parts),
            "measure": self.measure,
            "weights": dict(zip(PARTS, self.best.weights, strict=True)),
            "fusion": self.best.fusion,
            "value_over_all_queries": self.best_value,
            "cross_validated": self.crossed_value,
            "chosen_by_folds": [one.name for one in self.chosen],
            "default": self.default.name,
            "default_value": self.default_value,
            "best_single": self.single.name,
            "best_single_value": self.single_value,
            "against_default": self.gain.to_json(),
            "default_against_single": self.loss.to_json(),
            "arguments": self.arguments,
            "warning": self.warning,
            "text": self.text,
        }


def fit_weights(
    parts: Collection[str],
    value_of: Callable[[Setting], NDArray[np.float64]],
    measure: str,
    *,
    folds: int = 5,
    seed: int = 0,
) -> Advice:
    """Choose weights and fusion by cross-validation over queries.

    Args:
        parts: The representations that there are; at least two.
        value_of: Measures a setting. Returns shape: (queries,).
        measure: What it measures.
        folds: Into how many parts the queries are cut: each is measured with what the others
            chose. At most as many as queries.
        seed: Of the cut.

    Returns:
        The advice.

    Raises:
        ValueError: There are fewer than two folds or queries, or one representation only.
    """
    grid = weight_grid(parts)
    if len(parts) < 2:
        raise ValueError(f"weights join representations; there is only {' '.join(parts)}")
    values = np.array([value_of(setting) for setting in grid])
    queries = values.shape[1]
    folds = min(folds, queries)
    if folds < 2:
        raise ValueError(f"cross-validation needs 2 folds and queries; got {folds} of {queries}")
    fold_of = np.random.default_rng(seed).permutation(np.arange(queries) % folds)
    crossed = np.empty(queries)
    chosen = []
    for fold in range(folds):
        inside = fold_of == fold
        best = _best(values[:, ~inside].mean(axis=1))
        crossed[inside] = values[best, inside]
        chosen.append(grid[best])
    means = values.mean(axis=1)
    names = [one.name for one in grid]
    default = DEFAULT if len(parts) == len(PARTS) else DENSE_SPARSE
    # Without dense or without lexical scores there is no default to speak of: the best stands in.
    number = names.index(default.name) if default.name in names else _best(means)
    singles = [place for place, one in enumerate(grid) if len(one.parts) == 1]
    single = singles[_best(means[singles])]
    best = _best(means)
    return Advice(
        tuple(part for part in PARTS if part in parts),
        measure,
        grid[best],
        float(means[best]),
        float(crossed.mean()),
        tuple(chosen),
        grid[number],
        float(means[number]),
        grid[single],
        float(means[single]),
        compare_values(crossed, values[number]),
        compare_values(values[number], values[single]),
    )


def _best(means: NDArray[np.float64] | Sequence[float]) -> int:
    """The place of the largest; of equal ones, within rounding, the first."""
    array = np.asarray(means)
    return int(np.flatnonzero(array >= array.max() - 1e-12)[0])
