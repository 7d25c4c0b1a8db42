"""The one thread of a process that makes HTTP requests, on an event loop of its own.

Connections are so pooled whoever asks, and outlive the event loops of users.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from m3_core.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from concurrent.futures import Future

    import httpx

T = TypeVar("T")
A = TypeVar("A")


async def in_order(
    items: Iterable[A], work: Callable[[A], Coroutine[Any, Any, T]], in_flight: int
) -> list[T]:
    """Do work on several items at once, on the thread of requests.

    Args:
        items: The items; taken one after another, as places become free.
        work: What is done with each.
        in_flight: On how many at once.

    Returns:
        What it gave, in the order of the items. The first failure ends all the others.
    """
    numbered = enumerate(items)
    results: dict[int, T] = {}

    async def take() -> None:
        for number, item in numbered:
            results[number] = await work(item)

    tasks = [asyncio.ensure_future(take()) for _ in range(in_flight)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [results[number] for number in sorted(results)]


class Requests:
    """The thread of requests and its event loop; begun when first needed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.clients: set[httpx.AsyncClient] = set()
        # The event loop itself holds its tasks weakly.
        self._closing: set[asyncio.Task[None]] = set()
        self.after_fork()
        survive_forks(self)

    def after_fork(self) -> None:
        """Begin anew in a forked child, where the thread is not."""
        # Not closed there: what it waits with is the parent's too.
        inherited.extend([self._loop, self.clients])
        self._lock = threading.Lock()
        self._loop = self._thread = None
        self.clients = set()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the thread.

        Args:
            coroutine: The coroutine.

        Returns:
            What it will return; cancelled, it ends the coroutine.
        """
        with self._lock:
            if self._loop is None:
                # Not of the user's policy, whose loops may want something of their thread.
                self._loop = asyncio.SelectorEventLoop()
                # For names of hosts and large replies, told from those of users' loops.
                self._loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="m3-replies"))
                self._thread = threading.Thread(
                    target=self._run,
                    args=(self._loop, self.clients),
                    name="m3-requests",
                    daemon=True,
                )
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def abandon(self, clients: list[httpx.AsyncClient]) -> None:
        """Close connections that nobody needs any more; without a lock, for finalisers."""
        loop, held = self._loop, clients[:]
        clients.clear()
        if loop is not None and held:
            with suppress(RuntimeError):  # the loop has ended, and closed them all
                loop.call_soon_threadsafe(self._close, held)

    def _close(self, clients: list[httpx.AsyncClient]) -> None:
        for client in clients:
            self.clients.discard(client)
            closing = asyncio.ensure_future(client.aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def close(self) -> None:
        """End what runs: it may not while Python is taken down."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=5)

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop, clients: set[httpx.AsyncClient]) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        ends = [*tasks, *(client.aclose() for client in clients)]
        loop.run_until_complete(asyncio.gather(*ends, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


# Of the parents of this process: kept, so that nothing of theirs is closed.
inherited: list[Any] = []
requests = Requests()
atexit.register(requests.close)
