"""Memory that runs out: smaller batches for all, and larger ones again once they would fit."""

from __future__ import annotations

import itertools

import pytest
import torch
from tests.core.network.sums import LONG, Sums, done, held, work_of
from tests.core.network.test_engine import engine as engine
from tests.core.network.test_engine import program as program

from m3_core.errors import OutOfMemoryError
from m3_core.network.engine import Engine
from m3_core.network.memory import FULL_BATCHES


class Memory:
    """Room for so many tokens in a program's batches."""

    def __init__(self, program: Sums, tokens: int) -> None:
        self.tokens = tokens
        self.passes = 0
        self.failed: list[int] = []
        program.before = self

    def __call__(self, batch) -> None:
        self.passes += 1
        if len(batch.ids) > self.tokens:
            self.failed.append(self.passes)
            raise torch.OutOfMemoryError("CUDA out of memory")


def fill(engine: Engine, batches: int) -> None:
    """Have so many batches computed that are as full as the engine makes them."""
    for _ in range(batches):
        work = work_of(*[[1] for _ in range(engine.budget.tokens)])
        engine.submit(work).wait()
        assert done(work)


def test_batches_grow_again_when_memory_is_there_again(engine: Engine, program: Sums) -> None:
    memory = Memory(program, 500)
    engine.submit(work_of(*[[1] for _ in range(1000)])).wait()
    # Two batches of 500 tokens have fitted.
    assert (engine.budget.tokens, memory.failed) == (500, [1])
    memory.tokens = 10_000
    fill(engine, FULL_BATCHES - 3)
    assert engine.budget.tokens == 500
    fill(engine, 1)
    assert engine.budget.tokens == 750
    fill(engine, FULL_BATCHES - 1)
    assert engine.budget.tokens == 750
    fill(engine, 1)
    assert engine.budget.tokens == 1000
    fill(engine, 3 * FULL_BATCHES)
    assert engine.budget.tokens == 1000
    assert memory.failed == [1]


def test_batches_that_are_not_full_say_nothing_of_memory(engine: Engine, program: Sums) -> None:
    memory = Memory(program, 500)
    engine.submit(work_of(*[[1] for _ in range(1000)])).wait()
    for _ in range(3 * FULL_BATCHES):
        engine.submit(work_of([1] * 200)).wait()
    assert (engine.budget.tokens, memory.failed) == (500, [1])


def test_a_batch_that_grew_too_large_is_halved_and_tried_less_often(
    engine: Engine, program: Sums
) -> None:
    memory = Memory(program, 600)
    fill(engine, 40 * FULL_BATCHES)
    gaps = [later - earlier for earlier, later in itertools.pairwise(memory.failed)]
    assert len(gaps) >= 3
    assert gaps[-1] > 4 * gaps[0]
    memory.tokens = 10_000
    while engine.budget.tokens < 1000:
        fill(engine, 1)


def test_a_text_that_never_fits_does_not_shorten_the_batches_of_others(
    engine: Engine, program: Sums
) -> None:
    Memory(program, 1500)
    fill(engine, 2)
    with pytest.raises(OutOfMemoryError):
        engine.submit(work_of([1] * 2000)).wait()
    assert engine.budget.tokens == 1000


def test_passes_that_failed_are_not_counted_as_computed(engine: Engine, program: Sums) -> None:
    Memory(program, 500)
    engine.submit(work_of(*[[1] for _ in range(1000)])).wait()
    stats = engine.stats()
    assert (stats.texts, stats.tokens, stats.batches) == (1000, 1000, 2)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("x"), MemoryError()])
def test_memory_that_runs_out_halves_batches_for_all(
    engine: Engine, program: Sums, error: Exception
) -> None:
    gate, thread = held(engine, program)
    works = [work_of(*[[i] * (5 + i % 7) for _ in range(4)]) for i in range(12)]
    tickets = [engine.submit(work) for work in works]

    def limited(batch) -> None:
        if len(batch.ids) > 60:
            raise error

    gate.open.set()
    program.before = limited
    for ticket in tickets:
        ticket.wait()
    thread.join()
    assert all(map(done, works))
    assert engine.budget.tokens <= 120


def test_a_text_that_never_fits_fails_alone(engine: Engine, program: Sums) -> None:
    Memory(program, 30)
    with pytest.raises(OutOfMemoryError, match="text 1 of 40 tokens does not fit"):
        engine.submit(work_of([1], [2] * 40, [3])).wait()
    good = work_of([1], [2])
    engine.submit(good).wait()
    assert done(good)


def test_long_work_beside_short_grows_too(engine: Engine, program: Sums) -> None:
    memory = Memory(program, 400)
    bulk = work_of(*[[1] * 200 for _ in range(400)])
    engine.submit(bulk).wait()
    assert done(bulk)
    memory.tokens = 10_000
    for _ in range(20 * FULL_BATCHES):
        engine.submit(work_of([1] * 300, [1] * LONG)).wait()
    assert engine.budget.tokens == 1000
