"""Whole corpora: encoded into Parquet, on one machine or many, and loaded into stores.

The names below load on first use, and need the extra ``bulk``; with Ray, the extra ``ray``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.bulk.dataset import EncodedBatch, EncodedDataset
    from m3_core.bulk.encoding import encode_dataset
    from m3_core.bulk.loading import load_into_collection, load_into_qdrant
    from m3_core.bulk.on_ray import RayOptions
    from m3_core.bulk.options import EncodeOptions

__all__ = [
    "EncodeOptions",
    "EncodedBatch",
    "EncodedDataset",
    "RayOptions",
    "encode_dataset",
    "load_into_collection",
    "load_into_qdrant",
]

_HOMES = {
    "encode_dataset": "encoding",
    "EncodedBatch": "dataset",
    "EncodedDataset": "dataset",
    "EncodeOptions": "options",
    "load_into_collection": "loading",
    "load_into_qdrant": "loading",
    "RayOptions": "on_ray",
}

__getattr__ = lazy_names(__name__, _HOMES, {"pyarrow": "bulk", "ray": "ray"})


def __dir__() -> list[str]:
    return __all__
