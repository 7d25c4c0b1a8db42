"""Posting lists over lexical weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.lexical_index.checks import checked_weights
    from m3_core.lexical_index.files import read_segment, segment_tensors
    from m3_core.lexical_index.index import LexicalIndex
    from m3_core.lexical_index.merging import changed, merge
    from m3_core.lexical_index.search import Query, Snapshot, best_rows, queries_of
    from m3_core.lexical_index.segments import Segment, segments_from

__all__ = [
    "LexicalIndex",
    "Query",
    "Segment",
    "Snapshot",
    "best_rows",
    "changed",
    "checked_weights",
    "merge",
    "queries_of",
    "read_segment",
    "segment_tensors",
    "segments_from",
]

_HOMES = {
    "best_rows": "search",
    "changed": "merging",
    "checked_weights": "checks",
    "LexicalIndex": "index",
    "merge": "merging",
    "queries_of": "search",
    "Query": "search",
    "read_segment": "files",
    "Segment": "segments",
    "segment_tensors": "files",
    "segments_from": "segments",
    "Snapshot": "search",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
