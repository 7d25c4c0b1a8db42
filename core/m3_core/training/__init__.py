"""Fine-tuning of all three representations together, distillation, mining and mixing.

Needs the extra ``train``: ``pip install m3-retrieval[train]``. Importing this package loads
nothing; each name loads its module on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.training.loss import LossOptions, Scores, m3_loss
    from m3_core.training.modeling import TrainableM3
    from m3_core.training.saving import save_checkpoint

__all__ = ["LossOptions", "Scores", "TrainableM3", "m3_loss", "save_checkpoint"]

_HOMES = {
    "LossOptions": "loss",
    "Scores": "loss",
    "TrainableM3": "modeling",
    "m3_loss": "loss",
    "save_checkpoint": "saving",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
