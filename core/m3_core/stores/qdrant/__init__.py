"""Documents in Qdrant with M3's representations; the only place that knows ``qdrant_client``.

The names below load on first use, and need the extra ``qdrant``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.stores.qdrant.collection import NewPoints, QdrantCollection, ScoredPoint, select
    from m3_core.stores.qdrant.connection import Connection, refusals_told, remembers
    from m3_core.stores.qdrant.filters import Where, qdrant_filter
    from m3_core.stores.qdrant.layout import (
        Distance,
        Layout,
        Names,
        Stored,
        point_id,
        read_point,
        write_document,
    )
    from m3_core.stores.qdrant.points import LongMultiVectors
    from m3_core.stores.qdrant.queries import Fusion, Rankings, Search

__all__ = [
    "Connection",
    "Distance",
    "Fusion",
    "Layout",
    "LongMultiVectors",
    "Names",
    "NewPoints",
    "QdrantCollection",
    "Rankings",
    "ScoredPoint",
    "Search",
    "Stored",
    "Where",
    "point_id",
    "qdrant_filter",
    "read_point",
    "refusals_told",
    "remembers",
    "select",
    "write_document",
]

_HOMES = {
    "Connection": "connection",
    "Distance": "layout",
    "Fusion": "queries",
    "Layout": "layout",
    "LongMultiVectors": "points",
    "Names": "layout",
    "NewPoints": "collection",
    "point_id": "layout",
    "qdrant_filter": "filters",
    "QdrantCollection": "collection",
    "Rankings": "queries",
    "read_point": "layout",
    "refusals_told": "connection",
    "remembers": "connection",
    "ScoredPoint": "collection",
    "Search": "queries",
    "select": "collection",
    "Stored": "layout",
    "Where": "filters",
    "write_document": "layout",
}

__getattr__ = lazy_names(__name__, _HOMES, {"qdrant_client": "qdrant", "grpc": "qdrant"})


def __dir__() -> list[str]:
    return __all__
