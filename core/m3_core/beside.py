"""Work beside an event loop, in threads of our own.

The loop's own threads are its users' too: where all of them wait for the loop, nothing that needs
one more of them would ever end. And an interpreter that exits waits for all that is queued there.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from m3_core.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

# As many as an event loop has.
_MOST_THREADS = min(32, (os.cpu_count() or 1) + 4)


async def beside(function: Callable[P, T], /, *args: P.args, **keywords: P.kwargs) -> T:
    """Call a function in another thread, with the context variables of the caller.

    Args:
        function: The function; it must not wait for the event loop.
        *args: Its arguments.
        **keywords: Its keywords.

    Returns:
        What it returns. Who is cancelled does not wait for it.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    context = copy_context()

    def run() -> None:
        if done.cancelled():
            return
        error: BaseException | None = None
        result: Any = None
        try:
            result = context.run(function, *args, **keywords)
        except BaseException as raised:  # noqa: BLE001 (raised again where it was asked)
            error = raised
        try:
            loop.call_soon_threadsafe(_resolve, done, result, error)
        except RuntimeError:
            # The loop was closed meanwhile: nobody waits.
            return
        finally:
            # An error's traceback leads to this frame.
            error = result = None

    _threads.submit(run)
    return await done


def _resolve(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    elif isinstance(error, StopIteration):
        # A future cannot hold one.
        done.set_exception(RuntimeError(f"the function raised {error!r}"))
    else:
        done.set_exception(error)


class _Threads:
    """Threads that come when they are needed and stay; an exit waits for what runs, not queues."""

    def __init__(self) -> None:
        self.after_fork()
        survive_forks(self)

    def after_fork(self) -> None:
        """Begin anew in a forked child, where none of the threads is."""
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._running: list[threading.Thread] = []

    def submit(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)
        if self._idle.acquire(blocking=False):
            return
        with self._lock:
            number = len(self._running)
            if number < _MOST_THREADS:
                thread = threading.Thread(
                    target=self._work, name=f"m3-beside-{number}", daemon=True
                )
                thread.start()
                self._running.append(thread)

    def close(self) -> None:
        """Forget what is queued, and wait for what runs: it may not while Python is taken down."""
        while True:
            try:
                self._jobs.get_nowait()
            except Empty:
                break
        for _ in self._running:
            self._jobs.put(None)
        for thread in self._running:
            if thread is not threading.current_thread():
                thread.join()

    def _work(self) -> None:
        jobs, idle = self._jobs, self._idle
        while (job := jobs.get()) is not None:
            job()
            del job
            idle.release()


_threads = _Threads()
atexit.register(_threads.close)
