"""Requests of all kinds with faults at random: every caller gets its own result, or its own error.

    python benchmarks/engine_faults.py [--requests 100000] [--minutes 20]

16 threads and 200 coroutines in 4 event loops ask a small encoder and a small reranker, directly
and through the encode-once cache, while passes raise, run out of memory or give NaN, callers are
cancelled or time out, event loops are closed over their callers, the process forks, and models are
closed. Serial results from before are the oracle: every caller must get its own, or an error that
its own texts or a pass of its own can have raised. The process ends with all stacks if nothing
advances. With ``--minutes`` it goes on for so long without faults that load models or fork, and
prints by how much resident memory grows.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import faulthandler
import gc
import itertools
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from faults import Faults, Judge, Request, is_same, make_requests

from m3_core import Encoder, Reranker
from m3_core.errors import ClosedError
from m3_core.network.memory import TokenBudget
from m3_core.testing import tiny_checkpoint, tiny_reranker

if TYPE_CHECKING:
    from collections.abc import Callable


class _Run:
    def __init__(self, requests: list[Request], number: float, seed: int) -> None:
        self.requests = requests
        self.judge = Judge()
        self.numbers = itertools.count()
        self.number = number
        self.ends = float("inf")
        self.seed = seed
        self.drawn: collections.Counter[int] = collections.Counter()
        self.counts: collections.Counter[str] = collections.Counter()

    def draws(self, seed: int) -> Any:
        """Requests until as many as wanted were drawn by all."""
        rng = random.Random(self.seed * 1000 + seed)
        while next(self.numbers) < self.number and time.monotonic() < self.ends:
            self.drawn[seed] += 1
            yield rng.choice(self.requests), rng

    def sync(self, seed: int) -> None:
        for request, _ in self.draws(seed):
            result, error = None, None
            try:
                result = request.ask()
            except Exception as caught:  # noqa: BLE001 (judged)
                error = caught
            self.judge.judge(request, result, error)

    async def coroutine(self, seed: int) -> None:
        for request, rng in self.draws(seed):
            result, error, given_up = None, None, None
            fate = rng.random()
            try:
                if fate < 0.05:
                    given_up = asyncio.TimeoutError
                    result = await asyncio.wait_for(request.aask(), rng.random() * 0.1)
                elif fate < 0.1:
                    given_up = asyncio.CancelledError
                    task = asyncio.ensure_future(request.aask())
                    await asyncio.sleep(rng.random() * 0.05)
                    task.cancel()
                    result = await task
                else:
                    result = await request.aask()
            except (Exception, asyncio.CancelledError) as caught:  # noqa: BLE001 (judged)
                error = caught
            self.judge.judge(request, result, error, given_up)

    def loop(self, seed: int) -> None:
        async def together() -> None:
            await asyncio.gather(*(self.coroutine(seed * 50 + i) for i in range(50)))

        asyncio.run(together())

    def closed_loops(self, stop: threading.Event) -> None:
        rng = random.Random(self.seed)
        while not stop.wait(0.2):
            loop = asyncio.new_event_loop()
            loop.set_exception_handler(lambda *_: None)
            for _ in range(20):
                task = loop.create_task(rng.choice(self.requests).aask())
                task._log_destroy_pending = False  # type: ignore[attr-defined]
            loop.run_until_complete(asyncio.sleep(rng.random() * 0.01))
            loop.close()
            self.counts["loops closed over 20 callers"] += 1

    def forks(self, stop: threading.Event, faults: list[Faults]) -> None:
        rng = random.Random(self.seed)
        good = [one for one in self.requests if not one.poisoned and not one.has_nan]
        while not stop.wait(1.0):
            chosen = rng.sample(good, 6)
            child = os.fork()
            if not child:
                in_child(chosen, faults)
            deadline = time.monotonic() + 60
            status = None
            while status is None and time.monotonic() < deadline:
                pid, ended = os.waitpid(child, os.WNOHANG)
                status = ended if pid else None
                time.sleep(0.005)
            if status is None:
                os.kill(child, signal.SIGABRT)
                os.waitpid(child, 0)
            if status != 0:
                self.judge.wrong.append(f"a forked child ended with {status}")
            self.counts["forks"] += 1

    def closes(self, stop: threading.Event, folder: Path) -> None:
        rng = random.Random(self.seed)
        while not stop.wait(1.0):
            encoder = Encoder.from_pretrained(folder, dtype="float32", device="cpu")
            outcomes: list[str] = []

            def ask(encoder: Encoder = encoder, outcomes: list[str] = outcomes) -> None:
                try:
                    while True:
                        encoder.encode_queries(["hello world", "the river"])
                except ClosedError:
                    outcomes.append("closed")

            threads = [threading.Thread(target=ask) for _ in range(6)]
            for thread in threads:
                thread.start()
            time.sleep(rng.random() * 0.1)
            encoder.close()
            for thread in threads:
                thread.join()
            if outcomes != ["closed"] * 6:
                self.judge.wrong.append("a caller of a closed model was not told")
            self.counts["models closed over 6 callers"] += 1


def in_child(chosen: list[Request], faults: list[Faults]) -> None:
    # The watchdog's thread is not here, and to cancel it would wait for it: the parent watches.
    status = 1
    try:
        for one in faults:
            one.rate = 0.0
        right = [is_same(one.ask(), one.expected) for one in chosen[:3]]

        async def together() -> list[Any]:
            return await asyncio.gather(*(one.aask() for one in chosen[3:]))

        results = asyncio.run(together())
        pairs = zip(results, chosen[3:], strict=True)
        right += [is_same(result, one.expected) for result, one in pairs]
        status = 0 if all(right) else 2
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(status)


def resident() -> float:
    """Resident memory in MiB."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * resource.getpagesize() / 2**20


def watched(threads: list[threading.Thread], run: _Run, engines: list[Any], limit: int) -> list:
    """Wait for all; end the process with all stacks if nothing advances."""
    samples: list[tuple[float, float]] = []
    started, seen, budgets = time.monotonic(), -1, [engine.budget.whole for engine in engines]
    while living := [thread for thread in threads if thread.is_alive()]:
        advanced = sum(run.judge.outcomes.values())
        if advanced != seen:
            seen = advanced
            faulthandler.dump_traceback_later(limit, exit=True)
        for engine, budget in zip(engines, budgets, strict=True):
            # Passes run out of memory whatever their size, which would leave one token a batch.
            engine.budget = TokenBudget(budget)
        samples.append((time.monotonic() - started, resident()))
        living[0].join(1.0)
    faulthandler.cancel_dump_traceback_later()
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--limit", type=float, help="seconds after which no more is asked")
    parser.add_argument("--watchdog", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.01, help="of each kind of failed pass")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    faulthandler.enable()
    faulthandler.dump_traceback_later(max(arguments.watchdog, 120), exit=True)
    with tempfile.TemporaryDirectory() as folder:
        where = tiny_checkpoint(Path(folder) / "encoder")
        encoder = Encoder.from_pretrained(where, dtype="float32", device="cpu")
        reranker = Reranker.from_pretrained(
            tiny_reranker(Path(folder) / "reranker"), dtype="float32", device="cpu"
        )
        rng = random.Random(arguments.seed)
        count = min(max(arguments.requests // 20, 60), 400)
        requests = make_requests(encoder, reranker, count, rng)
        for request in requests:
            request.expected = request.ask()
        faults = [
            Faults(one.model.engine, one.model.tokenizer, arguments.seed + i)
            for i, one in enumerate((encoder, reranker))
        ]
        # What is remembered would never reach a pass that fails.
        for one in faults:
            one.rate = arguments.rate
        forget(encoder)
        hammer(arguments, encoder, reranker, requests, faults, where)


def hammer(
    arguments: argparse.Namespace,
    encoder: Encoder,
    reranker: Reranker,
    requests: list[Request],
    faults: list[Faults],
    folder: Path,
) -> None:
    soak = arguments.minutes > 0
    run = _Run(requests, float("inf") if soak else arguments.requests, arguments.seed)
    began = time.monotonic()
    if soak:
        run.ends = began + 60 * arguments.minutes
    elif arguments.limit is not None:
        run.ends = began + arguments.limit
    stop = threading.Event()
    helpers: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
        (run.closed_loops, (stop,)),
        (forgets, (encoder, stop)),
    ]
    if not soak:
        helpers.append((run.closes, (stop, folder)))
        if hasattr(os, "fork"):
            helpers.append((run.forks, (stop, faults)))
    # A thread that dies, or a task that nobody awaits, would be missed nowhere else.
    threading.excepthook = lambda what: run.judge.wrong.append(
        f"a thread ended: {what.exc_value!r}"
    )
    sys.unraisablehook = lambda what: run.judge.wrong.append(f"not raised: {what.exc_value!r}")
    beside = [threading.Thread(target=f, args=a, daemon=True) for f, a in helpers]
    threads = [threading.Thread(target=run.sync, args=(i,)) for i in range(16)]
    threads += [threading.Thread(target=run.loop, args=(100 + i,)) for i in range(4)]
    for thread in [*threads, *beside]:
        thread.start()
    engines = [encoder.model.engine, reranker.model.engine]
    samples = watched(threads, run, engines, arguments.watchdog)
    faulthandler.dump_traceback_later(arguments.watchdog, exit=True)
    stop.set()
    for thread in beside:
        thread.join()
    gc.collect()
    report(run, faults, engines, time.monotonic() - began)
    if len(samples) > 60:
        later = [sample for sample in samples if sample[0] > samples[-1][0] / 4]
        slope = np.polyfit(*np.array(later).T, 1)[0] * 60
        print(f"resident memory: {samples[-1][1]:.0f} MiB, {slope:+.3f} MiB a minute")
    if run.judge.wrong:
        kinds = collections.Counter(run.judge.wrong).most_common(10)
        raise SystemExit("\n".join(f"{number} x {what}" for what, number in kinds))


def forget(encoder: Encoder) -> None:
    from m3_core.encoder.cache import cache_of

    cache = cache_of(encoder)
    with cache._lock:
        cache._entries.clear()
        cache._bytes = 0


def forgets(encoder: Encoder, stop: threading.Event) -> None:
    while not stop.wait(0.1):
        forget(encoder)


def report(run: _Run, faults: list[Faults], engines: list[Any], seconds: float) -> None:
    # Callers whose event loop was closed may still have work there.
    deadline = time.monotonic() + 60
    while any(engine._room.present() for engine in engines) and time.monotonic() < deadline:
        time.sleep(0.1)
    judge, drawn = run.judge, sum(run.drawn.values())
    judged = sum(judge.outcomes.values())
    print(f"{judged} requests in {seconds:.0f} s")
    if judged != drawn:
        judge.wrong.append(f"{drawn} requests were asked, but {judged} have an outcome")
    judge.bound(faults)
    for counts in (judge.outcomes, run.counts, *(one.counts for one in faults)):
        print("  " + ", ".join(f"{key}: {value}" for key, value in sorted(counts.items())))
    for engine in engines:
        left = engine._room.present()
        if left or engine.stats().waiting_tokens:
            judge.wrong.append(f"{len(left)} jobs are left in an engine that has nothing to do")
        print(f"  {engine.stats()}")


if __name__ == "__main__":
    main()
