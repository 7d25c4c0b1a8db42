"""BGE-M3 and the BGE family for LangChain.

The names below load on first use: importing the package loads neither LangChain nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_m3.embeddings import M3Embeddings

__all__ = ["M3Embeddings"]

_HOMES = {"M3Embeddings": "langchain_m3.embeddings"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
