"""What callers pass: shown in errors, and taken for arrays of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LONGEST = 80


def shown(value: Any) -> str:
    """Show a value in an error text, whatever it is.

    Args:
        value: Anything.

    Returns:
        The beginning of its ``repr``; its type if that fails.

    Example:
        >>> shown(["a"]), shown("a" * 1000)[-5:]
        ("['a']", 'aaaaa')
    """
    try:
        return f"{value!r:.{_LONGEST}}"
    except Exception:  # noqa: BLE001 (of an object of the caller's, or one within itself)
        return f"something of type {type(value).__name__}"


def as_array(value: Any, dtype: Any, what: str) -> NDArray[Any]:
    """Take a value for an array of numbers.

    Args:
        value: Anything.
        dtype: The array's data type; as numpy finds it if ``None``.
        what: What it is called, for the error text.

    Returns:
        The array; the very same if it is one.

    Raises:
        TypeError: It is none of numbers.
        ValueError: Its rows have other lengths than each other, or a number is too large.

    Example:
        >>> as_array([1, 2], np.float32, "weights").tolist()
        [1.0, 2.0]
    """
    try:
        array = np.asarray(value, dtype)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{what} must be numbers; got {shown(value)}: {error}") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what} must be real numbers; got {shown(value)}")
    return array
