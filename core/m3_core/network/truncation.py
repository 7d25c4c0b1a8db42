"""The warning of texts that were cut, and where it points to; without torch."""

from __future__ import annotations

import sys


class TruncationWarning(UserWarning):
    """Texts were longer than ``max_length`` and were cut."""


def level_of_caller() -> int:
    """The ``stacklevel`` of the first frame outside this distribution's packages.

    Returns:
        As ``warnings.warn`` wants it from the function that asks.
    """
    # The adapters' objects are constructed by pydantic.
    own = ("m3_core", "langchain_m3", "llamaindex_m3", "pydantic")
    frame, level = sys._getframe(1), 1
    while frame.f_globals.get("__name__", "").partition(".")[0] in own and frame.f_back:
        frame, level = frame.f_back, level + 1
    return level
