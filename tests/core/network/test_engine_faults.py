"""The engine under what happens at bad moments: collection, signals, exits, threads that die."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
import torch
from tests.core.network.test_engine import LONG, Gate, Kept, Sums, done, held, work_of
from tests.core.network.test_engine import engine as engine
from tests.core.network.test_engine import program as program

from m3_core.errors import ClosedError, OutOfMemoryError
from m3_core.network.engine import Engine

ROOT = Path(__file__).parents[3]
FAULTS = ROOT / "benchmarks" / "engine_faults.py"


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


def test_close_while_memory_runs_out_ends_every_caller(engine: Engine, program: Sums) -> None:
    gate, thread = held(engine, program)
    tickets = [engine.submit(work_of([1], [2])) for _ in range(3)]
    again = Gate(program)
    again.error = torch.OutOfMemoryError("CUDA out of memory")
    gate.open.set()
    assert again.reached.wait(60)
    closing = threading.Thread(target=engine.close)
    closing.start()
    while engine._room.refusal is None:
        pass
    again.open.set()
    for ticket in tickets:
        with pytest.raises(ClosedError, match="was closed"):
            ticket.wait()
    closing.join()
    thread.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_tells_everyone(engine: Engine, program: Sums) -> None:
    gate, thread = held(engine, program)
    tickets = [engine.submit(work_of([1], [2])) for _ in range(3)]

    def broken(*_) -> None:
        raise SystemError("a fault of the engine itself")

    engine._finish = broken
    gate.open.set()
    for ticket in tickets:
        with pytest.raises(ClosedError, match="a fault of the engine itself"):
            ticket.wait()
    thread.join()
    with pytest.raises(ClosedError, match="a fault of the engine itself"):
        engine.submit(work_of([1]))


def test_whatever_the_program_raises_reaches_the_caller(engine: Engine, program: Sums) -> None:
    def trouble(batch) -> None:
        if 13 in batch.ids:
            raise SystemExit(13)

    program.before = trouble
    with pytest.raises(SystemExit):
        engine.submit(work_of([13])).wait()
    engine.submit(work_of([1])).wait()


def test_a_thread_that_cannot_start_fails_its_caller_alone(engine: Engine, monkeypatch) -> None:
    def refused(*_) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError, match="can't start"):
            engine.submit(work_of([1]))
    work = work_of([2])
    engine.submit(work).wait()
    assert done(work)


def test_texts_without_tokens_are_computed_too(engine: Engine, program: Sums) -> None:
    seen: list[list[int]] = []
    program.compute = lambda batch, tasks: (
        seen.append(batch.lengths.tolist()) or [{"sums": torch.zeros(len(t))} for _, t in tasks]
    )
    engine.submit(work_of([])).wait()
    engine.submit(work_of([1] * 2000, [])).wait()
    assert seen == [[0], [2000], [0]]


def test_a_big_job_gets_its_turn_among_many_smaller(engine: Engine, program: Sums) -> None:
    gate, thread = held(engine, program)
    engine._room.max_tokens = 4 * LONG
    order: list[int] = []

    def ask(size: int) -> None:
        engine.submit(work_of(*[[1] * LONG] * size)).wait()
        order.append(size)

    threads = [threading.Thread(target=ask, args=(size,)) for size in (3, 4, *[2] * 12)]
    for one in threads:
        one.start()
        while engine._room._arriving.qsize() + len(engine._room._long.outside) == 0:
            pass
    gate.open.set()
    for one in [*threads, thread]:
        one.join(60)
    assert order.index(4) <= 2


def test_callers_do_not_share_an_error(engine: Engine) -> None:
    engine.close()
    errors = []
    for _ in range(2):
        with pytest.raises(ClosedError) as caught:
            engine.submit(work_of([1]))
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert len(errors[0].__traceback__.tb_frame.f_code.co_name) > 0


def test_an_error_keeps_neither_tensors_nor_work(engine: Engine, program: Sums) -> None:
    kept: list[weakref.ref] = []

    class Big(list):
        pass

    def trouble(_) -> None:
        tensor = Big([0])
        kept.append(weakref.ref(tensor))
        raise ValueError("a bug")

    program.before = trouble
    gc.collect()
    gc.disable()
    try:
        work = work_of([1])
        kept.append(weakref.ref(work.collector))
        ticket = engine.submit(work)
        with pytest.raises(ValueError, match="a bug") as caught:
            ticket.wait()
        assert kept[1]() is None
        del caught, work, ticket
        # The engine's thread lets go of its batch when it waits again.
        engine._room.thread.join(0.2)
        assert kept[0]() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_what_was_asked_before_a_fork_ends_in_the_child(engine: Engine, program: Sums) -> None:
    from tests.core.network.test_engine import waited

    gate, thread = held(engine, program)
    ticket = engine.submit(work_of([1]))
    child = os.fork()
    if not child:
        status = 1
        try:
            ticket.wait()
        except ClosedError as error:
            status = 0 if "ask again in the child" in str(error) else 2
        finally:
            os._exit(status)
    gate.open.set()
    ticket.wait()
    thread.join()
    assert waited(child) == 0


def test_loops_end_with_calls_pending_and_others_run_in_threads(
    engine: Engine, program: Sums
) -> None:
    gate, thread = held(engine, program)
    works = [work_of([i]) for i in range(5)]

    async def outer() -> None:
        pending = [asyncio.ensure_future(engine.arun(work)) for work in works[:3]]
        await asyncio.sleep(0)

        def inner() -> None:
            asyncio.run(engine.arun(works[4]))

        gate.open.set()
        await asyncio.to_thread(inner)
        assert pending

    asyncio.run(outer())
    engine.submit(works[3]).wait()
    thread.join()
    assert done(works[3])
    assert done(works[4])
    assert engine.stats().waiting_tokens == 0


def test_memory_that_runs_out_for_one_text_only_beside_others(
    engine: Engine, program: Sums
) -> None:
    """A failed batch lets go of its memory before its texts are tried alone."""
    counter = itertools.count()

    def trouble(batch) -> None:
        first = next(counter) == 1
        if first or 99 in batch.ids:
            raise RuntimeError("a bug") if first else torch.OutOfMemoryError("x")

    gate, thread = held(engine, program)
    good, bad = work_of([1]), work_of([99])
    tickets = [engine.submit(good), engine.submit(bad)]
    next(counter)
    gate.open.set()
    program.before = trouble
    tickets[0].wait()
    with pytest.raises(OutOfMemoryError):
        tickets[1].wait()
    thread.join()
    assert done(good)


def test_mixed_requests_with_faults_at_random() -> None:
    """The short form of ``benchmarks/engine_faults.py``."""
    command = [sys.executable, str(FAULTS), "--requests", "400", "--watchdog", "120"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_progress_that_raises_fails_its_caller_alone(engine: Engine) -> None:
    from dataclasses import replace

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    assert isinstance(work_of([1]).collector, Kept)
    with pytest.raises(KeyboardInterrupt):
        engine.submit(replace(work_of([1]), progress=interrupted)).wait()
    engine.submit(work_of([1])).wait()


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
