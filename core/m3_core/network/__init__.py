"""From files to hidden states: checkpoints, tokens, batches, networks, and the engine.

The names below load on first use; ``Pooling`` and the known models load no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.network.backbone import Backbone, load_backbone
    from m3_core.network.batches import PackedBatch, Work
    from m3_core.network.checkpoint import (
        Checkpoint,
        Head,
        Pooling,
        locate,
        read_checkpoint,
        read_heads,
        read_json,
    )
    from m3_core.network.device import cpu_multiplies, default_token_budget, resolve_device
    from m3_core.network.engine import EngineStats, Ticket
    from m3_core.network.known_models import choose_instructions, find_known
    from m3_core.network.loaded import (
        CHARACTERS_ON_THE_LOOP,
        LoadedModel,
        ModelUser,
        Source,
        TruncationWarning,
        level_of_caller,
        progress_bar,
        shared_model,
    )
    from m3_core.network.tokens import TokenBatch, Tokenizer
    from m3_core.network.transfer import Results, to_device
    from m3_core.network.transformers_network import (
        ATTENTION_NAME,
        MODEL_TYPES,
        Packing,
        TransformersBackbone,
        load_network,
        packed_attention,
        varlen_kernel,
    )

__all__ = [
    "ATTENTION_NAME",
    "CHARACTERS_ON_THE_LOOP",
    "MODEL_TYPES",
    "Backbone",
    "Checkpoint",
    "EngineStats",
    "Head",
    "LoadedModel",
    "ModelUser",
    "PackedBatch",
    "Packing",
    "Pooling",
    "Results",
    "Source",
    "Ticket",
    "TokenBatch",
    "Tokenizer",
    "TransformersBackbone",
    "TruncationWarning",
    "Work",
    "choose_instructions",
    "cpu_multiplies",
    "default_token_budget",
    "find_known",
    "level_of_caller",
    "load_backbone",
    "load_network",
    "locate",
    "packed_attention",
    "progress_bar",
    "read_checkpoint",
    "read_heads",
    "read_json",
    "resolve_device",
    "shared_model",
    "to_device",
    "varlen_kernel",
]

_HOMES = {
    "ATTENTION_NAME": "transformers_network",
    "Backbone": "backbone",
    "CHARACTERS_ON_THE_LOOP": "loaded",
    "Checkpoint": "checkpoint",
    "choose_instructions": "known_models",
    "cpu_multiplies": "device",
    "default_token_budget": "device",
    "EngineStats": "engine",
    "find_known": "known_models",
    "Head": "checkpoint",
    "level_of_caller": "loaded",
    "load_backbone": "backbone",
    "load_network": "transformers_network",
    "LoadedModel": "loaded",
    "locate": "checkpoint",
    "MODEL_TYPES": "transformers_network",
    "ModelUser": "loaded",
    "packed_attention": "transformers_network",
    "PackedBatch": "batches",
    "Packing": "transformers_network",
    "Pooling": "checkpoint",
    "progress_bar": "loaded",
    "read_checkpoint": "checkpoint",
    "read_heads": "checkpoint",
    "read_json": "checkpoint",
    "resolve_device": "device",
    "Results": "transfer",
    "shared_model": "loaded",
    "Source": "loaded",
    "Ticket": "engine",
    "to_device": "transfer",
    "TokenBatch": "tokens",
    "Tokenizer": "tokens",
    "TransformersBackbone": "transformers_network",
    "TruncationWarning": "loaded",
    "varlen_kernel": "transformers_network",
    "Work": "batches",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
