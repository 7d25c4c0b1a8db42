"""What programs read of FlagEmbedding's objects beside calling them."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from m3_core.extras import needs_extra

if TYPE_CHECKING:
    import torch

    from m3_core.network import LoadedModel

_ENCODE = "call encode, encode_queries or encode_corpus"
_SCORE = "call compute_score"
_NO_POOL = "a model runs on one device, and there is no pool of processes to start or stop"
# Attributes of FlagEmbedding's classes that there are not here, and what to do instead.
_INSTEAD = {
    "encode_single_device": _ENCODE,
    "encode_multi_process": f"{_ENCODE}; {_NO_POOL}",
    "compute_score_single_device": _SCORE,
    "compute_score_single_gpu": _SCORE,
    "compute_score_multi_process": f"{_SCORE}; {_NO_POOL}",
    "start_multi_process_pool": _NO_POOL,
    "stop_multi_process_pool": _NO_POOL,
    "pool": _NO_POOL,
    "num_gpus": _NO_POOL,
    "model": "the network computes on packed batches of its own: call encode or compute_score, or "
    "load the checkpoint with transformers' AutoModel",
}


class Surface:
    """The tokenizer and the device of a loaded model, and answers for what there is not."""

    @property
    @abstractmethod
    def _loaded(self) -> LoadedModel:
        """The network with its checkpoint."""

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self._loaded.device

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer as transformers loads it, to count or look at tokens.

        The model itself has its own over the same file, so that changes here have no effect.
        """
        with needs_extra("the attribute tokenizer", "transformers", "transformers"):
            from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self._loaded.checkpoint.folder)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            what = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(
                f"{what}: {_INSTEAD[name]}" if name in _INSTEAD else what, name=name, obj=self
            )
