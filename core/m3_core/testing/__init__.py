"""Small seeded checkpoints and a fake encoder, for our tests and users'.

The names load on first use: the fake encoder needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m3_core.testing.checkpoints import tiny_checkpoint
    from m3_core.testing.fake import FakeEncoder
    from m3_core.testing.rerankers import tiny_reranker

__all__ = ["FakeEncoder", "tiny_checkpoint", "tiny_reranker"]

_HOMES = {
    "FakeEncoder": "m3_core.testing.fake",
    "tiny_checkpoint": "m3_core.testing.checkpoints",
    "tiny_reranker": "m3_core.testing.rerankers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
