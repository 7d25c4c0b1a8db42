"""Fine-tuning of all three representations together, distillation, mining and mixing.

Needs the extra ``train``: ``pip install m3-retrieval[train]``. Importing this package loads
nothing; each name loads its module on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.training.cocktail import mix_checkpoints
    from m3_core.training.data import read_examples
    from m3_core.training.finetune import TrainResult, train
    from m3_core.training.loss import LossOptions, Scores, m3_loss
    from m3_core.training.mining import mine, mine_files
    from m3_core.training.modeling import TrainableM3
    from m3_core.training.options import Distillation, MiningOptions, TrainOptions
    from m3_core.training.saving import save_checkpoint

__all__ = [
    "Distillation",
    "LossOptions",
    "MiningOptions",
    "Scores",
    "TrainOptions",
    "TrainResult",
    "TrainableM3",
    "m3_loss",
    "mine",
    "mine_files",
    "mix_checkpoints",
    "read_examples",
    "save_checkpoint",
    "train",
]

_HOMES = {
    "Distillation": "options",
    "LossOptions": "loss",
    "m3_loss": "loss",
    "mine": "mining",
    "mine_files": "mining",
    "MiningOptions": "options",
    "mix_checkpoints": "cocktail",
    "read_examples": "data",
    "save_checkpoint": "saving",
    "Scores": "loss",
    "train": "finetune",
    "TrainableM3": "modeling",
    "TrainOptions": "options",
    "TrainResult": "finetune",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
