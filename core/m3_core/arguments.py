"""Checks of what users give to searches and collections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.values import as_array, shown

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, NDArray


def check_count(name: str, number: Any) -> int:
    """Check a number of documents.

    Args:
        name: What the argument is called.
        number: Its value.

    Returns:
        The number.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is below 1.

    Example:
        >>> check_count("k", 0)
        Traceback (most recent call last):
        ...
        ValueError: k must be at least 1; got 0
    """
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
        raise TypeError(f"{name} must be a whole number; got {shown(number)}")
    if number < 1:
        raise ValueError(f"{name} must be at least 1; got {shown(number)}")
    return int(number)


def check_ids(ids: Iterable[Any]) -> list[str]:
    """Check that ids are strings.

    Args:
        ids: A list or another iterable.

    Returns:
        The ids as a list.

    Raises:
        TypeError: An id is none, or all are one string.

    Example:
        >>> check_ids(("a", "b"))
        ['a', 'b']
    """
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise TypeError(f"ids must be a list of strings; got {shown(ids)}")
    checked = list(ids)
    for one in checked:
        if not isinstance(one, str):
            raise TypeError(f"ids must be strings; got {shown(one)} of {type(one).__name__}")
    # NumPy's strings become plain ones.
    return [str(one) for one in checked]


def check_distinct(ids: Collection[str]) -> None:
    """Check that no id comes twice.

    Args:
        ids: The ids.

    Raises:
        ValueError: One does.

    Example:
        >>> check_distinct(["a", "b"])
    """
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise ValueError(f"id {shown(one)} comes more than once in one call")
        seen.add(one)


def check_vector(vector: ArrayLike) -> NDArray[np.float32]:
    """Check a dense vector.

    Args:
        vector: Numbers in one dimension.

    Returns:
        Shape: (dim,). Dtype: float32.

    Raises:
        ValueError: It has another shape, or a value is not finite.

    Example:
        >>> check_vector([0.6, 0.8]).shape
        (2,)
    """
    checked = as_array(vector, np.float32, "a vector")
    if checked.ndim != 1 or not len(checked) or not np.isfinite(checked).all():
        raise ValueError(
            f"a vector is a list of finite numbers; got shape {checked.shape}, "
            f"finite: {bool(np.isfinite(checked).all())}"
        )
    return checked
