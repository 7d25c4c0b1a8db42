"""FlagEmbedding's class names and signatures over this package's core.

Code written for FlagEmbedding 1.4 runs with its import changed to
``from m3_core.flagembedding import BGEM3FlagModel``. What differs, and why:

- A query instruction is applied only if one is given, as there; the known models' own are not.
- ``use_fp16=True`` means the fastest type that the device has instructions for; results are
  float32 in any case. ``use_fp16=False`` means float32.
- ``batch_size`` is accepted and without effect: batches are filled by tokens.
- Without ``pooling_method``, dense vectors are pooled as the checkpoint's ``1_Pooling`` says; there
  by CLS, which for checkpoints that pool otherwise gives vectors that mean nothing.
- One device is used. Of several, the first is, with a warning.
- Texts that are cut raise a ``TruncationWarning``; there they are cut in silence. A length beyond
  the model's is lowered to it, with one such warning; there a longer text fails.
- ``encode([])`` gives empty results, missing heads and options that do not exist are errors.
- Rerankers and decoders run no code of a checkpoint, whatever ``trust_remote_code`` says.
  ``peft_path`` is refused, and so are cutoff layers without a head, which are passed over there.
- Lexical weights are plain dicts of plain floats.

The names below load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.flagembedding.auto import FlagAutoModel
    from m3_core.flagembedding.decoders import FlagICLModel, FlagLLMModel
    from m3_core.flagembedding.dense import FlagModel
    from m3_core.flagembedding.m3 import BGEM3FlagModel
    from m3_core.flagembedding.rerankers import (
        FlagAutoReranker,
        FlagLLMReranker,
        FlagReranker,
        LayerWiseFlagLLMReranker,
        LightWeightFlagLLMReranker,
    )

__all__ = [
    "BGEM3FlagModel",
    "FlagAutoModel",
    "FlagAutoReranker",
    "FlagICLModel",
    "FlagLLMModel",
    "FlagLLMReranker",
    "FlagModel",
    "FlagReranker",
    "LayerWiseFlagLLMReranker",
    "LightWeightFlagLLMReranker",
]

_HOMES = {
    "BGEM3FlagModel": "m3",
    "FlagAutoModel": "auto",
    "FlagAutoReranker": "rerankers",
    "FlagICLModel": "decoders",
    "FlagLLMModel": "decoders",
    "FlagLLMReranker": "rerankers",
    "FlagModel": "dense",
    "FlagReranker": "rerankers",
    "LayerWiseFlagLLMReranker": "rerankers",
    "LightWeightFlagLLMReranker": "rerankers",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
