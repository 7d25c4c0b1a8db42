"""What the engine calls back may raise, come twice, or come between any two steps."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import weakref

import pytest
import torch
from tests.core.network.sums import Sums, done, held, waited, work_of
from tests.core.network.test_engine import engine as engine
from tests.core.network.test_engine import program as program
from tests.core.network.test_engine_moments import ran
from tests.forking import HAS_FORK, in_child

from m3_core.errors import ClosedError
from m3_core.network.batches import Job
from m3_core.network.engine import Engine
from m3_core.network.failures import freed


def test_an_error_that_is_its_own_cause_ends_its_caller_alone() -> None:
    """As ``raise error from error`` makes it."""
    ran(
        """
def trouble(batch):
    if 13 in batch.ids:
        error = ValueError("a bug")
        raise error from error

program = Sums()
program.before = trouble
engine = Engine(program, 1000, "sums")
try:
    engine.submit(work_of([13])).wait()
except ValueError as error:
    assert str(error) == "a bug"
else:
    raise SystemExit("no error came")
good = work_of([1])
engine.submit(good).wait()
assert done(good)
""",
        seconds=120,
    )


def test_every_error_behind_an_error_lets_go_of_its_frames() -> None:
    class Big(list):
        pass

    kept: list[weakref.ref] = []

    def fail(kind: type[Exception]) -> None:
        tensor = Big([0])
        kept.append(weakref.ref(tensor))
        raise kind("a bug")

    def caught(kind: type[Exception]) -> Exception:
        try:
            fail(kind)
        except kind as error:
            return error

    def raised() -> BaseException:
        said = caught(KeyError)
        try:
            try:
                fail(ValueError)
            except ValueError:
                raise RuntimeError("both") from said
        except RuntimeError as error:
            return freed(error)

    gc.collect()
    gc.disable()
    try:
        error = raised()
        assert [one() for one in kept] == [None, None]
        assert isinstance(error.__cause__, KeyError)
        assert isinstance(error.__context__, ValueError)
    finally:
        gc.enable()


def test_a_loop_that_cannot_be_called_harms_nobody(engine: Engine, program: Sums) -> None:
    """A loop of another kind may raise more than asyncio's own does."""

    class Odd(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, callback, *args, context=None):
            if threading.current_thread() is engine._room.thread:
                raise AttributeError("the window of this loop was closed")
            return super().call_soon_threadsafe(callback, *args, context=context)

    gate, thread = held(engine, program)
    loop = Odd()
    task = loop.create_task(engine.arun(work_of([1])))
    loop.run_until_complete(asyncio.sleep(0))
    other = work_of([5])
    ticket = engine.submit(other)
    gate.open.set()
    ticket.wait()
    thread.join()
    assert done(other)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    engine.submit(work_of([1])).wait()


def test_room_that_two_threads_give_at_once_is_given() -> None:
    """The engine may have finished a job before its caller has said that it is let in."""
    told: list[str] = []
    job = Job(work_of([1]), 1, lambda: told.append("done"), lambda: told.append("in"))
    lines = iter(range(10**6))

    def between(frame, event, _):
        if frame.f_code is Job.may_enter.__code__:
            if event == "line" and next(lines) == 1:
                job.tell()
            return between
        return None

    sys.settrace(between)
    try:
        job.may_enter()
    finally:
        sys.settrace(None)
    job.tell()
    assert {"in", "done"} <= set(told)


def test_texts_without_tokens_among_long_ones_in_the_smallest_batches(program: Sums) -> None:
    program.compute = lambda _, tasks: [{"sums": torch.zeros(len(t))} for _, t in tasks]
    engine = Engine(program, 1, "sums")
    engine.submit(work_of([1] * 600)).wait()
    engine.submit(work_of([])).wait()
    engine.submit(work_of([])).wait()
    engine.close()


@pytest.mark.skipif(not HAS_FORK, reason="no fork on this system")
def test_a_child_is_told_of_what_ended_while_the_process_was_forked(
    engine: Engine, program: Sums, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go = threading.Event(), threading.Event()
    tell = Job.tell

    def late(job: Job) -> None:
        if threading.current_thread() is engine._room.thread:
            reached.set()
            assert go.wait(60)
        tell(job)

    monkeypatch.setattr(Job, "tell", late)
    work = work_of([1, 2])
    ticket = engine.submit(work)
    assert reached.wait(60)

    def is_told() -> bool:
        ticket.wait()
        return done(work)

    assert in_child(is_told, 120) == 0
    go.set()
    ticket.wait()


@pytest.mark.skipif(not HAS_FORK, reason="no fork on this system")
def test_who_asks_while_the_process_is_forked_is_told_in_the_child(
    engine: Engine, program: Sums
) -> None:
    """A signal handler may fork between any two steps of who asks."""
    engine.submit(work_of([1])).wait()
    room, work = engine._room, work_of([4])
    enter, processes = room.enter, []

    def forked(job: Job) -> None:
        processes.append(os.fork())
        enter(job)

    room.enter = forked
    error = None
    try:
        engine.submit(work).wait()
    except ClosedError as refused:
        error = refused
    finally:
        if processes == [0]:
            os._exit(0 if "ask again in the child" in str(error) else 2)
    assert waited(processes[0], 120) == 0
    assert error is None
    assert done(work)


def test_an_interrupt_in_close_leaves_nobody_waiting(
    engine: Engine, program: Sums, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, thread = held(engine, program)
    ticket = engine.submit(work_of([1]))
    tell, interrupted = Job.tell, []

    def interrupt(job: Job) -> None:
        if not interrupted:
            interrupted.append(job)
            raise KeyboardInterrupt
        tell(job)

    monkeypatch.setattr(Job, "tell", interrupt)
    with pytest.raises(KeyboardInterrupt):
        engine.close()
    gate.open.set()
    thread.join()
    told: list[BaseException] = []

    def wait() -> None:
        try:
            ticket.wait()
        except ClosedError as error:
            told.append(error)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    waiting.join(120)
    assert "was closed" in str(told[0])
