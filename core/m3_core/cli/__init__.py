"""The ``m3-retrieval`` command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.cli.main import app

__all__ = [
    "app",
]

_HOMES = {
    "app": "main",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
