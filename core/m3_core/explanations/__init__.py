"""Why a document matches a query: what each of M3's scores is made of, in words of the texts.

The names below load on first use, and none of them needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.explanations.explaining import aexplain, explain
    from m3_core.explanations.explanation import Explanation
    from m3_core.explanations.parts import Alignment, MatchedWord, TokenAlignment
    from m3_core.explanations.spans import Span
    from m3_core.explanations.tracing import (
        is_traced,
        record_explanations,
        span_attributes,
    )

__all__ = [
    "Alignment",
    "Explanation",
    "MatchedWord",
    "Span",
    "TokenAlignment",
    "aexplain",
    "explain",
    "is_traced",
    "record_explanations",
    "span_attributes",
]

_HOMES = {
    "aexplain": "explaining",
    "Alignment": "parts",
    "explain": "explaining",
    "Explanation": "explanation",
    "is_traced": "tracing",
    "MatchedWord": "parts",
    "record_explanations": "tracing",
    "Span": "spans",
    "TokenAlignment": "parts",
    "span_attributes": "tracing",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
