"""Where work waits for the engine: two lanes, in order of arrival, of bounded length.

Callers hold no lock here. A signal handler, a finaliser or the garbage collector may run between
any two steps of a thread and ask, cancel or close in it again, which would wait for itself. So
callers do single steps on containers that are safe by themselves, and the lanes belong to the
engine's thread.
"""

from __future__ import annotations

import threading
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from m3_core.network.batches import Share
from m3_core.network.failures import another

if TYPE_CHECKING:
    from m3_core.errors import M3Error
    from m3_core.network.batches import Job


# So many batches of long work are cut for short work's sake after some has come.
CAREFUL_BATCHES = 100


class Lane:
    """Jobs in the order in which they get their turn.

    Args:
        takes_turns: A job that was not handed out wholly goes behind the others.

    Attributes:
        jobs: What was not handed out wholly; of the engine's thread.
        living: Jobs that were let in and are not over.
        outside: Jobs that have no room yet, in order; callers append, the engine's thread takes.
    """

    __slots__ = ("jobs", "living", "outside", "takes_turns")

    def __init__(self, *, takes_turns: bool) -> None:
        self.takes_turns = takes_turns
        self.jobs: deque[Job] = deque()
        self.living: dict[Job, None] = {}
        self.outside: deque[Job] = deque()

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
            if job.is_over:
                continue
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
            if job.has_waiting:
                if self.takes_turns and len(rows):
                    self.jobs.append(job)
                else:
                    self.jobs.appendleft(job)
                break
        self.jobs.extendleft(reversed(others))
        return shares


class WaitingRoom:
    """All work that waits for one engine; safe under threads, signals and in finalisers.

    Args:
        short_tokens: Work of so many tokens at most goes before longer work.
        max_tokens: Waiting tokens of a lane at most, short jobs counted as ``short_tokens`` each;
            a single job may have more.

    Attributes:
        refusal: Why no more work is taken, once it is not.
        entered: Jobs that were let in so far.
        thread: The engine's thread, once it runs.
    """

    def __init__(self, short_tokens: int, max_tokens: int) -> None:
        self.short_tokens = short_tokens
        self.max_tokens = max_tokens
        self.refusal: M3Error | None = None
        self.entered = 0
        self.thread: threading.Thread | None = None
        self._short, self._long = Lane(takes_turns=False), Lane(takes_turns=True)
        self._long_is_next = False
        self._careful_batches = 0
        self._arriving: SimpleQueue[Job | None] = SimpleQueue()
        self._claims = [True]

    @property
    def waiting_tokens(self) -> int:
        """Tokens that were let in and not handed out yet."""
        living = [*list(self._short.living), *list(self._long.living)]
        return sum(job.waiting_tokens for job in living)

    # What follows is for callers, in any thread.

    def enter(self, job: Job) -> None:
        """Let a job wait, behind those that wait for room if there is none.

        Args:
            job: The job; its ``let_in`` is called as soon as there is room.
        """
        lane = self._lane(job)
        if lane.outside or self._is_full(lane, job):
            lane.outside.append(job)
            # Room may have come meanwhile.
            self._arriving.put(None)
        else:
            lane.living[job] = None
            self._arriving.put(job)
            job.may_enter()

    def forget(self, job: Job) -> None:
        """Let go of a job that has ended, once whoever waits for it was told.

        Not before: what an interrupt or a fork comes between is still there for ``end_all``.

        Args:
            job: The job.
        """
        self._lane(job).living.pop(job, None)

    def end_all(self, refusal: M3Error) -> None:
        """Take no further work, and end all jobs; who waits is told, perhaps once more.

        Args:
            refusal: What callers are told.
        """
        self.refusal = refusal
        for job in self._jobs():
            job.end(another(refusal))
            job.tell()
            self.forget(job)

    def refuse(self, refusal: M3Error) -> None:
        """Take no further work.

        Args:
            refusal: What callers are told.
        """
        self.refusal = refusal
        self._arriving.put(None)

    def present(self) -> list[Job]:
        """All jobs that are not over, let in or not."""
        return [job for job in self._jobs() if not job.is_over]

    def _jobs(self) -> list[Job]:
        lanes = (self._short, self._long)
        return [job for lane in lanes for job in [*list(lane.living), *list(lane.outside)]]

    # What follows is for the engine's thread.

    def claim(self) -> bool:
        """Make the calling thread the engine's thread; only the first succeeds."""
        try:
            self._claims.pop()
        except IndexError:
            return False
        self.thread = threading.current_thread()
        return True

    def wait(self) -> None:
        """Wait until there is work, or no more is taken."""
        self._gather()
        while not (self._short.jobs or self._long.jobs or self.refusal):
            self._sit_down(self._arriving.get())
            self._gather()

    def take(self, budget: int, careful_budget: int) -> list[Share]:
        """Hand out the next batch's texts.

        Short work goes first; long work has at least every other batch. For some batches after
        short work found long work waiting, long work is cut smaller; without short work its
        batches, and so its results to the last bit, do not depend on time.

        Args:
            budget: Tokens at most.
            careful_budget: Tokens of long work at most, where short work may come.

        Returns:
            Texts of one group; none if nothing waits.
        """
        self._gather()
        if self._long.jobs and (self._long_is_next or not self._short.jobs):
            self._long_is_next = False
            if not self._careful_batches:
                return self._long.take(budget)
            self._careful_batches -= 1
            return self._long.take(careful_budget)
        self._long_is_next = bool(self._long.jobs)
        if self._long_is_next:
            self._careful_batches = CAREFUL_BATCHES
        return self._short.take(budget)

    def put_back(self, shares: list[Share]) -> None:
        """Take back what was handed out last.

        Args:
            shares: As ``take`` gave them.
        """
        for share in reversed(shares):
            job = share.job
            if job.is_over:
                continue
            jobs = self._lane(job).jobs
            if job.has_waiting:
                jobs.remove(job)
            job.put_back(share.rows)
            jobs.appendleft(job)

    def _gather(self) -> None:
        """Let in what arrived, then what waits for room."""
        try:
            while True:
                self._sit_down(self._arriving.get_nowait())
        except Empty:
            pass
        for lane in (self._short, self._long):
            if len(lane.jobs) > 2 * len(lane.living) + 64:
                # Most were given up: let go of their texts now.
                lane.jobs = deque(job for job in lane.jobs if not job.is_over)
            while lane.outside:
                job = lane.outside[0]
                if not job.is_over and self._is_full(lane, job):
                    break
                # In this order, so that the job is always in one of them.
                lane.living[job] = None
                lane.outside.popleft()
                if job.is_over:
                    lane.living.pop(job, None)
                else:
                    self._sit_down(job)
                    job.may_enter()

    def _sit_down(self, job: Job | None) -> None:
        if job is not None:
            self._lane(job).jobs.append(job)
            self.entered += 1

    def _is_full(self, lane: Lane, job: Job) -> bool:
        living = list(lane.living) if lane is self._long else lane.living
        if not living:
            return False
        if lane is self._short:
            return (len(living) + 1) * self.short_tokens > self.max_tokens
        waiting = sum(other.waiting_tokens for other in living)
        return waiting > 0 and waiting + job.num_tokens > self.max_tokens

    def _lane(self, job: Job) -> Lane:
        return self._short if job.num_tokens <= self.short_tokens else self._long
