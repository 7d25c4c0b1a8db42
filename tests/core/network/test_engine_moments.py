"""The engine at bad moments, in processes of their own: collection, signals, interrupts, forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def ran(script: str, seconds: float = 60) -> str:
    """What a process of its own printed; it fails where it hangs, with all threads' stacks."""
    lines = ["import faulthandler", f"faulthandler.dump_traceback_later({seconds}, exit=True)"]
    lines.append("from tests.core.network.test_engine import *")
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join(lines) + script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_callers_may_be_collected_while_their_thread_asks() -> None:
    ran("""
engine = Engine(Sums(), 1000, "sums")
engine.submit(work_of([1])).wait()

def abandoned(times):
    loop = asyncio.new_event_loop()
    for _ in range(times):
        task = loop.create_task(engine.arun(work_of([1] * LONG, [2])))
        task._log_destroy_pending = False
        task.add_done_callback([task].append)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

for _ in range(60):
    abandoned(20)
    gc.set_threshold(1)
    works = [work_of([i], [1] * LONG) for i in range(20)]
    for work, ticket in [(work, engine.submit(work)) for work in works]:
        ticket.wait()
        assert done(work)
    gc.set_threshold(700)
gc.collect()
engine.close()
""")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that send signals")
def test_signal_handlers_may_ask_cancel_and_close() -> None:
    ran("""
import signal
engine = Engine(Sums(), 1000, "sums")
handled = 0

def handler(*_):
    global handled
    handled += 1
    work = work_of([handled % 7], [1] * LONG)
    engine.submit(work).wait()
    assert done(work)
    engine.submit(work_of([1])).cancel()
    # Only now, so that on a busy machine handlers do not pile up within one another.
    if handled < 300:
        signal.setitimer(signal.ITIMER_REAL, 0.0005)

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0005)
number = 0
while handled < 300:
    number += 1
    work = work_of([number % 1000])
    engine.submit(work).wait()
    assert done(work)
assert engine.stats().waiting_tokens == 0

for _ in range(200):
    engine = Engine(Sums(), 1000, "sums")
    signal.signal(signal.SIGALRM, lambda *_: engine.close())
    signal.setitimer(signal.ITIMER_REAL, 0.0003)
    try:
        while True:
            engine.submit(work_of([1])).wait()
    except ClosedError:
        pass
""")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that send signals")
def test_an_interrupt_at_any_moment_leaves_the_engine_whole() -> None:
    ran("""
import signal
engine = Engine(Sums(), 1000, "sums")
engine.submit(work_of([1])).wait()

def handler(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, handler)
interrupted = 0
for i in range(150):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.00005 + i % 40 * 0.00001)
        for _ in range(100):
            engine.submit(work_of([1], [2] * LONG)).wait()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
assert interrupted > 10
work = work_of([5])
engine.submit(work).wait()
assert done(work)
deadline = time.monotonic() + 30
while engine._room.present() and time.monotonic() < deadline:
    time.sleep(0.01)
assert engine.stats().waiting_tokens == 0
assert not engine._room.present()
engine.close()
""")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_forked_while_a_batch_is_described_describes_its_own() -> None:
    """``functools.cached_property`` holds a lock of its class while it computes, before 3.12."""
    ran("""
from m3_core.forks import computed_once
import os, threading
reached, go = threading.Event(), threading.Event()

class Described:
    @computed_once
    def lengths(self):
        if threading.current_thread() is not threading.main_thread():
            reached.set()
            go.wait(60)
        return 5

thread = threading.Thread(target=lambda: Described().lengths)
thread.start()
assert reached.wait(60)
child = os.fork()
if not child:
    os._exit(0 if Described().lengths == 5 else 1)
status = waited(child)
go.set()
thread.join()
assert status == 0
""")


def test_a_forgotten_model_is_freed_before_the_interpreter_is_taken_down() -> None:
    """Its thread may be the last to hold the weights, which torch must not free later."""
    printed = ran("""
import time

class Held:
    def __del__(self):
        being_freed.set()
        time.sleep(1)
        os.write(1, b"freed")

def slowly(engine, job, error, end=Engine._end):
    end(engine, job, error)
    time.sleep(1)

def forgotten():
    engine = Engine(Sums(), 1000, "sums")
    engine.program.held = Held()
    engine.submit(work_of([1])).wait()

being_freed = threading.Event()
Engine._end = slowly
forgotten()
assert being_freed.wait(30)
""")
    assert printed == "freed"
