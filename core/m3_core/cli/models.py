"""Loading models for the commands."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from m3_core.cli.console import DEFAULT_MODEL, waiting

if TYPE_CHECKING:
    from m3_core.encoder import Encoder
    from m3_core.rerankers import Reranker


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


def is_reranker(name: str) -> bool:
    """Say whether a model is a reranker, without loading its network.

    Args:
        name: An embedded model, a folder or a hub repository.

    Returns:
        Whether it is; otherwise it is an encoder, or nothing that is known here.

    Raises:
        CheckpointError: There is no such model, or its configuration cannot be read.
    """
    from m3_core.errors import UnsupportedModelError
    from m3_core.rerankers import reranker_kind_at

    try:
        reranker_kind_at(name)
    except UnsupportedModelError:
        return False
    return True


def load_reranker(name: str, *, device: str | None = None, dtype: str = "auto") -> Reranker:
    """Load a reranker, and say so where that takes a moment.

    Args:
        name: A folder or a hub repository.
        device: As of ``Reranker.from_pretrained``.
        dtype: Likewise.

    Returns:
        The reranker.

    Raises:
        M3Error: It cannot be loaded.
    """
    from m3_core.rerankers import Reranker

    _hush()
    with waiting(f"Loading {name}"):
        return Reranker.from_pretrained(name, device=device, dtype=dtype)


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

    _hush()
    return Encoder.from_pretrained(name, device=device, dtype=dtype)


def _hush() -> None:
    """Have nothing said about which device and data type a model has, which nobody asked."""
    logging.getLogger("m3_core").setLevel(logging.WARNING)
