"""Texts to the three representations, and who shares them.

The names below load on first use; ``TextEncoder`` and ``CachedEncoder`` load no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.encoder.cached import CachedEncoder, aconverted
    from m3_core.encoder.direct import TEXTS_ON_THE_LOOP
    from m3_core.encoder.encoder import Encoder
    from m3_core.encoder.heads import dense_vectors, token_weights
    from m3_core.encoder.located import TextTokens, TokenLocator, token_offsets
    from m3_core.encoder.methods import EncodingMethods
    from m3_core.encoder.options import EncoderOptions
    from m3_core.encoder.protocol import PARTS, Role, TextEncoder, asked
    from m3_core.encoder.registry import (
        adapter_encoder,
        check_server_options,
        is_loaded_encoder,
        shared_encoder,
    )
    from m3_core.encoder.remote import RemoteEncoder, shared_remote
    from m3_core.encoder.remote_service import RemoteStats
    from m3_core.encoder.results import RepresentationCollector
    from m3_core.encoder.served import Found, ServerKind, find_server
    from m3_core.encoder.stats import EncoderStats

__all__ = [
    "PARTS",
    "TEXTS_ON_THE_LOOP",
    "CachedEncoder",
    "Encoder",
    "EncoderOptions",
    "EncoderStats",
    "EncodingMethods",
    "Found",
    "RemoteEncoder",
    "RemoteStats",
    "RepresentationCollector",
    "Role",
    "ServerKind",
    "TextEncoder",
    "TextTokens",
    "TokenLocator",
    "aconverted",
    "adapter_encoder",
    "asked",
    "check_server_options",
    "dense_vectors",
    "find_server",
    "is_loaded_encoder",
    "shared_encoder",
    "shared_remote",
    "token_offsets",
    "token_weights",
]

_HOMES = {
    "aconverted": "cached",
    "asked": "protocol",
    "adapter_encoder": "registry",
    "CachedEncoder": "cached",
    "check_server_options": "registry",
    "dense_vectors": "heads",
    "Encoder": "encoder",
    "EncoderOptions": "options",
    "EncoderStats": "stats",
    "EncodingMethods": "methods",
    "find_server": "served",
    "Found": "served",
    "is_loaded_encoder": "registry",
    "PARTS": "protocol",
    "RemoteEncoder": "remote",
    "RemoteStats": "remote_service",
    "RepresentationCollector": "results",
    "Role": "protocol",
    "ServerKind": "served",
    "shared_encoder": "registry",
    "shared_remote": "remote",
    "TextEncoder": "protocol",
    "TEXTS_ON_THE_LOOP": "direct",
    "TextTokens": "located",
    "token_offsets": "located",
    "token_weights": "heads",
    "TokenLocator": "located",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
