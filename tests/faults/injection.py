"""Raising an error at any line that a function runs through."""

from __future__ import annotations

import dis
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import m3_core

CORE = Path(m3_core.__file__).parent
# Where documents are changed and saved; what encodes them has faults of its own.
ROOMS = tuple(str(CORE / room) + os.sep for room in ("collection", "lexical_index", "files"))


@functools.cache
def _quiet_places(code: CodeType) -> frozenset[int]:
    """Where nothing can be raised: NOP, and what calls ``__exit__`` after the block of a with."""
    listed = list(dis.get_instructions(code))
    names = [one.opname for one in listed]
    found = {one.offset for one in listed if one.opname == "NOP"}
    for place, one in enumerate(listed):
        after = place + 1 if one.opname in ("SWAP", "ROT_TWO", "NOP") else place
        loads = names[after : after + 3]
        if after + 3 >= len(listed) or listed[after].argval is not None:
            continue
        is_none = loads in (["LOAD_CONST"] * 3, ["LOAD_CONST", "DUP_TOP", "DUP_TOP"])
        if is_none and names[after + 3] in ("PRECALL", "CALL", "CALL_FUNCTION"):
            found.add(one.offset)
    return frozenset(found)


class Injector:
    """Counts the lines that are run in some folders, and raises an error at one of them.

    The interpreter says "line" once more when it leaves a ``with`` statement, before it calls
    ``__exit__``, and at instructions that do nothing, as for ``try``. Nothing can be raised there:
    signals are looked for after calls and jumps, and there is none between the end of the block
    and that call. So these are left out.

    Args:
        function: What is run.
        at: The number of the line; by default none.
        error: What is raised.

    Attributes:
        lines: How many were run.
    """

    def __init__(
        self,
        function: Callable[[], object],
        at: int | None = None,
        error: type[BaseException] = MemoryError,
        folders: tuple[str, ...] = ROOMS,
    ) -> None:
        self.lines = 0
        self._at, self._error, self._folders = at, error, folders
        before = sys.gettrace()
        sys.settrace(self._called)
        try:
            function()
        finally:
            sys.settrace(before)

    def _called(self, frame: FrameType, event: str, arg: Any) -> Any:
        return self._traced if frame.f_code.co_filename.startswith(self._folders) else None

    def _traced(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line" and frame.f_lasti not in _quiet_places(frame.f_code):
            self.lines += 1
            if self.lines == self._at:
                sys.settrace(None)
                raise self._error("injected")
        return self._traced
