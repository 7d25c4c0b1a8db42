"""Where torch computes on the CPU: one thread for all loaded models.

Each thread that runs torch's parallel loops gets OpenMP helpers of its own. As soon as a process
has more of them than processors, libgomp sends them to sleep after every loop, and waking them
takes longer than what they do for a lone query: a network of 12 layers of 384 then needs 1.9 x the
time in float32 and 2.7 x in bfloat16. Two models that compute at once would also be in each other's
way.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from m3_core.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class _Task(Generic[T]):
    """A function that is called elsewhere."""

    __slots__ = ("_done", "_error", "_function", "_result")

    def __init__(self, function: Callable[[], T]) -> None:
        self._function: Callable[[], T] | None = function
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def run(self) -> None:
        """Call it, and let the caller go on."""
        function, self._function = self._function, None
        try:
            if function is not None:
                self._result.append(function())
        except BaseException as error:  # noqa: BLE001 (raised where it was asked for)
            self._error = error
        finally:
            del function
            self._done.release()

    def result(self) -> T:
        """Wait for it."""
        self._done.acquire()
        error, self._error = self._error, None
        if error is None:
            return self._result.pop()
        try:
            raise error
        finally:
            # The error's traceback holds this frame.
            del error


class Processor:
    """A thread that calls functions one after the other, in the order of asking."""

    def __init__(self) -> None:
        self.after_fork()
        survive_forks(self)

    def after_fork(self) -> None:
        """Begin anew in a forked child, where the thread is not."""
        self._tasks: SimpleQueue[_Task[Any]] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._threads = 0

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is this one, as in finalisers that run while it computes."""
        return threading.current_thread() is self._thread

    def run(self, function: Callable[[], T], threads: int) -> T:
        """Call a function there, and wait for it.

        Args:
            function: Computes with torch; it must not wait for another call of this.
            threads: How many threads torch may use for it.

        Returns:
            What it returns.

        Raises:
            BaseException: What it raises.
        """

        def limited() -> T:
            if threads != self._threads:
                # torch keeps this for each thread: what a caller sets shall hold for its work.
                torch.set_num_threads(threads)
                self._threads = threads
            return function()

        task = _Task(limited)
        if self._thread is None:
            self._start()
        self._tasks.put(task)
        return task.result()

    def settle(self) -> None:
        """Wait until the thread has let go of all that it was asked for before."""
        if self._thread is not None and not self.is_here:
            # It drops a task, and the tensors in it, before it takes the next one.
            task = _Task(_nothing)
            self._tasks.put(task)
            task.result()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(
                    target=_serve, args=(self._tasks,), name="m3-processor", daemon=True
                )
                thread.start()
                self._thread = thread


def _nothing() -> None:
    """Compute nothing."""


def _serve(tasks: SimpleQueue[_Task[Any]]) -> None:
    while True:
        # No name keeps a task, its function or its result while this waits for the next one.
        tasks.get().run()


processor = Processor()
