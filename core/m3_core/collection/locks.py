"""A lock for what is read often and written seldom."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from m3_core.forks import survive_forks, whole_in_forks

if TYPE_CHECKING:
    from collections.abc import Iterator


class ReadWriteLock:
    """A lock that many readers or one writer hold; a waiting writer goes before new readers."""

    def __init__(self) -> None:
        self.after_fork()
        survive_forks(self)

    def after_fork(self) -> None:
        """Begin anew: threads that held it are not in the child."""
        self._changed = threading.Condition()
        self._readers = 0
        self._writers = 0
        self._is_writing = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the lock together with other readers."""
        with self._changed:
            self._changed.wait_for(lambda: not self._writers)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                # Of a reader that forked itself, the child does not know.
                self._readers = max(self._readers - 1, 0)
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._changed:
            self._writers += 1
            self._changed.wait_for(lambda: not self._readers and not self._is_writing)
            self._is_writing = True
        try:
            with whole_in_forks():
                yield
        finally:
            with self._changed:
                self._writers = max(self._writers - 1, 0)
                self._is_writing = False
                self._changed.notify_all()
