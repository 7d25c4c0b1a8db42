"""BGE-M3's dense, lexical and multi-vector representations from one forward pass.

The names below load on first use: importing the package imports neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.encoder import Encoder, RemoteEncoder, TextEncoder, shared_encoder
    from m3_core.errors import M3Error
    from m3_core.explanations import Explanation, aexplain, explain
    from m3_core.lexical_index import LexicalIndex
    from m3_core.representations import LexicalWeights, MultiVectors, Representations
    from m3_core.rerankers import Cascade, RemoteReranker, Reranker

__version__ = "0.1.0"

__all__ = [
    "Cascade",
    "Encoder",
    "Explanation",
    "LexicalIndex",
    "LexicalWeights",
    "M3Error",
    "MultiVectors",
    "RemoteEncoder",
    "RemoteReranker",
    "Representations",
    "Reranker",
    "TextEncoder",
    "__version__",
    "aexplain",
    "explain",
    "shared_encoder",
]

_HOMES = {
    "Cascade": "rerankers",
    "aexplain": "explanations",
    "Encoder": "encoder",
    "explain": "explanations",
    "Explanation": "explanations",
    "LexicalIndex": "lexical_index",
    "LexicalWeights": "representations",
    "M3Error": "errors",
    "MultiVectors": "representations",
    "RemoteEncoder": "encoder",
    "RemoteReranker": "rerankers",
    "Representations": "representations",
    "Reranker": "rerankers",
    "TextEncoder": "encoder",
    "shared_encoder": "encoder",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
