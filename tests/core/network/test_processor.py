"""One thread computes on the CPU for all models, and loading leaves no helpers to the caller."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import replace
from functools import partial

import pytest
import torch
from tests.core.network.test_engine import Sums, done, work_of
from tests.forking import HAS_FORK, in_child

from m3_core import Encoder, Reranker
from m3_core.errors import ClosedError
from m3_core.forks import aside
from m3_core.network import loaded
from m3_core.network.engine import Engine
from m3_core.network.processor import Processor, processor
from m3_core.testing import tiny_reranker


def test_functions_run_in_order_on_one_thread_that_is_not_the_callers() -> None:
    one, order, threads = Processor(), [], set()

    def ask(number: int) -> None:
        for step in range(50):
            compute = partial(lambda step: threads.add(threading.get_ident()) or step, step)
            order.append((number, one.run(compute, 1)))

    callers = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert sorted(order) == [(number, step) for number in range(8) for step in range(50)]


def test_errors_reach_who_asked_and_the_thread_goes_on() -> None:
    one = Processor()

    def fail() -> None:
        raise SystemExit("not here")

    for _ in range(2):
        with pytest.raises(SystemExit, match="not here"):
            one.run(fail, 1)
        assert one.run(lambda: 3, 1) == 3


def test_neither_functions_nor_results_are_kept() -> None:
    one, kept = Processor(), []

    class Big:
        pass

    def compute() -> Big:
        inner = Big()
        kept.append(weakref.ref(inner))
        return inner

    kept.append(weakref.ref(compute))
    gc.disable()
    try:
        one.run(compute, 1)
        del compute
        assert [ref() for ref in kept] == [None, None]
    finally:
        gc.enable()


def test_torchs_threads_are_those_that_the_caller_asked_for() -> None:
    asked, before = [1, 2, 1, 3], torch.get_num_threads()
    assert [processor.run(torch.get_num_threads, count) for count in asked] == asked
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not HAS_FORK, reason="no fork on this system")
def test_children_have_a_thread_of_their_own() -> None:
    processor.run(lambda: None, 1)
    assert in_child(lambda: processor.run(lambda: 5, 1) == 5) == 0


def test_all_models_compute_on_one_thread(tiny_m3, tmp_path, monkeypatch) -> None:
    built, computed = set(), set()

    def noted(function):
        return aside(lambda: built.add(threading.current_thread().name) or function())

    monkeypatch.setattr(loaded, "aside", noted)
    encoder = Encoder.from_pretrained(tiny_m3, device="cpu", dtype="float32")
    reranker = Reranker.from_pretrained(
        tiny_reranker(tmp_path, kind="cross-encoder"), device="cpu", dtype="float32"
    )
    for network in (encoder.model.network, reranker.model.network):

        def compute(*args, original=network.compute):
            computed.add(threading.current_thread().name)
            return original(*args)

        monkeypatch.setattr(network, "compute", compute)
    encoder.encode_queries(["a query"])
    reranker.compute_score([("a query", "a document")])
    assert built == {"m3-aside"}
    assert computed == {"m3-processor"}


def test_what_a_callback_asks_of_another_model_is_computed() -> None:
    first, second = Engine(Sums(), 1000, "first"), Engine(Sums(), 1000, "second")
    inner = work_of([3])
    outer = replace(work_of([1], [2]), progress=lambda _: second.submit(inner).wait())
    first.submit(outer).wait()
    assert done(outer)
    assert done(inner)
    first.close()
    second.close()


def test_what_is_asked_while_it_computes_is_refused_and_closing_does_not_wait() -> None:
    """As finalisers may, which run in whatever thread collects them."""
    program, other = Sums(), Engine(Sums(), 1000, "other")
    engine = Engine(program, 1000, "sums")
    program.before = lambda _: other.submit(work_of([1])).wait()
    with pytest.raises(RuntimeError, match="'other' was called from a callback"):
        engine.submit(work_of([1])).wait()
    program.before = lambda _: (engine.close(), other.close())
    work = work_of([2])
    engine.submit(work).wait()
    assert done(work)
    for one in (engine, other):
        with pytest.raises(ClosedError, match="was closed"):
            one.submit(work_of([1]))


def test_aside_gives_results_and_errors() -> None:
    assert aside(lambda: threading.current_thread().name) == "m3-aside"
    with pytest.raises(KeyError, match="gone"):
        aside(lambda: {}["gone"])
