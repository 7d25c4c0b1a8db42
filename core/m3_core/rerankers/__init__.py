"""Rerankers: models that score a query and a document together, behind one ``Reranker``."""

from __future__ import annotations

from m3_core.rerankers.base import Reranker
from m3_core.rerankers.network import RerankerOptions

__all__ = ["Reranker", "RerankerOptions"]
