"""What is copied when, and what is kept how long: CUDA's streams played by a list of calls."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.core.network.test_engine import Kept, Sums, done, held, work_of

from m3_core import Encoder, Reranker
from m3_core.errors import NonFiniteError
from m3_core.network import transfer
from m3_core.network.batches import Work
from m3_core.network.engine import Engine
from m3_core.network.transfer import Arriving, ToHost, to_device
from m3_core.testing import tiny_checkpoint, tiny_reranker

CUDA = torch.device("cuda", 0)


class Result(torch.Tensor):
    """A tensor "on the device", which writes down when it is copied."""

    calls: list[Any]

    def to(self, *args: Any, **options: Any) -> torch.Tensor:
        self.calls.append(("copy", *args, options))
        return torch.Tensor(np.asarray(self.tolist()))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []
    monkeypatch.setattr(Result, "calls", made, raising=False)

    class Stream:
        def __init__(self, device: torch.device) -> None:
            assert device == CUDA

        def wait_stream(self, other: object) -> None:
            made.append(("wait for", other))

    class Event:
        def record(self, stream: object) -> None:
            assert isinstance(stream, Stream)
            made.append("record")

        def synchronize(self) -> None:
            made.append("arrived")

    @contextmanager
    def within(stream: object) -> Iterator[None]:
        assert isinstance(stream, Stream)
        made.append("aside")
        yield
        made.append("back")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"current of {device}")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: made.append("empty"))
    return made


def test_results_are_copied_aside_once_they_are_computed(calls: list[Any]) -> None:
    source = torch.ones(3).as_subclass(Result)
    gone = weakref.ref(source)
    arriving = ToHost(CUDA).start([{"dense": source, "keys": np.arange(2)}])
    copy = ("copy", "cpu", {"non_blocking": True})
    assert calls == [("wait for", "current of cuda:0"), "aside", copy, "back", "record"]
    del source
    gc.collect()
    assert gone() is not None, "its memory could be written to before it was copied"
    ((dense, keys),) = (result.values() for result in arriving.arrays())
    assert calls[-1] == "arrived"
    assert (dense.tolist(), keys.tolist()) == ([1, 1, 1], [0, 1])
    gc.collect()
    assert gone() is None


def test_arrays_go_to_cuda_through_page_locked_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class Host:
        def pin_memory(self) -> Host:
            calls.append("pin")
            return self

        def to(self, *args: Any, **options: Any) -> str:
            calls.append((*args, options))
            return "there"

    monkeypatch.setattr(transfer.torch, "from_numpy", lambda _: Host())
    assert to_device(np.arange(3), CUDA) == "there"
    assert calls == ["pin", (CUDA, {"non_blocking": True})]


def test_on_a_cpu_nothing_is_copied() -> None:
    array = np.arange(3)
    tensor = to_device(array, torch.device("cpu"))
    ((back,),) = (r.values() for r in ToHost(torch.device("cpu")).start([{"a": tensor}]).arrays())
    assert np.shares_memory(array, back)
    assert Arriving([]).arrays() == []


def test_the_next_batch_is_computed_before_the_last_one_is_waited_for(calls: list[Any]) -> None:
    program = Sums("cuda:0")
    engine = Engine(program, 100, "overlapping")
    gate, thread = held(engine, program)
    works = [work_of([i] * 60) for i in range(3)]
    tickets = [engine.submit(work) for work in works]
    program.before = lambda _: calls.append("compute")
    gate.open.set()
    for ticket in tickets:
        ticket.wait()
    thread.join()
    engine.close()
    assert all(map(done, works))
    # The first batch began before anything was written down.
    order = [call for call in calls if call in ("compute", "arrived")]
    assert order == ["compute", "arrived"] * 3 + ["arrived"]


def test_memory_that_runs_out_on_a_device_is_given_back(calls: list[Any]) -> None:
    program = Sums("cuda:0")
    alive: list[weakref.ref[torch.Tensor]] = []

    def limited(batch: Any) -> None:
        calls.append(sum(ref() is not None for ref in alive))
        states = torch.zeros(len(batch.ids))
        alive.append(weakref.ref(states))
        if len(batch.ids) > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")

    program.before = limited
    engine = Engine(program, 100, "limited")
    work = work_of(*[[i] * 20 for i in range(5)])
    gc.disable()
    try:
        engine.submit(work).wait()
    finally:
        gc.enable()
    engine.close()
    assert done(work)
    assert "empty" in calls
    assert {call for call in calls if isinstance(call, int)} == {0}, "a failed batch was kept"


@pytest.mark.parametrize("where", ["program", "collector"])
def test_an_error_that_is_kept_keeps_no_memory(where: str) -> None:
    program = Sums()
    kept: list[weakref.ref[Any]] = []

    def trouble(_: object) -> None:
        states = torch.zeros(10)
        kept.append(weakref.ref(states))
        try:
            raise KeyError("inside")
        except KeyError as error:
            raise RuntimeError("a bug") from error

    class Failing(Kept):
        def add(self, results: Any, places: Any, rows: Any) -> None:
            array = np.array(results["sums"])
            kept.append(weakref.ref(array))
            raise RuntimeError("a bug")

    work = work_of([1, 2])
    if where == "program":
        program.before = trouble
    else:
        work = Work(work.tokens, 1, Failing(1))
    engine = Engine(program, 100, "failing")
    with pytest.raises(RuntimeError, match="a bug") as caught:
        engine.submit(work).wait()
    gc.collect()
    assert kept[0]() is None
    names = [entry.name for entry in caught.traceback]
    assert names[-1] == ("trouble" if where == "program" else "add")
    engine.close()


def test_nobody_keeps_the_weights_of_a_closed_engine() -> None:
    program = Sums()
    engine = Engine(program, 100, "closed")
    gate, thread = held(engine, program)
    ticket = engine.submit(work_of([1]))
    gone = weakref.ref(program)
    closing = threading.Thread(target=engine.close)
    closing.start()
    with pytest.raises(Exception, match="was closed") as caught:
        ticket.wait()
    gate.open.set()
    closing.join()
    thread.join()
    program.before = lambda _: None
    del gate, program
    gc.collect()
    assert gone() is None
    assert caught.value is not None
    assert engine.stats().requests == 2


@pytest.mark.parametrize("kind", ["encoder", "reranker"])
def test_errors_of_a_closed_model_keep_no_weights(tmp_path: Path, kind: str) -> None:
    options = {"device": "cpu", "dtype": "float32"}
    if kind == "encoder":
        model: Any = Encoder.from_pretrained(tiny_checkpoint(tmp_path), **options)
        network, call = model.model.network.backbone, model.encode_queries
    else:
        model = Reranker.from_pretrained(tiny_reranker(tmp_path), **options)
        network, call = model.model.network.network.backbone, model.compute_score
    with torch.no_grad():
        network.words.weight.fill_(float("nan"))
    gone = weakref.ref(network)
    with pytest.raises(NonFiniteError) as caught:
        call(["panda"] if kind == "encoder" else [("panda", "bear")])
    model.close()
    del network
    gc.collect()
    assert gone() is None
    assert "NaN" in str(caught.value)
