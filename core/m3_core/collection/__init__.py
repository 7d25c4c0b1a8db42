"""Documents in memory: what both frameworks' stores and retrievers share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.collection.collection import DocumentCollection
    from m3_core.collection.encoding import kept
    from m3_core.collection.files import is_something_else
    from m3_core.collection.fusion import Hit, check_fusion
    from m3_core.collection.metadata import copied_metadata, metadata_to_json
    from m3_core.collection.search import DEFAULT_WEIGHTS

__all__ = [
    "DEFAULT_WEIGHTS",
    "DocumentCollection",
    "Hit",
    "check_fusion",
    "copied_metadata",
    "is_something_else",
    "kept",
    "metadata_to_json",
]

_HOMES = {
    "check_fusion": "fusion",
    "copied_metadata": "metadata",
    "DEFAULT_WEIGHTS": "search",
    "DocumentCollection": "collection",
    "Hit": "fusion",
    "is_something_else": "files",
    "kept": "encoding",
    "metadata_to_json": "metadata",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
