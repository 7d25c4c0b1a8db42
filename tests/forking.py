"""Running a function in a forked child, with a watchdog."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable

HAS_FORK = hasattr(os, "fork")


def in_child(function: Callable[[], bool], seconds: float = 60) -> int:
    """Fork, and call a function in the child.

    Args:
        function: Says whether all was well.
        seconds: How long the child may take.

    Returns:
        0 if it was, 1 if something was raised, 2 if not; -1 if it hung.
    """
    with warnings.catch_warnings():
        # Python warns of forks beside threads, which is what is tried here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if function() else 2
        finally:
            os._exit(status)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1
