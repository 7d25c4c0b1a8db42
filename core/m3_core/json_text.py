"""Reading JSON that others have written."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Read JSON; whatever is wrong with it is a ``ValueError``.

    Args:
        text: The JSON, as bytes in UTF-8.

    Returns:
        What it says.

    Raises:
        ValueError: It is not JSON, or is nested deeper than Python reads.

    Example:
        >>> parse_json('{"a": [1, 2]}')
        {'a': [1, 2]}
        >>> parse_json("[" * 100_000)
        Traceback (most recent call last):
            ...
        ValueError: it is nested too deeply
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
