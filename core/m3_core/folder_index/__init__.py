"""Folders of text, Markdown, HTML and JSON lines: cut into passages, kept up to date, searched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.folder_index.index import FolderIndex
    from m3_core.folder_index.passages import (
        Passage,
        body_of,
        estimated_tokens,
        passages_of,
    )
    from m3_core.folder_index.reading import (
        READ_FORMATS,
        ReadingOptions,
        Skipped,
        check_sources,
    )
    from m3_core.folder_index.settings import SavedSettings, stored_passages
    from m3_core.folder_index.updating import Progress, UpdateReport
    from m3_core.folder_index.words import QueryWords, matches, window

__all__ = [
    "READ_FORMATS",
    "FolderIndex",
    "Passage",
    "Progress",
    "QueryWords",
    "ReadingOptions",
    "SavedSettings",
    "Skipped",
    "UpdateReport",
    "body_of",
    "check_sources",
    "estimated_tokens",
    "matches",
    "passages_of",
    "stored_passages",
    "window",
]

_HOMES = {
    "body_of": "passages",
    "check_sources": "reading",
    "estimated_tokens": "passages",
    "FolderIndex": "index",
    "matches": "words",
    "Passage": "passages",
    "passages_of": "passages",
    "Progress": "updating",
    "QueryWords": "words",
    "READ_FORMATS": "reading",
    "ReadingOptions": "reading",
    "SavedSettings": "settings",
    "Skipped": "reading",
    "stored_passages": "settings",
    "UpdateReport": "updating",
    "window": "words",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
