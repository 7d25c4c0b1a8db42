"""Values that users have at hand, as the strings that fields hold."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator


def as_text(value: Any) -> Any:
    """Give paths and torch's names of devices and data types as strings.

    Args:
        value: The value.

    Returns:
        The string; anything else as it is.

    Example:
        >>> from pathlib import PurePosixPath
        >>> as_text(PurePosixPath("models/bge-m3")), as_text("float32")
        ('models/bge-m3', 'float32')
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    # Not by isinstance, which would import torch.
    if type(value).__module__ == "torch" and type(value).__name__ in ("dtype", "device"):
        return str(value).removeprefix("torch.")
    return value


@dataclass(frozen=True, repr=False)
class _AsText(BeforeValidator):
    def __repr__(self) -> str:
        # Signatures show it, in help() and in notebooks.
        return "or a path, or torch's own"


Text = Annotated[str, _AsText(as_text)]
"""A string, or what stands for one."""
