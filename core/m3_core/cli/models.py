"""Loading models for the commands."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from m3_core.cli.console import DEFAULT_MODEL, waiting

if TYPE_CHECKING:
    from m3_core.encoder import Encoder


def load_encoder(name: str, *, device: str | None = None, dtype: str = "auto") -> Encoder:
    """Load an encoder, and say so where that takes a moment.

    Args:
        name: An embedded model, a folder or a hub repository.
        device: As of ``Encoder.from_pretrained``.
        dtype: Likewise.

    Returns:
        The encoder.

    Raises:
        M3Error: It cannot be loaded.
    """
    if name != DEFAULT_MODEL and not Path(name).is_dir():
        # The hub shows how far its downloads are.
        return _load(name, device, dtype)
    with waiting(f"Loading {name}"):
        return _load(name, device, dtype)


def lasting_name(name: str) -> str:
    """Make the name of a model independent of the current folder.

    Args:
        name: An embedded model, a folder or a hub repository.

    Returns:
        The absolute path of a folder; any other name as it is.
    """
    is_folder = name != DEFAULT_MODEL and Path(name).expanduser().is_dir()
    return os.fspath(Path(name).expanduser().resolve()) if is_folder else name


def _load(name: str, device: str | None, dtype: str) -> Encoder:
    from m3_core.encoder import Encoder

    # Which device and data type it has, nobody asked here.
    logging.getLogger("m3_core").setLevel(logging.WARNING)
    return Encoder.from_pretrained(name, device=device, dtype=dtype)
