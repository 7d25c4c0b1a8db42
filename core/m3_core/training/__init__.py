"""Fine-tuning of all three representations together, distillation, mining and mixing.

Needs the extra ``train``: ``pip install m3-retrieval[train]``. Importing this package loads
nothing; each name loads its module on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m3_core.training.loss import LossOptions, Scores, m3_loss
    from m3_core.training.modeling import TrainableM3
    from m3_core.training.saving import save_checkpoint

__all__ = ["LossOptions", "Scores", "TrainableM3", "m3_loss", "save_checkpoint"]

_HOMES = {
    "LossOptions": "m3_core.training.loss",
    "Scores": "m3_core.training.loss",
    "TrainableM3": "m3_core.training.modeling",
    "m3_loss": "m3_core.training.loss",
    "save_checkpoint": "m3_core.training.saving",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
