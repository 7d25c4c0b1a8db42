"""Encoding some texts ahead of those whose representations are being written."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
    from concurrent.futures import Future

T = TypeVar("T")
R = TypeVar("R")

# One that is computed, and one that waits so that the next can begin at once.
_DEPTH = 2


def ahead(
    items: Iterable[T], work: Callable[[T], Coroutine[object, object, R]]
) -> Generator[tuple[T, R], None, None]:
    """Do asynchronous work on items, in order, a little ahead of who takes the results.

    Who stops taking them cancels what is under way.

    Args:
        items: The items; read in the caller's thread.
        work: What is done with one, on an event loop in a thread of its own.

    Yields:
        Each item with its result.
    """
    with _running_loop() as loop:
        waiting: deque[tuple[T, Future[R]]] = deque()
        try:
            for item in items:
                waiting.append((item, asyncio.run_coroutine_threadsafe(work(item), loop)))
                if len(waiting) > _DEPTH:
                    first, result = waiting.popleft()
                    yield first, result.result()
                    del first, result
            while waiting:
                first, result = waiting.popleft()
                yield first, result.result()
                del first, result
        finally:
            for _, result in waiting:
                result.cancel()


@contextmanager
def _running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    # The caller's own loop, as that of a notebook, cannot be waited for from its thread.
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="m3-bulk", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end() -> None:
    own = asyncio.current_task()
    others = [task for task in asyncio.all_tasks() if task is not own]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
