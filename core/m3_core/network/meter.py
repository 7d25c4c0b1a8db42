"""Counting the tokens that a piece of code sends through networks, whatever calls lie between."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class Meter:
    """What was computed within ``metered``.

    Attributes:
        texts: Texts, or pairs.
        tokens: Tokens of these, special tokens included.
        truncated: How many of the texts were cut to the longest that was allowed.
    """

    texts: int = 0
    tokens: int = 0
    truncated: int = 0

    def add(self, texts: int, tokens: int, truncated: int) -> None:
        """Count texts before they are computed; what this raises keeps them from it.

        Args:
            texts: How many.
            tokens: Tokens of these.
            truncated: How many of them were cut.
        """
        self.texts += texts
        self.tokens += tokens
        self.truncated += truncated


_METER: ContextVar[Meter | None] = ContextVar("m3_meter", default=None)


@contextmanager
def metered(meter: Meter) -> Iterator[Meter]:
    """Count what the code within computes, and the tasks that it starts.

    Texts that are cut are counted there, and no warning is raised.

    Args:
        meter: Where it is counted.

    Yields:
        The same.
    """
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)


def count(texts: int, tokens: int, truncated: int) -> bool:
    """Tell the meter of the running code, if it has one, what is about to be computed.

    Args:
        texts: How many texts, or pairs.
        tokens: Tokens of these.
        truncated: How many of them were cut.

    Returns:
        Whether it has one.
    """
    meter = _METER.get()
    if meter is None:
        return False
    meter.add(texts, tokens, truncated)
    return True
