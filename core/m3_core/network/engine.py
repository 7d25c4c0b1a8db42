"""The only thing that runs a network: work of all threads and event loops, in common batches.

Whoever calls hands in tokenised texts and waits. One thread fills batches from all that waits,
without a timer: an idle engine starts at once, a busy one finds what has gathered meanwhile.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch

from m3_core.errors import ClosedError, DeviceError, OutOfMemoryError
from m3_core.forks import survive_forks
from m3_core.network.batches import Job, pack
from m3_core.network.memory import is_out_of_memory, let_go
from m3_core.network.transfer import Arriving, ToHost
from m3_core.network.waiting import WaitingRoom

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from m3_core.errors import M3Error
    from m3_core.network.batches import PackedBatch, Share, Work
    from m3_core.network.transfer import Results

_log = logging.getLogger("m3_core")

# A query, or a few pairs.
SHORT_TOKENS = 512
# Synchronous callers wait and asynchronous ones are suspended beyond so many tokens a lane.
MAX_WAITING_TOKENS = 1 << 20
# Long work is cut into batches of about this time, so that a query does not wait longer for one.
BATCH_SECONDS = 0.05
LEAST_LONG_TOKENS = 512


class Program(Protocol):
    """A network with its outputs, as the engine runs it.

    Attributes:
        device: Where it runs.
    """

    device: torch.device

    def compute(
        self, batch: PackedBatch, tasks: Sequence[tuple[Hashable, NDArray[np.int64]]]
    ) -> list[Results]:
        """Start computing a batch.

        Args:
            batch: The texts.
            tasks: What to compute, and of which texts of the batch.

        Returns:
            The results of each task: tensors on the device, or arrays on the host.
        """


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine has done so far.

    Attributes:
        requests: Calls that were handed in.
        texts: Texts, or pairs, that were computed.
        tokens: Tokens of these.
        batches: Forward passes.
        requests_per_batch: Mean number of calls that shared a pass.
        tokens_per_batch: Mean number of tokens of a pass.
        waiting_seconds: Mean time from handing in to the first pass.
        waiting_tokens: Tokens that wait now.
        failed: Calls that ended with an error.
        cancelled: Calls that were given up by their callers.
    """

    requests: int = 0
    texts: int = 0
    tokens: int = 0
    batches: int = 0
    requests_per_batch: float = 0.0
    tokens_per_batch: float = 0.0
    waiting_seconds: float = 0.0
    waiting_tokens: int = 0
    failed: int = 0
    cancelled: int = 0


@dataclass(slots=True)
class _Counts:
    texts: int = 0
    tokens: int = 0
    batches: int = 0
    shares: int = 0
    waited: float = 0.0
    failed: int = 0
    cancelled: int = 0


@dataclass(slots=True)
class _Pending:
    """A batch that is being computed, or whose results are on their way to the host."""

    shares: list[list[Share]]
    results: Arriving
    tokens: int
    began: float


class Ticket:
    """Work that was handed in.

    Args:
        engine: Where.
        job: The work.
        finished: A lock that is free once it is done.
    """

    __slots__ = ("_engine", "_finished", "_job")

    def __init__(self, engine: Engine, job: Job, finished: threading.Lock) -> None:
        self._engine = engine
        self._job = job
        self._finished = finished

    def wait(self) -> None:
        """Wait until all is computed; whoever is interrupted gives the work up.

        Raises:
            ClosedError: The engine was closed meanwhile.
            OutOfMemoryError: A single text does not fit into memory.
            Exception: What the program or the collector raised for these texts.
        """
        try:
            self._finished.acquire()
        except BaseException:
            self.cancel()
            raise
        if self._job.error is not None:
            raise self._job.error

    def cancel(self) -> None:
        """Give the work up; what of it is being computed is thrown away."""
        self._engine._give_up(self._job)


class Engine:
    """Runs one network for all who ask; safe under threads, event loops and forks.

    Short work (a query, a few pairs) goes before long work, and long work advances by at least
    every other batch. A batch that does not fit into memory is computed in halves, and the budget
    stays halved. An error reaches only the callers whose texts raise it.

    Args:
        program: The network with its outputs.
        token_budget: Tokens a batch at most.
        name: Of the model, for errors and the thread's name.
    """

    def __init__(self, program: Program, token_budget: int, name: str) -> None:
        self.program = program
        self.device = program.device
        self.token_budget = token_budget
        self.name = name
        self._process = os.getpid()
        self._seconds_per_token = 0.0
        self._finished_at = 0.0
        self._refusal: M3Error | None = None
        self.after_fork()
        survive_forks(self)
        _engines.add(self)

    def after_fork(self) -> None:
        """Begin anew in a forked child, where neither the thread nor any waiting caller is."""
        self._room = WaitingRoom(SHORT_TOKENS, MAX_WAITING_TOKENS)
        self._room.refusal = self._refusal
        self._thread: threading.Thread | None = None
        self._threads = 0
        self._starting = threading.Lock()
        self._to_host: ToHost | None = None
        self._counts = _Counts()

    def submit(self, work: Work) -> Ticket:
        """Hand in work, waiting for room if too much waits already.

        Args:
            work: The texts.

        Returns:
            A ticket to wait with: the collector has got all results when it lets pass.

        Raises:
            ClosedError: The engine was closed.
            DeviceError: This is a forked child of the process that loaded a model on CUDA.
        """
        self._check_caller()
        finished = threading.Lock()
        finished.acquire()
        job = Job(work, torch.get_num_threads(), lambda _: finished.release())
        ticket = Ticket(self, job, finished)
        if not len(work.tokens.lengths):
            finished.release()
            return ticket
        try:
            while not self._enter(job, finished.release):
                finished.acquire()
        except BaseException:
            ticket.cancel()
            raise
        return ticket

    async def arun(self, work: Work) -> None:
        """Compute work without occupying a thread.

        Args:
            work: The texts; the collector has got all results when this returns.

        Raises:
            Exception: As of ``submit`` and ``Ticket.wait``.
        """
        self._check_caller()
        if not len(work.tokens.lengths):
            return
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[None] = loop.create_future()

        def notify(_: object = None) -> None:
            try:
                loop.call_soon_threadsafe(_resolve, waiting)
            except RuntimeError:
                _log.debug("%s: an event loop was closed before its results came", self.name)

        job = Job(work, torch.get_num_threads(), notify)
        try:
            while not self._enter(job, notify):
                await waiting
                waiting = loop.create_future()
            await waiting
        except BaseException:
            self._give_up(job)
            raise
        if job.error is not None:
            raise job.error

    def stats(self) -> EngineStats:
        """What the engine has done so far.

        Returns:
            A snapshot.
        """
        counts, room = replace(self._counts), self._room
        batches = max(counts.batches, 1)
        return EngineStats(
            requests=room.entered,
            texts=counts.texts,
            tokens=counts.tokens,
            batches=counts.batches,
            requests_per_batch=counts.shares / batches,
            tokens_per_batch=counts.tokens / batches,
            waiting_seconds=counts.waited / max(room.entered, 1),
            waiting_tokens=room.waiting_tokens,
            failed=counts.failed,
            cancelled=counts.cancelled,
        )

    def close(self, error: M3Error | None = None) -> None:
        """Refuse further work, end what waits, and let the thread end after its batch.

        Args:
            error: What callers are told.
        """
        self._refusal = error or ClosedError(f"{self.name!r} was closed: load it again")
        room = self._room
        for job in room.close(self._refusal):
            self._end(job, self._refusal)
        room.wake()
        thread = self._thread
        if thread is not threading.current_thread():
            if thread is not None:
                thread.join()
            # Whoever keeps an error of this engine, or a ticket, shall not keep the weights.
            self.__dict__.pop("program", None)

    def _check_caller(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                f"{self.name!r} was called from a callback of its own engine, which would wait for "
                "itself: call it from the thread that asked"
            )
        if self._process != os.getpid() and self.device.type == "cuda":
            raise DeviceError(
                f"{self.name!r} was loaded on CUDA before this process was forked, and CUDA does "
                "not survive a fork: load the model in the child, or start children with 'spawn'"
            )

    def _enter(self, job: Job, when_free: Any) -> bool:
        entered = self._room.enter(job, when_free)
        if entered and self._thread is None:
            self._start()
        return entered

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                # A thread that held the engine would keep a forgotten model in memory.
                self._thread = threading.Thread(
                    target=_serve,
                    args=(weakref.ref(self), self._room),
                    name=f"m3-engine {self.name}",
                    daemon=True,
                )
                weakref.finalize(self, _forgotten, self._room)
                self._thread.start()

    def _give_up(self, job: Job) -> None:
        self._counts.cancelled += self._room.leave(job, None)

    def _end(self, job: Job, error: BaseException | None) -> None:
        if self._room.leave(job, error):
            self._counts.failed += error is not None
            job.done(job)

    def _advance(self, pending: _Pending | None) -> _Pending | None:
        """Start the next batch, finish the one before it, and return what is on its way."""
        long_budget = self.token_budget
        if self._seconds_per_token:
            aim = int(BATCH_SECONDS / self._seconds_per_token)
            long_budget = min(long_budget, max(aim, LEAST_LONG_TOKENS))
        shares = self._room.take(self.token_budget, long_budget)
        launched = self._launch(shares) if shares else None
        if pending is not None:
            self._finish(pending)
        if shares and launched is None:
            self._retry(shares, last_resort=pending is None)
        if launched is not None and self.device.type != "cuda":
            # Nothing computes beside the host: whoever waits shall not wait for the next batch.
            self._finish(launched)
            return None
        return launched

    def _launch(self, shares: list[Share]) -> _Pending | None:
        """Start computing a batch; ``None`` if memory did not suffice or it was split."""
        failure: Exception | None = None
        try:
            return self._started(shares)
        except Exception as error:  # noqa: BLE001 (it is handed to the callers)
            let_go(error)
            if not is_out_of_memory(error):
                failure = error
        # Only here is nothing left of the failed batch's tensors.
        if failure is None:
            return None
        self._isolate(shares, failure)
        return _Pending([], Arriving([]), 0, 0.0)

    def _started(self, shares: list[Share]) -> _Pending:
        threads = shares[0].job.threads
        if threads != self._threads:
            # torch keeps this for each thread: what a caller sets shall hold for its work.
            torch.set_num_threads(threads)
            self._threads = threads
        began = time.perf_counter()
        batch, asked = pack(shares)
        self._count(batch, shares)
        with torch.inference_mode():
            tasks = [(task, texts) for task, (texts, _) in asked.items()]
            results = self.program.compute(batch, tasks)
            if self._to_host is None:
                self._to_host = ToHost(self.device)
            arriving = self._to_host.start(results)
        owners = [owners for _, owners in asked.values()]
        return _Pending(owners, arriving, len(batch.ids), began)

    def _count(self, batch: PackedBatch, shares: list[Share]) -> None:
        counts, now = self._counts, time.perf_counter()
        counts.batches += 1
        counts.texts += len(batch.offsets) - 1
        counts.tokens += len(batch.ids)
        counts.shares += len(shares)
        for share in shares:
            if not share.job.has_begun:
                counts.waited += now - share.job.arrived

    def _measure(self, pending: _Pending) -> None:
        """Learn how long a token takes, from batches that are long enough to tell."""
        now = time.perf_counter()
        began, self._finished_at = max(pending.began, self._finished_at), now
        if pending.tokens >= LEAST_LONG_TOKENS // 2:
            each = (now - began) / pending.tokens
            known = self._seconds_per_token or each
            self._seconds_per_token = known + (each - known) / 4

    def _finish(self, pending: _Pending) -> None:
        try:
            arrays = pending.results.arrays()
        except Exception as error:  # noqa: BLE001 (a kernel that failed; handed to the callers)
            for share in (one for owners in pending.shares for one in owners):
                self._end(share.job, error)
            return
        self._measure(pending)
        for owners, results in zip(pending.shares, arrays, strict=True):
            for share in owners:
                self._hand_over(share, results)

    def _hand_over(self, share: Share, results: dict[str, NDArray[Any]]) -> None:
        job = share.job
        if job.is_over:
            return
        try:
            job.work.collector.add(results, share.places, share.rows)
            if job.work.progress is not None:
                job.work.progress(len(share.rows))
        except BaseException as error:  # noqa: BLE001 (handed to the caller)
            let_go(error)
            self._end(job, error)
            return
        job.left -= len(share.rows)
        if not job.left:
            self._end(job, None)

    def _isolate(self, shares: list[Share], error: Exception) -> None:
        """Compute each job of a failed batch alone, so that only those at fault fail."""
        if len(shares) == 1:
            self._end(shares[0].job, error)
            return
        for share in shares:
            alone = self._launch([share])
            if alone is None:
                # Not the last resort: the batch before this one may still be on the device.
                self._retry([share], last_resort=False)
            else:
                self._finish(alone)

    def _retry(self, shares: list[Share], *, last_resort: bool) -> None:
        """Hand a batch out again that did not fit into memory, in smaller parts."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        tokens = [int(s.job.work.tokens.lengths[s.rows].sum()) for s in shares]
        if len(shares) == 1 and len(shares[0].rows) == 1 and last_resort:
            row = int(shares[0].rows[0])
            error = OutOfMemoryError(
                f"text {row} of {tokens[0]} tokens does not fit into the memory of "
                f"{self.device} even alone: pass a smaller max_length or split the text"
            )
            self._end(shares[0].job, error)
            return
        self.token_budget = max(min(self.token_budget, sum(tokens)) // 2, 1)
        _log.warning(
            "%s: a batch of %d tokens did not fit into the memory of %s; batches have %d tokens at "
            "most from now on",
            self.name,
            sum(tokens),
            self.device,
            self.token_budget,
        )
        self._room.put_back(shares)


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _serve(engine_ref: weakref.ref[Engine], room: WaitingRoom) -> None:
    pending: _Pending | None = None
    while True:
        if pending is None:
            room.wait()
        engine = engine_ref()
        if engine is None or (room.refusal is not None and pending is None):
            return
        try:
            pending = engine._advance(pending)
        except BaseException as error:
            # A fault of the engine itself: whoever waits is told rather than left waiting.
            _log.exception("the engine of %s failed", engine.name)
            for job in room.close(ClosedError(f"the engine of {engine.name!r} failed: {error!r}")):
                engine._end(job, room.refusal)
            raise
        del engine


def _forgotten(room: WaitingRoom) -> None:
    room.refusal = ClosedError("the model is no longer in use")
    room.wake()


def _resolve(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


@atexit.register
def _stop_all() -> None:
    # A thread inside torch while the interpreter is taken down ends the process with a crash.
    for engine in list(_engines):
        engine.close(ClosedError("the interpreter is exiting"))
