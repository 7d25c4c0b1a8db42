"""Small seeded checkpoints and a fake encoder, for our tests and users'.

The names load on first use: the fake encoder needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.testing.checkpoints import tiny_checkpoint
    from m3_core.testing.fake import FakeEncoder
    from m3_core.testing.rerankers import tiny_reranker

__all__ = ["FakeEncoder", "tiny_checkpoint", "tiny_reranker"]

_HOMES = {
    "FakeEncoder": "fake",
    "tiny_checkpoint": "checkpoints",
    "tiny_reranker": "rerankers",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
