"""Strings as two arrays: their bytes, and where each begins."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def packed_strings(strings: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Put strings one after another.

    Args:
        strings: Any; lone surrogates stay as they are.

    Returns:
        UTF-8, shape (bytes,), dtype uint8; and offsets, shape (strings + 1,), dtype int64.

    Example:
        >>> data, offsets = packed_strings(["a", "", "é"])
        >>> data.tolist(), offsets.tolist()
        ([97, 195, 169], [0, 1, 1, 3])
    """
    encoded = [one.encode("utf-8", "surrogatepass") for one in strings]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(one) for one in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets


def unpacked_strings(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> list[str]:
    """Take strings apart again.

    Args:
        data: Shape: (bytes,).
        offsets: Shape: (strings + 1,).

    Returns:
        The strings.

    Raises:
        ValueError: The offsets do not divide the bytes, or a string is no UTF-8.
    """
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(data):
        raise ValueError("the offsets of strings do not divide their bytes")
    if (np.diff(offsets) < 0).any():
        raise ValueError("the offsets of strings decrease")
    whole = data.tobytes()
    return [
        whole[start:stop].decode("utf-8", "surrogatepass")
        for start, stop in pairwise(offsets.tolist())
    ]
