"""The engine under faults: programs, threads and callers that fail, alone and beside others."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
import torch
from tests.core.network.sums import LONG, Gate, Kept, Sums, done, held, waited, work_of
from tests.core.network.test_engine import engine as engine
from tests.core.network.test_engine import program as program

from m3_core.errors import ClosedError, OutOfMemoryError
from m3_core.network.engine import Engine

ROOT = Path(__file__).parents[3]
FAULTS = ROOT / "benchmarks" / "engine_faults.py"


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
