"""What a forked child must make anew: locks and threads of its parent's other threads."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


class _Changes:
    """Changes of data in memory that are under way, by thread."""

    def __init__(self) -> None:
        self.began = threading.Condition()
        self.threads: dict[int, int] = {}


_changes = _Changes()
# The thread of a forked child that came through the fork.
_survivor: int | None = None


@contextmanager
def whole_in_forks() -> Iterator[None]:
    """Let forks of other threads wait for the end of a block, which changes data in steps.

    A child would have the data as they are in between, and nobody there to end the change. Nothing
    in the block may wait for another thread.
    """
    own, changes = threading.get_ident(), _changes
    with changes.began:
        changes.threads[own] = changes.threads.get(own, 0) + 1
    try:
        yield
    finally:
        with changes.began:
            changes.threads[own] -= 1
            if not changes.threads[own]:
                del changes.threads[own]
            changes.began.notify_all()


def in_forked_child() -> bool:
    """Whether this process was forked after this module was imported."""
    return _survivor is not None


def aside(function: Callable[[], T]) -> T:
    """Call a function in a thread of its own, and wait for it.

    For what computes with several threads, as torch's on a CPU do: their helpers belong to the
    thread that needs them, and end with it. Kept by a caller's thread they would slow down the
    thread that runs the network (``network.processor`` says how), and a thread that had used them
    before it forked would wait in the child for helpers that are not there.

    Args:
        function: The function.

    Returns:
        What it returns.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(function())
        except BaseException as error:  # noqa: BLE001 (raised in the thread that asked)
            failed.append(error)

    # The interpreter does not exit before it has ended: torch would crash then.
    thread = threading.Thread(target=run, name="m3-aside", daemon=False)
    thread.start()
    thread.join()
    if failed:
        try:
            raise failed.pop()
        finally:
            del run
    return done.pop()


def _before() -> None:
    own = threading.get_ident()
    _changes.began.acquire()
    _changes.began.wait_for(lambda: not _changes.threads.keys() - {own})


def _in_parent() -> None:
    _changes.began.release()


def _in_child() -> None:
    global _changes, _survivor
    _changes, _survivor = _Changes(), threading.get_ident()
    failed: list[BaseException] = []
    for thing in list(_living):
        try:
            thing.after_fork()
        except BaseException as error:  # noqa: BLE001 (the others need theirs all the same)
            failed.append(error)
    if failed:
        # Python says it as of any function that it calls after a fork, and goes on.
        raise failed[0]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


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
