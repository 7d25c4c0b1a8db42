"""What a model has done so far: its engine, and its cache of encodings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from m3_core.encoder.cache import known_cache
from m3_core.network import EngineStats

if TYPE_CHECKING:
    from m3_core.encoder.protocol import TextEncoder


@dataclass(frozen=True, slots=True)
class EncoderStats(EngineStats):
    """What an engine has done so far, and how often its cache spared it a text.

    Attributes:
        cache_hits: Texts that were remembered, or were just being computed for another.
        cache_misses: Texts that were asked for through the cache and had to be computed.
    """

    cache_hits: int = 0
    cache_misses: int = 0

    @classmethod
    def of(cls, encoder: TextEncoder, stats: EngineStats) -> EncoderStats:
        """Add what the cache of an encoder has done, if there is one.

        Args:
            encoder: The encoder.
            stats: Of its engine.

        Returns:
            Both.
        """
        cache = known_cache(encoder)
        hits, misses = (0, 0) if cache is None else (cache.hits, cache.misses)
        return cls(**asdict(stats), cache_hits=hits, cache_misses=misses)
