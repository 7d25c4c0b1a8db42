"""The engine over programs of a few lines: who gets what, when, and what becomes of failures."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.core.network.sums import LONG, Kept, Sums, done, held, waited, work_of

from m3_core.errors import ClosedError, DeviceError
from m3_core.network import engine as engines
from m3_core.network.batches import Work
from m3_core.network.engine import Engine


@pytest.fixture
def program() -> Sums:
    return Sums()


@pytest.fixture
def engine(program: Sums) -> Iterator[Engine]:
    made = Engine(program, 1000, "sums")
    yield made
    made.close()


def test_one_call_is_computed_in_its_order(engine: Engine, program: Sums) -> None:
    work = work_of([1], [2, 3], [4] * 900, [5, 6, 7], [8] * 300)
    engine.submit(work).wait()
    assert done(work)
    assert all(sum(batch) <= 1000 for batch in program.batches)
    assert all(batch == sorted(batch, reverse=True) for batch in program.batches)


def test_nothing_to_compute_needs_no_engine(engine: Engine, program: Sums) -> None:
    engine.submit(work_of()).wait()
    assert program.batches == []


def test_what_gathered_shares_a_pass(engine: Engine, program: Sums) -> None:
    gate, thread = held(engine, program)
    works = [work_of([i, i], task=1 + i % 3) for i in range(40)]
    tickets = [engine.submit(work) for work in works]
    gate.open.set()
    for ticket in tickets:
        ticket.wait()
    thread.join()
    assert all(map(done, works))
    assert program.batches == [[1], [2] * 40]
    stats = engine.stats()
    assert (stats.requests, stats.texts, stats.tokens, stats.batches) == (41, 41, 81, 2)
    assert stats.waiting_tokens == 0
    assert stats.waiting_seconds > 0


def test_other_groups_do_not_share_a_pass(engine: Engine, program: Sums) -> None:
    gate, thread = held(engine, program)
    works = [work_of([i], group=i % 2) for i in range(10)]
    tickets = [engine.submit(work) for work in works]
    gate.open.set()
    for ticket in tickets:
        ticket.wait()
    thread.join()
    assert all(map(done, works))
    assert program.batches[1:] == [[1] * 5, [1] * 5]


def test_short_work_goes_first_and_long_work_every_other_time(
    engine: Engine, program: Sums
) -> None:
    gate, thread = held(engine, program)
    bulk = work_of(*[[1] * 400 for _ in range(6)])
    tickets = [engine.submit(bulk)]
    # Each fills a batch of its own, so that there is always another one.
    short = [work_of([1] * 300, [1] * 212) for _ in range(8)]
    engine.budget.tokens = 600
    tickets += [engine.submit(work) for work in short]
    gate.open.set()
    for ticket in tickets:
        ticket.wait()
    thread.join()
    assert done(bulk)
    assert all(map(done, short))
    is_long = [400 in batch for batch in program.batches[1:]]
    assert is_long[:4] == [False, True, False, True]
    between = [i for i, long in enumerate(is_long) if long]
    assert all(second - first <= 2 for first, second in itertools.pairwise(between))


def test_what_queries_cost_does_not_shorten_long_batches(
    program: Sums, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that needs 8 ms for any batch, and a microsecond more a token."""
    clock = [1.0]

    def compute(batch) -> None:
        clock[0] += 0.008 + 1e-6 * len(batch.ids)

    monkeypatch.setattr(engines, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    program.before = compute
    engine = Engine(program, 65536, "sums")
    for i in range(6):
        for _ in range(20):
            engine.submit(work_of([1] * 300)).wait()
        bulk = work_of(*[[i] * 200 for _ in range(1000)])
        engine.submit(bulk).wait()
        assert done(bulk)
    engine.close()
    # 65,536 tokens, the budget, are computed in 74 ms.
    assert max(map(sum, program.batches[-21:])) > 30_000


def test_long_jobs_take_turns(engine: Engine, program: Sums) -> None:
    gate, thread = held(engine, program)
    first, second = (work_of(*[[size] * size for _ in range(4)]) for size in (900, 800))
    tickets = [engine.submit(first), engine.submit(second)]
    gate.open.set()
    for ticket in tickets:
        ticket.wait()
    thread.join()
    assert [batch[0] for batch in program.batches[1:]] == [900, 800] * 4


def test_an_error_reaches_only_the_caller_whose_text_it_was(engine: Engine, program: Sums) -> None:
    gate, thread = held(engine, program)
    good = [work_of([i]) for i in range(5)]
    bad, minus = work_of([666], [1]), work_of([-1])
    tickets = [engine.submit(work) for work in [*good[:2], bad, minus, *good[2:]]]

    def trouble(batch) -> None:
        if 666 in batch.ids:
            raise RuntimeError("a bug")

    gate.open.set()
    program.before = trouble
    for ticket, work in zip(tickets, [*good[:2], bad, minus, *good[2:]], strict=True):
        if work is bad:
            with pytest.raises(RuntimeError, match="a bug"):
                ticket.wait()
        elif work is minus:
            with pytest.raises(ArithmeticError, match="gave -1"):
                ticket.wait()
        else:
            ticket.wait()
    thread.join()
    assert all(map(done, good))
    assert engine.stats().failed == 2
    engine.submit(work_of([1])).wait()


def test_a_bounded_amount_waits(engine: Engine, program: Sums, monkeypatch) -> None:
    gate, thread = held(engine, program)
    # The one that is computed and two that wait.
    engine._room.max_tokens = 3 * engines.SHORT_TOKENS
    works = [work_of([i] * 4) for i in range(30)]
    threads = [threading.Thread(target=lambda w=work: engine.submit(w).wait()) for work in works]
    for one in threads:
        one.start()
    deadline = time.monotonic() + 60
    while engine.stats().waiting_tokens < 8 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert engine.stats().waiting_tokens == 8
    # A query does not wait for room that long work takes, nor the other way round.
    long = engine.submit(work_of([1] * LONG))
    gate.open.set()
    long.wait()
    for one in [*threads, thread]:
        one.join()
    assert all(map(done, works))


def test_close_ends_what_waits(engine: Engine, program: Sums) -> None:
    gate, thread = held(engine, program)
    tickets = [engine.submit(work_of([1])) for _ in range(3)]
    closing = threading.Thread(target=engine.close)
    closing.start()
    for ticket in tickets:
        with pytest.raises(ClosedError, match="'sums' was closed: load it again"):
            ticket.wait()
    gate.open.set()
    closing.join()
    thread.join()
    with pytest.raises(ClosedError):
        engine.submit(work_of([1]))
    engine.close()


def test_a_callback_may_close_but_not_call(engine: Engine) -> None:
    seen: list[BaseException] = []

    class Calling(Kept):
        def add(self, results, places, rows) -> None:
            super().add(results, places, rows)
            try:
                engine.submit(work_of([1]))
            except RuntimeError as error:
                seen.append(error)
            engine.close()

    work = work_of([1, 2])
    calling = Work(work.tokens, 1, Calling(1))
    engine.submit(calling).wait()
    assert "callback of its own engine" in str(seen[0])
    assert calling.collector.sums.tolist() == [3]


def test_an_interrupted_caller_gives_up(engine: Engine, program: Sums) -> None:
    gate, thread = held(engine, program)
    ticket = engine.submit(work_of([3]))
    ticket.cancel()
    ticket.cancel()
    other = work_of([4])
    following = engine.submit(other)
    gate.open.set()
    following.wait()
    thread.join()
    assert done(other)
    assert program.batches == [[1], [1]]
    assert engine.stats().cancelled == 1


def test_a_forgotten_engine_ends_its_thread(program: Sums) -> None:
    engine = Engine(program, 1000, "forgotten")
    engine.submit(work_of([1])).wait()
    thread, gone = engine._room.thread, weakref.ref(engine)
    del engine
    deadline = time.monotonic() + 60
    while gone() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.001)
    thread.join(60)
    assert not thread.is_alive()


def test_work_is_computed_with_the_threads_its_caller_set(engine: Engine, program: Sums) -> None:
    seen: list[int] = []
    program.before = lambda _: seen.append(torch.get_num_threads())
    before = torch.get_num_threads()
    try:
        for count in (1, 2, 1):
            torch.set_num_threads(count)
            engine.submit(work_of([1])).wait()
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_a_working_engine(engine: Engine, program: Sums) -> None:
    gate, thread = held(engine, program)
    waiting = engine.submit(work_of([1]))
    child = os.fork()
    if not child:
        status = 1
        try:
            program.before = lambda _: None
            work = work_of([2, 3], [4])
            engine.submit(work).wait()
            other = work_of([5])
            asyncio.run(engine.arun(other))
            status = 0 if done(work) and done(other) and engine.stats().requests == 2 else 2
        finally:
            os._exit(status)
    gate.open.set()
    waiting.wait()
    thread.join()
    assert waited(child) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_is_told_that_cuda_does_not_work() -> None:
    engine = Engine(Sums("cuda"), 1000, "on cuda")
    child = os.fork()
    if not child:
        status = 1
        try:
            engine.submit(work_of([1]))
        except DeviceError as error:
            status = 0 if "start children with 'spawn'" in str(error) else 2
        finally:
            os._exit(status)
    assert waited(child) == 0


def test_the_interpreter_ends_at_once_with_work_waiting() -> None:
    script = """
import threading, time
import numpy as np, torch
from m3_core.network.batches import Work
from m3_core.network.engine import Engine
from m3_core.network.tokens import TokenBatch

class Slow:
    device = torch.device("cpu")
    def compute(self, batch, tasks):
        time.sleep(0.05)
        return [{} for _ in tasks]

class Nothing:
    def add(self, *_): pass

engine = Engine(Slow(), 1, "slow")
tokens = TokenBatch(np.zeros(2000, np.int32), np.arange(2001), np.zeros(2000, bool))
for _ in range(4):
    run = lambda: engine.submit(Work(tokens, 1, Nothing())).wait()
    threading.Thread(target=run, daemon=True).start()
time.sleep(0.2)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_many_threads_and_coroutines_get_their_own(engine: Engine, program: Sums) -> None:
    rng = np.random.default_rng(0)
    shapes = [
        [rng.integers(1, 9, size=rng.integers(1, 60)).tolist() for _ in range(rng.integers(1, 30))]
        for _ in range(64)
    ]
    works = [work_of(*texts, task=1 + i % 4, group=i % 2) for i, texts in enumerate(shapes)]

    def sync(part: list[Work]) -> None:
        for work in part:
            engine.submit(work).wait()

    async def together(part: list[Work]) -> None:
        await asyncio.gather(*(engine.arun(work) for work in part))

    threads = [threading.Thread(target=sync, args=(works[i:32:8],)) for i in range(8)]
    threads.append(threading.Thread(target=lambda: asyncio.run(together(works[32:]))))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(map(done, works))
