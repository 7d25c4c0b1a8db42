"""What a forked child must make anew: locks and threads of its parent's other threads."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """An object that repairs itself in a forked child."""

    def after_fork(self) -> None:
        """Replace locks, and drop what threads that do not exist here were about to do."""


_living: weakref.WeakSet[Forked] = weakref.WeakSet()


def survive_forks(thing: Forked) -> None:
    """Have an object's ``after_fork`` called in every forked child, for as long as it lives.

    A fork copies locks as they are, but of all threads only the one that forked: a lock that
    another thread held at that moment would never be free again.

    Args:
        thing: The object; held weakly.
    """
    _living.add(thing)


def _in_child() -> None:
    for thing in list(_living):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
