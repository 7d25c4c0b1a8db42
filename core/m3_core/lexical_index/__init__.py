"""Posting lists over lexical weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.lexical_index.index import LexicalIndex

__all__ = [
    "LexicalIndex",
]

_HOMES = {
    "LexicalIndex": "index",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
