"""Everything that reorders: rerankers behind one ``Reranker``, M3's own scores, cascades."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.rerankers.adapter import adapter_reranker
    from m3_core.rerankers.base import Reranker
    from m3_core.rerankers.cascade import Cascade, CascadeScore
    from m3_core.rerankers.decoder import (
        CAUSAL_ATTENTION_NAME,
        Decoder,
        positions,
        register_attention,
    )
    from m3_core.rerankers.hybrid import SCORED_ROLES, HybridScorer, weighted_parts
    from m3_core.rerankers.layerwise import LayerwiseMiniCPM, llama_config
    from m3_core.rerankers.lightweight import LightweightGemma2, gemma2_config
    from m3_core.rerankers.llm import DECODER_TYPES
    from m3_core.rerankers.loading import reranker_kind_at
    from m3_core.rerankers.network import RerankerOptions
    from m3_core.rerankers.protocol import TextReranker
    from m3_core.rerankers.ranking import select_best
    from m3_core.rerankers.remote import RemoteReranker, shared_remote_reranker

__all__ = [
    "CAUSAL_ATTENTION_NAME",
    "DECODER_TYPES",
    "SCORED_ROLES",
    "Cascade",
    "CascadeScore",
    "Decoder",
    "HybridScorer",
    "LayerwiseMiniCPM",
    "LightweightGemma2",
    "RemoteReranker",
    "Reranker",
    "RerankerOptions",
    "TextReranker",
    "adapter_reranker",
    "gemma2_config",
    "llama_config",
    "positions",
    "register_attention",
    "reranker_kind_at",
    "select_best",
    "shared_remote_reranker",
    "weighted_parts",
]

_HOMES = {
    "adapter_reranker": "adapter",
    "Cascade": "cascade",
    "CascadeScore": "cascade",
    "CAUSAL_ATTENTION_NAME": "decoder",
    "Decoder": "decoder",
    "DECODER_TYPES": "llm",
    "gemma2_config": "lightweight",
    "HybridScorer": "hybrid",
    "LayerwiseMiniCPM": "layerwise",
    "LightweightGemma2": "lightweight",
    "llama_config": "layerwise",
    "positions": "decoder",
    "register_attention": "decoder",
    "RemoteReranker": "remote",
    "Reranker": "base",
    "reranker_kind_at": "loading",
    "RerankerOptions": "network",
    "SCORED_ROLES": "hybrid",
    "select_best": "ranking",
    "shared_remote_reranker": "remote",
    "TextReranker": "protocol",
    "weighted_parts": "hybrid",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
