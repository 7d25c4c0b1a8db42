"""The threads in which engines run: their beginning, and their end with model or interpreter."""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from typing import TYPE_CHECKING

from m3_core.errors import ClosedError
from m3_core.network.processor import processor

if TYPE_CHECKING:
    from m3_core.network.engine import Engine, Pending
    from m3_core.network.waiting import WaitingRoom

_log = logging.getLogger("m3_core")

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def ends_with_the_interpreter(engine: Engine) -> None:
    """Have an engine closed before the interpreter is taken down.

    Args:
        engine: The engine; it is not kept.
    """
    _engines.add(engine)


def start_thread(engine: Engine, room: WaitingRoom) -> None:
    """Start a thread for an engine. Several callers may: of their threads the first stays.

    Args:
        engine: The engine.
        room: What waits for it.
    """
    weakref.finalize(engine, _forgotten, room)
    # A thread that held the engine would keep a forgotten model in memory.
    thread = threading.Thread(
        target=_serve,
        args=(weakref.ref(engine), room),
        name=f"m3-engine {engine.name}",
        daemon=True,
    )
    thread.start()
    _threads.add(thread)


def _serve(engine_ref: weakref.ref[Engine], room: WaitingRoom) -> None:
    if not room.claim():
        return
    pending: Pending | None = None
    try:
        while True:
            if pending is None:
                room.wait()
            engine = engine_ref()
            if engine is None or (room.refusal is not None and pending is None):
                return
            pending = engine.advance(pending)
            del engine
    except BaseException as error:
        # A fault of the engine itself: whoever waits is told rather than left waiting.
        _log.exception("the thread %s failed", threading.current_thread().name)
        room.refusal = ClosedError(f"the engine failed: {error!r}")
        raise
    finally:
        room.end_all(room.refusal or ClosedError("the engine's thread has ended"))


def _forgotten(room: WaitingRoom) -> None:
    room.refuse(ClosedError("the model is no longer in use"))


@atexit.register
def _stop_all() -> None:
    # A thread inside torch while the interpreter is taken down ends the process with a crash.
    for engine in list(_engines):
        engine.close(ClosedError("the interpreter is exiting"))
    # Those of forgotten models too, which may be the last to hold the weights.
    for thread in list(_threads):
        if thread is not threading.current_thread():
            thread.join()
    processor.settle()
