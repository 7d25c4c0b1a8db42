"""What callers of the engine hold and see: tickets for their work, and statistics."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from m3_core.network.batches import Job, PackedBatch, Share
    from m3_core.network.engine import Engine


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
class Counts:
    """What the statistics are made of."""

    texts: int = 0
    tokens: int = 0
    batches: int = 0
    shares: int = 0
    waited: float = 0.0
    failed: int = 0
    cancelled: int = 0

    def add(self, batch: PackedBatch, shares: Sequence[Share], began: float) -> None:
        """Count a batch that was computed.

        Args:
            batch: The batch.
            shares: Whose texts it holds.
            began: When it was started.
        """
        self.batches += 1
        self.texts += len(batch.offsets) - 1
        self.tokens += len(batch.ids)
        self.shares += len(shares)
        for share in shares:
            self.waited += share.job.waited(began)

    def summary(self, requests: int, waiting_tokens: int) -> EngineStats:
        """Make statistics of what was counted.

        Args:
            requests: Calls that were handed in.
            waiting_tokens: Tokens that wait now.

        Returns:
            A snapshot.
        """
        batches = max(self.batches, 1)
        return EngineStats(
            requests=requests,
            texts=self.texts,
            tokens=self.tokens,
            batches=self.batches,
            requests_per_batch=self.shares / batches,
            tokens_per_batch=self.tokens / batches,
            waiting_seconds=self.waited / max(requests, 1),
            waiting_tokens=waiting_tokens,
            failed=self.failed,
            cancelled=self.cancelled,
        )


def unlock(lock: threading.Lock) -> None:
    """Let go of a lock, whoever holds it; what is free stays so."""
    with suppress(RuntimeError):
        lock.release()


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
        """Wait until all is computed; whoever is interrupted gives the work up. Once only.

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
        unlock(self._finished)
        error = self._job.take_error()
        if error is not None:
            try:
                raise error
            finally:
                # The error's traceback holds this frame.
                del error, self

    def cancel(self) -> None:
        """Give the work up; what of it is being computed is thrown away."""
        self._engine._give_up(self._job)
