"""BGE-M3's dense, lexical and multi-vector representations from one forward pass.

The names below load on first use: importing the package imports neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m3_core.encoder.encoder import Encoder
    from m3_core.encoder.protocol import TextEncoder
    from m3_core.encoder.registry import shared_encoder
    from m3_core.errors import M3Error
    from m3_core.lexical_index.index import LexicalIndex
    from m3_core.representations import LexicalWeights, MultiVectors, Representations
    from m3_core.rerankers import Reranker
    from m3_core.rerankers.cascade import Cascade

__version__ = "0.1.0"

__all__ = [
    "Cascade",
    "Encoder",
    "LexicalIndex",
    "LexicalWeights",
    "M3Error",
    "MultiVectors",
    "Representations",
    "Reranker",
    "TextEncoder",
    "__version__",
    "shared_encoder",
]

_HOMES = {
    "Cascade": "m3_core.rerankers.cascade",
    "Encoder": "m3_core.encoder.encoder",
    "LexicalIndex": "m3_core.lexical_index.index",
    "LexicalWeights": "m3_core.representations",
    "M3Error": "m3_core.errors",
    "MultiVectors": "m3_core.representations",
    "Representations": "m3_core.representations",
    "Reranker": "m3_core.rerankers",
    "TextEncoder": "m3_core.encoder.protocol",
    "shared_encoder": "m3_core.encoder.registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
