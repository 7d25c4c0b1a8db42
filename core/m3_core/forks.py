"""What a forked child must make anew: locks and threads of its parent's other threads."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


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


class computed_once(Generic[T]):  # noqa: N801 (used as a decorator)
    """A property that is computed on first use, without a lock.

    That of ``functools`` holds one lock for all instances while it computes (before Python 3.12): a
    child that was forked meanwhile would wait for it for ever. Here two threads may both compute.

    Args:
        function: Computes it from the object, which must have a ``__dict__``.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self._name = function.__name__
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, _: type | None = None) -> T:
        value = self._function(instance)
        instance.__dict__[self._name] = value
        return value
