"""Where work waits for the engine: two lanes, in order of arrival, of bounded length."""

from __future__ import annotations

import threading
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from m3_core.network.batches import Share

if TYPE_CHECKING:
    from collections.abc import Callable

    from m3_core.errors import M3Error
    from m3_core.network.batches import Job


class Lane:
    """Jobs in the order in which they get their turn.

    Args:
        takes_turns: A job that was not handed out wholly goes behind the others.

    Attributes:
        jobs: The jobs.
        tokens: What of them was not handed out yet.
    """

    __slots__ = ("jobs", "takes_turns", "tokens")

    def __init__(self, *, takes_turns: bool) -> None:
        self.takes_turns = takes_turns
        self.jobs: deque[Job] = deque()
        self.tokens = 0

    def take(self, budget: int) -> list[Share]:
        """Hand out the next texts of jobs that may share a forward pass.

        Args:
            budget: Tokens at most, unless a single text has more.

        Returns:
            At least one text, unless nothing waits.
        """
        shares: list[Share] = []
        others: list[Job] = []
        left = budget
        while self.jobs and left > 0:
            job = self.jobs.popleft()
            if shares and job.work.group != shares[0].job.work.group:
                others.append(job)
                continue
            before = job.waiting_tokens
            rows = job.take(left)
            if not len(rows) and not shares:
                rows = job.take_one()
            if len(rows):
                shares.append(Share(job, rows, rows))
            left -= before - job.waiting_tokens
            if job.waiting_tokens:
                if self.takes_turns and len(rows):
                    self.jobs.append(job)
                else:
                    self.jobs.appendleft(job)
                break
        self.tokens -= budget - left
        self.jobs.extendleft(reversed(others))
        return shares


class WaitingRoom:
    """All work that waits for one engine; safe under threads, signals and in finalisers.

    Only locks and queues implemented in C are held here: Python's own conditions can be left
    locked by a signal that arrives at the wrong moment.

    Args:
        short_tokens: Work of so many tokens at most goes before longer work.
        max_tokens: Waiting tokens of a lane at most; a single job may have more.

    Attributes:
        refusal: Why no more work is taken, once it is not.
        entered: Jobs that were let in so far.
    """

    def __init__(self, short_tokens: int, max_tokens: int) -> None:
        self.short_tokens = short_tokens
        self.max_tokens = max_tokens
        self.refusal: M3Error | None = None
        self._lock = threading.Lock()
        self.entered = 0
        self._short, self._long = Lane(takes_turns=False), Lane(takes_turns=True)
        self._long_is_next = False
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._outside: deque[Callable[[], object]] = deque()

    @property
    def waiting_tokens(self) -> int:
        """Tokens that were not handed out yet."""
        return self._short.tokens + self._long.tokens

    def enter(self, job: Job, when_free: Callable[[], object]) -> bool:
        """Let a job wait, if there is room.

        Args:
            job: The job.
            when_free: Called once if there is none, when it is worth another try.

        Returns:
            Whether it waits now.

        Raises:
            M3Error: The engine was closed.
        """
        with self._lock:
            if self.refusal is not None:
                raise self.refusal
            lane = self._lane(job)
            if lane.tokens and lane.tokens + job.num_tokens > self.max_tokens:
                self._outside.append(when_free)
                return False
            lane.jobs.append(job)
            lane.tokens += job.num_tokens
            self.entered += 1
        self._wake.put(None)
        return True

    def wait(self) -> None:
        """Wait until there is work, or the engine was closed."""
        while not (self.waiting_tokens or self.refusal):
            self._wake.get()
        try:
            while True:
                self._wake.get_nowait()
        except Empty:
            pass

    def wake(self) -> None:
        """Have ``wait`` look again."""
        self._wake.put(None)

    def take(self, budget: int, long_budget: int) -> list[Share]:
        """Hand out the next batch's texts.

        Short work goes first; long work has at least every other batch.

        Args:
            budget: Tokens at most.
            long_budget: Tokens of long work at most.

        Returns:
            Texts of one group; none if nothing waits.
        """
        with self._lock:
            has_short = self._short.tokens > 0
            if self._long.tokens and (self._long_is_next or not has_short):
                self._long_is_next = False
                shares = self._long.take(long_budget)
            else:
                self._long_is_next = self._long.tokens > 0
                shares = self._short.take(budget)
            outside, self._outside = self._outside, deque()
        for call in outside:
            call()
        return shares

    def put_back(self, shares: list[Share]) -> None:
        """Take back what was handed out last.

        Args:
            shares: As ``take`` gave them.
        """
        with self._lock:
            for share in reversed(shares):
                job = share.job
                if job.is_over:
                    continue
                before = job.waiting_tokens
                job.put_back(share.rows)
                lane = self._lane(job)
                lane.tokens += job.waiting_tokens - before
                if before and job in lane.jobs:
                    lane.jobs.remove(job)
                lane.jobs.appendleft(job)

    def leave(self, job: Job, error: BaseException | None) -> bool:
        """End a job: done, failed or given up.

        Args:
            job: The job.
            error: Why it failed, if it did.

        Returns:
            False if it had ended already.
        """
        with self._lock:
            if job.is_over:
                return False
            job.is_over, job.error = True, error
            lane = self._lane(job)
            if job.waiting_tokens and job in lane.jobs:
                lane.tokens -= job.waiting_tokens
                lane.jobs.remove(job)
        return True

    def close(self, refusal: M3Error) -> list[Job]:
        """Refuse further work.

        Args:
            refusal: What callers are told.

        Returns:
            What waited; to be ended by the caller.
        """
        with self._lock:
            self.refusal = refusal
            jobs = [*self._short.jobs, *self._long.jobs]
            outside, self._outside = self._outside, deque()
        for call in outside:
            call()
        return jobs

    def _lane(self, job: Job) -> Lane:
        return self._short if job.num_tokens <= self.short_tokens else self._long
