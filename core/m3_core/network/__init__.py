"""From files to hidden states: checkpoints, tokens, batches, networks, and the engine.

The names below load on first use; ``Pooling`` and the known models load no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.network.backbone import Backbone, load_backbone
    from m3_core.network.batches import PackedBatch, Work
    from m3_core.network.blocks import BLOCKS_FILE, NIBBLES, SCALES, is_blocked
    from m3_core.network.checkpoint import (
        Checkpoint,
        Head,
        Pooling,
        locate,
        read_checkpoint,
        read_heads,
        read_json,
    )
    from m3_core.network.configuration import check_sizes, transformers_config
    from m3_core.network.device import (
        cpu_multiplies,
        default_token_budget,
        float_type,
        resolve_device,
    )
    from m3_core.network.known_models import choose_instructions, find_known
    from m3_core.network.layers import Linear
    from m3_core.network.loaded import (
        CHARACTERS_ON_THE_LOOP,
        LoadedModel,
        ModelUser,
        progress_bar,
        shared_model,
    )
    from m3_core.network.meter import Meter, count, metered
    from m3_core.network.packed import MODEL_TYPES, PackedBackbone, is_packable
    from m3_core.network.packing import Packing, few_counts, varlen_kernel
    from m3_core.network.source import Source
    from m3_core.network.ticket import EngineStats, Ticket
    from m3_core.network.tokens import TokenBatch, Tokenizer
    from m3_core.network.transfer import Results, to_device
    from m3_core.network.transformers_network import (
        ATTENTION_NAME,
        TransformersBackbone,
        load_network,
        network_config,
        packed_attention,
    )
    from m3_core.network.truncation import TruncationWarning, level_of_caller
    from m3_core.network.weights import AskedShapes, Weights

__all__ = [
    "ATTENTION_NAME",
    "BLOCKS_FILE",
    "CHARACTERS_ON_THE_LOOP",
    "MODEL_TYPES",
    "NIBBLES",
    "SCALES",
    "AskedShapes",
    "Backbone",
    "Checkpoint",
    "EngineStats",
    "Head",
    "Linear",
    "LoadedModel",
    "Meter",
    "ModelUser",
    "PackedBackbone",
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
    "Weights",
    "Work",
    "check_sizes",
    "choose_instructions",
    "count",
    "cpu_multiplies",
    "default_token_budget",
    "few_counts",
    "find_known",
    "float_type",
    "is_blocked",
    "is_packable",
    "level_of_caller",
    "load_backbone",
    "load_network",
    "locate",
    "metered",
    "network_config",
    "packed_attention",
    "progress_bar",
    "read_checkpoint",
    "read_heads",
    "read_json",
    "resolve_device",
    "shared_model",
    "to_device",
    "transformers_config",
    "varlen_kernel",
]

_HOMES = {
    "ATTENTION_NAME": "transformers_network",
    "Backbone": "backbone",
    "BLOCKS_FILE": "blocks",
    "CHARACTERS_ON_THE_LOOP": "loaded",
    "Checkpoint": "checkpoint",
    "check_sizes": "configuration",
    "choose_instructions": "known_models",
    "count": "meter",
    "cpu_multiplies": "device",
    "default_token_budget": "device",
    "EngineStats": "ticket",
    "few_counts": "packing",
    "find_known": "known_models",
    "float_type": "device",
    "Head": "checkpoint",
    "is_blocked": "blocks",
    "is_packable": "packed",
    "level_of_caller": "truncation",
    "Linear": "layers",
    "load_backbone": "backbone",
    "load_network": "transformers_network",
    "LoadedModel": "loaded",
    "locate": "checkpoint",
    "Meter": "meter",
    "metered": "meter",
    "MODEL_TYPES": "packed",
    "ModelUser": "loaded",
    "network_config": "transformers_network",
    "NIBBLES": "blocks",
    "packed_attention": "transformers_network",
    "PackedBackbone": "packed",
    "PackedBatch": "batches",
    "Packing": "packing",
    "Pooling": "checkpoint",
    "progress_bar": "loaded",
    "read_checkpoint": "checkpoint",
    "read_heads": "checkpoint",
    "read_json": "checkpoint",
    "resolve_device": "device",
    "Results": "transfer",
    "SCALES": "blocks",
    "shared_model": "loaded",
    "Source": "source",
    "Ticket": "ticket",
    "to_device": "transfer",
    "transformers_config": "configuration",
    "TokenBatch": "tokens",
    "Tokenizer": "tokens",
    "TransformersBackbone": "transformers_network",
    "TruncationWarning": "truncation",
    "varlen_kernel": "packing",
    "Weights": "weights",
    "AskedShapes": "weights",
    "Work": "batches",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
