"""The engine under event loops: callers that await, leave, or whose loop is closed."""

from __future__ import annotations

import asyncio
import threading

import pytest
from tests.core.network.sums import LONG, Sums, done, held, work_of
from tests.core.network.test_engine import engine as engine
from tests.core.network.test_engine import program as program

from m3_core.network import engine as engines
from m3_core.network.engine import Engine


async def test_coroutines_share_a_pass_and_occupy_no_thread(engine: Engine, program: Sums) -> None:
    gate, thread = held(engine, program)
    works = [work_of([i, 1]) for i in range(200)]
    before = threading.active_count()
    tasks = [asyncio.create_task(engine.arun(work)) for work in works]
    await asyncio.sleep(0)
    assert threading.active_count() == before
    gate.open.set()
    await asyncio.gather(*tasks)
    thread.join()
    assert all(map(done, works))
    assert program.batches == [[1], [2] * 200]


async def test_cancelled_and_timed_out_callers_leave_their_place(
    engine: Engine, program: Sums
) -> None:
    gate, thread = held(engine, program)
    keep, drop, late = work_of([1]), work_of([2]), work_of([3] * LONG)
    staying = asyncio.create_task(engine.arun(keep))
    leaving = asyncio.create_task(engine.arun(drop))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(engine.arun(late), 0.01)
    assert engine.stats().waiting_tokens == 1
    assert engine.stats().cancelled == 2
    gate.open.set()
    await staying
    thread.join()
    assert program.batches == [[1], [1]]


def test_a_loop_that_was_closed_harms_nobody(engine: Engine, program: Sums) -> None:
    gate, thread = held(engine, program)
    loop = asyncio.new_event_loop()
    task = loop.create_task(engine.arun(work_of([1])))
    loop.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = False
    loop.close()
    other = work_of([5])
    ticket = engine.submit(other)
    gate.open.set()
    ticket.wait()
    thread.join()
    assert done(other)


async def test_coroutines_are_suspended_when_too_much_waits(engine: Engine, program: Sums) -> None:
    gate, thread = held(engine, program)
    # The one that is computed and two that wait.
    engine._room.max_tokens = 3 * engines.SHORT_TOKENS
    works = [work_of([i] * 4) for i in range(30)]
    tasks = [asyncio.create_task(engine.arun(work)) for work in works]
    await asyncio.sleep(0.01)
    assert engine.stats().waiting_tokens == 8
    tasks[20].cancel()
    await asyncio.sleep(0)
    gate.open.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    thread.join()
    assert [done(work) for work in works].count(True) == 29
