"""The only thing that runs a network: work of all threads and event loops, in common batches.

Whoever calls hands in tokenised texts and waits. One thread fills batches from all that waits,
without a timer: an idle engine starts at once, a busy one finds what has gathered meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch

from m3_core.errors import ClosedError, DeviceError, OutOfMemoryError
from m3_core.forks import survive_forks
from m3_core.network.batches import Job, pack
from m3_core.network.engine_threads import ends_with_the_interpreter, start_thread
from m3_core.network.failures import another, freed
from m3_core.network.memory import TokenBudget, is_out_of_memory
from m3_core.network.pace import Pace
from m3_core.network.processor import processor
from m3_core.network.ticket import Counts, EngineStats, Ticket, unlock
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
# Beside short work, long work is cut into batches of about this time: a query waits for one.
BATCH_SECONDS = 0.1
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


@dataclass(slots=True)
class Pending:
    """A batch that is being computed, or whose results are on their way to the host."""

    shares: list[list[Share]]
    results: Arriving
    tokens: int
    began: float


class Engine:
    """Runs one network for all who ask; safe under threads, event loops and forks.

    Short work (a query, a few pairs) goes before long work, and long work advances by at least
    every other batch. A batch that does not fit into memory is computed in halves, and so are those
    after it, until enough of them have fitted to try larger ones. An error reaches only the callers
    whose texts raise it.

    Args:
        program: The network with its outputs.
        token_budget: Tokens a batch at most.
        name: Of the model, for errors and the thread's name.
    """

    def __init__(self, program: Program, token_budget: int, name: str) -> None:
        self.program = program
        self.device = program.device
        self.budget = TokenBudget(token_budget)
        self.name = name
        self._process = os.getpid()
        self._pace = Pace(self.device, BATCH_SECONDS, LEAST_LONG_TOKENS)
        self._refusal: M3Error | None = None
        self.after_fork()
        survive_forks(self)
        ends_with_the_interpreter(self)

    def after_fork(self) -> None:
        """Begin anew in a forked child, where neither the thread nor any waiting caller is."""
        left: WaitingRoom | None = getattr(self, "_room", None)
        self._room = WaitingRoom(SHORT_TOKENS, MAX_WAITING_TOKENS)
        self._room.refusal = self._refusal
        self._to_host: ToHost | None = None
        self._counts = Counts()
        if left is not None:
            # Also whoever was about to enter when the process was forked.
            left.end_all(
                ClosedError(
                    f"the process was forked while {self.name!r} computed this: ask again in the "
                    "child"
                )
            )

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
        finished, let_in = threading.Lock(), threading.Lock()
        finished.acquire()
        let_in.acquire()
        job = Job(work, torch.get_num_threads(), partial(unlock, finished), partial(unlock, let_in))
        ticket = Ticket(self, job, finished)
        if not len(work.tokens.lengths):
            job.end(None)
            job.tell()
            return ticket
        try:
            self._enter(job)
            let_in.acquire()
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

        def notify() -> None:
            try:
                loop.call_soon_threadsafe(_resolve, waiting)
            except Exception:  # noqa: BLE001 (what is raised here would end the engine)
                # A loop that was closed, or one of another kind that cannot be called either.
                _log.debug("%s: an event loop did not take its results", self.name, exc_info=True)

        job = Job(work, torch.get_num_threads(), notify)
        try:
            self._enter(job)
            await waiting
        except BaseException:
            self._give_up(job)
            raise
        error = job.take_error()
        if error is not None:
            try:
                raise error
            finally:
                # The error's traceback holds this frame.
                del error

    def stats(self) -> EngineStats:
        """What the engine has done so far.

        Returns:
            A snapshot.
        """
        room = self._room
        return self._counts.summary(room.entered, room.waiting_tokens)

    def close(self, error: M3Error | None = None) -> None:
        """Refuse further work, end what waits, and let the thread end after its batch.

        Args:
            error: What callers are told.
        """
        self._refusal = error or ClosedError(f"{self.name!r} was closed: load it again")
        room = self._room
        room.refuse(self._refusal)
        for job in room.present():
            if job.has_waiting:
                self._end(job, another(self._refusal))
        thread = room.thread
        if not self._is_here:
            if thread is not None:
                thread.join()
            # Whoever keeps an error of this engine, or a ticket, shall not keep the weights.
            self.__dict__.pop("program", None)

    @property
    def _is_here(self) -> bool:
        """Whether the calling thread is one for which the engine waits."""
        on_processor = self.device.type == "cpu" and processor.is_here
        return on_processor or threading.current_thread() is self._room.thread

    def _check_caller(self) -> None:
        if self._is_here:
            raise RuntimeError(
                f"{self.name!r} was called from a callback of its own engine, which would wait for "
                "itself: call it from the thread that asked"
            )
        if self._process != os.getpid() and self.device.type == "cuda":
            raise DeviceError(
                f"{self.name!r} was loaded on CUDA before this process was forked, and CUDA does "
                "not survive a fork: load the model in the child, or start children with 'spawn'"
            )

    def _enter(self, job: Job) -> None:
        room = self._room
        if room.refusal is not None:
            raise another(room.refusal)
        room.enter(job)
        if room.thread is None:
            start_thread(self, room)
        if room.refusal is not None and job.has_waiting:
            # It was closed meanwhile, perhaps before this job could be seen.
            self._end(job, another(room.refusal))

    def _give_up(self, job: Job) -> None:
        if job.end(None):
            self._counts.cancelled += 1
        self._room.forget(job)

    def _end(self, job: Job, error: BaseException | None) -> None:
        if job.end(error):
            if error is not None:
                self._counts.failed += 1
            job.tell()
        self._room.forget(job)

    def advance(self, pending: Pending | None) -> Pending | None:
        """Start the next batch and finish the one before it; for the engine's thread alone.

        Args:
            pending: What is on its way.

        Returns:
            What is on its way now.
        """
        most = self.budget.tokens
        shares = self._room.take(most, self._pace.tokens(most))
        launched = self._launch(shares) if shares else None
        if pending is not None:
            self._finish(pending)
        if isinstance(launched, BaseException):
            self._recover(shares, launched, last_resort=pending is None)
            # The error's traceback leads to this frame: it shall not keep others' texts.
            shares.clear()
            del launched
            return None
        if launched is not None and self.device.type != "cuda":
            # Nothing computes beside the host: whoever waits shall not wait for the next batch.
            self._finish(launched)
            return None
        return launched

    def _launch(self, shares: list[Share]) -> Pending | BaseException:
        """Start computing a batch, or say why that failed."""
        try:
            return self._started(shares)
        except BaseException as error:  # noqa: BLE001 (it is handed to the callers)
            return freed(error)

    def _recover(self, shares: list[Share], error: BaseException, *, last_resort: bool) -> None:
        """Compute each job of a failed batch alone, so that only those at fault fail."""
        if is_out_of_memory(error):
            self._retry(shares, last_resort=last_resort)
            return
        if len(shares) == 1:
            self._end(shares[0].job, error)
            return
        for part in [[share] for share in shares]:
            if part[0].job.is_over:
                continue
            alone = self._launch(part)
            if isinstance(alone, BaseException):
                self._recover(part, alone, last_resort=True)
            else:
                self._finish(alone)
            part.clear()
            del alone

    def _started(self, shares: list[Share]) -> Pending:
        began = time.perf_counter()
        batch, asked = pack(shares)
        tasks = [(task, texts) for task, (texts, _) in asked.items()]
        threads = shares[0].job.threads

        def compute() -> Arriving:
            with torch.inference_mode():
                results = self.program.compute(batch, tasks)
                if self._to_host is None:
                    self._to_host = ToHost(self.device)
                return self._to_host.start(results)

        # What computes elsewhere is only started here, by each engine's own thread.
        arriving = processor.run(compute, threads) if self.device.type == "cpu" else compute()
        self._counts.add(batch, shares, began)
        owners = [owners for _, owners in asked.values()]
        return Pending(owners, arriving, len(batch.ids), began)

    def _finish(self, pending: Pending) -> None:
        try:
            arrays = pending.results.arrays()
        except Exception as error:  # noqa: BLE001 (a kernel that failed; handed to the callers)
            for share in (one for owners in pending.shares for one in owners):
                self._end(share.job, another(error))
            return
        tokens, most = pending.tokens, self.budget.tokens
        self._pace.learn(tokens, pending.began, time.perf_counter(), most)
        if self.budget.fitted(tokens):
            _log.info("%s: batches have %d tokens at most again", self.name, self.budget.tokens)
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
            self._end(job, freed(error))
            return
        job.left -= len(share.rows)
        if not job.left:
            self._end(job, None)

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
        self.budget.halve(sum(tokens))
        _log.warning(
            "%s: a batch of %d tokens did not fit into the memory of %s; batches have %d tokens at "
            "most for now",
            self.name,
            sum(tokens),
            self.device,
            self.budget.tokens,
        )
        self._room.put_back(shares)


def _resolve(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
