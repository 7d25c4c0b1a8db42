"""Processes that are ended by kill -9 at a random moment of what they do over and over."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable


def seconds_of(work: Callable[[int], object], times: int = 3) -> float:
    """How long a piece of work takes at least.

    Args:
        work: Takes the number of the turn.
        times: How often to try.
    """
    found = []
    for number in range(times):
        began = time.perf_counter()
        work(number)
        found.append(time.perf_counter() - began)
    return min(found)


def kill_at(work: Callable[[int], object], seconds: float) -> None:
    """Do work over and over in a forked child, and kill it after some time.

    Args:
        work: Takes the number of the turn, from 0 on.
        seconds: When.
    """
    child = os.fork()
    if not child:
        try:
            number = 0
            while True:
                work(number)
                number += 1
        finally:
            os._exit(3)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        raise AssertionError("the writer failed by itself")


def moments(kills: int, turn: float, seed: int = 0) -> list[float]:
    """Times at which to kill, over the first two turns of the work.

    Args:
        kills: How many.
        turn: Seconds of a turn.
        seed: Of the random numbers.
    """
    rng = random.Random(seed)
    return [rng.uniform(0, 2 * turn) for _ in range(kills)]
