"""What the frameworks' adapters have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.adapters.assignment import Assignable
    from m3_core.adapters.explaining import Explaining, explained_search
    from m3_core.adapters.fields import EncoderFields, ScoreFields, VectorFields
    from m3_core.adapters.keywords import loading_options, merged
    from m3_core.adapters.reranker_fields import (
        CascadeFields,
        Ranked,
        RankingFields,
        RerankerFields,
    )
    from m3_core.adapters.spellings import Text
    from m3_core.adapters.twins import AsyncTwins

__all__ = [
    "Assignable",
    "AsyncTwins",
    "CascadeFields",
    "EncoderFields",
    "Explaining",
    "Ranked",
    "RankingFields",
    "RerankerFields",
    "ScoreFields",
    "Text",
    "VectorFields",
    "explained_search",
    "loading_options",
    "merged",
]

_HOMES = {
    "Assignable": "assignment",
    "AsyncTwins": "twins",
    "CascadeFields": "reranker_fields",
    "EncoderFields": "fields",
    "explained_search": "explaining",
    "Explaining": "explaining",
    "loading_options": "keywords",
    "merged": "keywords",
    "Ranked": "reranker_fields",
    "RankingFields": "reranker_fields",
    "RerankerFields": "reranker_fields",
    "ScoreFields": "fields",
    "Text": "spellings",
    "VectorFields": "fields",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
