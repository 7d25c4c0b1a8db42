"""Whether a difference between two runs is more than chance: paired tests over queries."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# As many sign patterns as give p-values of 0.0001 and more.
_RESAMPLES = 9_999


@dataclass(frozen=True, slots=True)
class Difference:
    """One run against another, query by query.

    Attributes:
        mean: Of the first minus that of the second.
        better: Queries on which the first is better.
        worse: Queries on which it is worse.
        equal: The others.
        p_randomisation: Of the paired randomisation test, two-sided.
        p_ttest: Of the paired t-test, two-sided.
        low: Lower end of the mean's 95 % interval, by the t-distribution.
        high: Its upper end.
    """

    mean: float
    better: int
    worse: int
    equal: int
    p_randomisation: float
    p_ttest: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """Give it as plain values."""
        return asdict(self)


def compare_values(first: ArrayLike, second: ArrayLike) -> Difference:
    """Test a difference of means over the same queries.

    Args:
        first: One value a query. Shape: (queries,).
        second: Of the same queries, in the same order.

    Returns:
        The difference and how likely chance would give as large a one. Two runs without any
        difference have p-values of 1.

    Raises:
        ValueError: The lengths differ, or there are none.

    Example:
        >>> found = compare_values([1.0, 1.0, 0.5, 1.0], [0.5, 1.0, 0.25, 0.0])
        >>> found.mean, found.better, found.equal, found.p_randomisation
        (0.4375, 3, 1, 0.25)
    """
    from scipy import stats

    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(
            f"two runs are compared on the same queries, at least one; got {a.shape} and {b.shape}"
        )
    differences = a - b
    mean = float(differences.mean())
    counts = int((differences > 0).sum()), int((differences < 0).sum())
    equal = len(a) - sum(counts)
    if equal == len(a) or len(a) == 1:
        return Difference(mean, *counts, equal, 1.0, 1.0, mean, mean)
    randomised = _randomisation(differences[differences != 0])
    error = float(differences.std(ddof=1) / np.sqrt(len(a)))
    if error == 0.0:
        # The same difference everywhere: t is infinite.
        return Difference(mean, *counts, equal, randomised, 0.0, mean, mean)
    tested = stats.ttest_rel(a, b)
    reach = float(stats.t.ppf(0.975, len(a) - 1)) * error
    return Difference(
        mean,
        *counts,
        equal,
        randomised,
        float(tested.pvalue),
        mean - reach,
        mean + reach,
    )


def _randomisation(differences: NDArray[np.float64]) -> float:
    """How often random signs give as large a sum; equal queries, whose sign is idle, left out."""
    from scipy import stats

    if len(differences) == 1:
        return 1.0
    tested = stats.permutation_test(
        (differences,),
        lambda values, axis: values.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=max(1, 5_000_000 // len(differences)),
        rng=np.random.default_rng(0),
    )
    return float(tested.pvalue)
