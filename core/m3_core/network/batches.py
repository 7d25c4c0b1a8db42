"""Work that waits for the network, and the packed batches that are made of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from m3_core.forks import computed_once
from m3_core.representations import ragged_positions

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from numpy.typing import NDArray

    from m3_core.network.tokens import TokenBatch


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Texts laid one after another without padding, the longest first.

    Attributes:
        ids: Token ids. Shape: (tokens,). Dtype: int32.
        offsets: Text i is ``ids[offsets[i]:offsets[i + 1]]``. Shape: (texts + 1,). Dtype: int64.
        documents: Of pairs: where in its pair each document begins and ends.
            Shape: (texts, 2). Dtype: int64. ``None`` for single texts.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    documents: NDArray[np.int64] | None = None

    @computed_once
    def lengths(self) -> NDArray[np.int64]:
        """Tokens a text. Shape: (texts,)."""
        return np.diff(self.offsets)

    @computed_once
    def groups(self) -> list[tuple[int, int, int]]:
        """Runs of texts of equal length as (first token, number of texts, their length)."""
        lengths = self.lengths
        starts = np.flatnonzero(np.diff(lengths, prepend=-1))
        counts = np.diff(starts, append=len(lengths))
        return [
            (int(self.offsets[start]), int(count), int(lengths[start]))
            for start, count in zip(starts, counts, strict=True)
        ]

    def take(self, texts: NDArray[np.int64]) -> tuple[PackedBatch, NDArray[np.int64] | None]:
        """Give some of the texts as a batch of their own.

        Args:
            texts: Which of them. Shape: (n,). Dtype: int64.

        Returns:
            The batch, and the positions of its tokens in this one; ``None`` for all of them.
        """
        if len(texts) == len(self.offsets) - 1 and (np.diff(texts) == 1).all():
            return self, None
        positions, offsets = ragged_positions(self.offsets, texts)
        documents = None if self.documents is None else self.documents[texts]
        return PackedBatch(self.ids[positions], offsets, documents), positions


class Collector(Protocol):
    """Takes the results of a caller's texts, some at a time."""

    def add(
        self,
        results: Mapping[str, NDArray[Any]],
        places: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> None:
        """Take results.

        Args:
            results: What the program computed, of the caller's texts and of others'.
            places: Which of the results are the caller's. Shape: (texts,).
            rows: Which of the caller's texts these are. Shape: (texts,).

        Raises:
            Exception: A result cannot be used; the caller gets the error, others do not.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """Tokenised texts, and what to compute of them.

    Attributes:
        tokens: The texts.
        task: Of equal tasks the results are computed together.
        collector: Takes the results.
        group: Only work of equal groups shares a forward pass.
        documents: As of ``PackedBatch``.
        progress: Called with the number of texts each time some are done.
    """

    tokens: TokenBatch
    task: Hashable
    collector: Collector
    group: Hashable = None
    documents: NDArray[np.int64] | None = None
    progress: Callable[[int], object] | None = None


class Job:
    """Work on its way through the engine: what of it was handed out, what is done.

    Args:
        work: The work, of at least one text.
        threads: Threads that torch shall compute it with.
        done: Called by ``tell``, in whatever thread ends the work; perhaps more than once.
        let_in: Called when there is room for it, by ``tell`` at the latest; perhaps more than once.
    """

    __slots__ = (
        "_arrived",
        "_done",
        "_ends",
        "_let_in",
        "_next",
        "_order",
        "_outcome",
        "left",
        "num_tokens",
        "threads",
        "work",
    )

    def __init__(
        self,
        work: Work,
        threads: int,
        done: Callable[[], object],
        let_in: Callable[[], object] | None = None,
    ) -> None:
        self.work = work
        self.threads = threads
        self._done = done
        self._let_in = let_in
        self._outcome: dict[str, list[BaseException | None]] = {}
        self._arrived: float | None = time.perf_counter()
        lengths = work.tokens.lengths
        self.left = len(lengths)
        self._order = np.argsort(-lengths, kind="stable")
        self._ends = np.cumsum(lengths[self._order])
        self._next = 0
        self.num_tokens = int(lengths.sum())

    @property
    def has_waiting(self) -> bool:
        """Whether any of its texts was not handed out yet."""
        return self._next < len(self._order)

    @property
    def is_over(self) -> bool:
        """Whether it is done, failed or given up."""
        return bool(self._outcome)

    @property
    def waiting_tokens(self) -> int:
        """Tokens of the texts that were not handed out yet; 0 when it is over."""
        handed_out = self._next
        if self._outcome:
            return 0
        return self.num_tokens - (int(self._ends[handed_out - 1]) if handed_out else 0)

    def waited(self, until: float) -> float:
        """Say for how long it waited; once.

        Args:
            until: When the first of its texts were computed, by ``time.perf_counter``.

        Returns:
            Seconds since it was made; 0 if that was said before.
        """
        arrived, self._arrived = self._arrived, None
        return 0.0 if arrived is None else until - arrived

    def take(self, budget: int) -> NDArray[np.int64]:
        """Hand out the next texts, the longest first: as many as fit the budget.

        Args:
            budget: Tokens at most.

        Returns:
            Which of the caller's texts these are; empty if not even the next one fits.
        """
        start = self._next
        before = int(self._ends[start - 1]) if start else 0
        self._next = int(np.searchsorted(self._ends, before + budget, side="right"))
        return self._order[start : self._next]

    def take_one(self) -> NDArray[np.int64]:
        """Hand out the next text, whatever its length."""
        self._next += 1
        return self._order[self._next - 1 : self._next]

    def put_back(self, rows: NDArray[np.int64]) -> None:
        """Take back the texts that were handed out last."""
        self._next -= len(rows)

    def end(self, error: BaseException | None) -> bool:
        """Mark it as done, failed or given up; of all who try only the first succeeds.

        Args:
            error: Why it failed, if it did.

        Returns:
            False if it had ended already.
        """
        # One step that no signal, finaliser, fork or thread can come between; of equal errors, as
        # ``None`` and ``None`` are, a list of its own says whose came first.
        own = [error]
        return self._outcome.setdefault("ended", own) is own

    def take_error(self) -> BaseException | None:
        """Give away the error with which it ended, if it did."""
        outcome = self._outcome["ended"]
        error, outcome[0] = outcome[0], None
        return error

    def may_enter(self) -> None:
        """Tell whoever waits for room that there is some."""
        if self._let_in is not None:
            self._let_in()

    def tell(self) -> None:
        """Tell whoever waits for it that it has ended."""
        self.may_enter()
        self._done()


@dataclass(slots=True, eq=False)
class Share:
    """Texts of one job within a batch.

    Attributes:
        job: The job.
        rows: Which of the caller's texts these are.
        places: Which results of its task are theirs; set when the batch is packed.
    """

    job: Job
    rows: NDArray[np.int64]
    places: NDArray[np.int64]


def pack(
    shares: Sequence[Share],
) -> tuple[PackedBatch, dict[Hashable, tuple[NDArray[np.int64], list[Share]]]]:
    """Lay the texts of several jobs into one batch.

    Args:
        shares: Texts of jobs of one group; their ``places`` are set.

    Returns:
        The batch, and by task which of its texts ask for it, and whose these are.
    """
    parts = [_taken(share) for share in shares]
    ids = np.concatenate([part[0] for part in parts])
    lengths = np.concatenate([part[1] for part in parts])
    documents = None
    if shares[0].job.work.documents is not None:
        documents = np.concatenate([s.job.work.documents[s.rows] for s in shares])  # type: ignore[index]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    batch = PackedBatch(ids, offsets, documents)
    place = np.arange(len(lengths))
    if (np.diff(lengths) > 0).any():
        # Equal lengths side by side attend together.
        order = np.argsort(-lengths, kind="stable")
        batch, _ = batch.take(order)
        place[order] = np.arange(len(order))
    asked: dict[Hashable, tuple[list[NDArray[np.int64]], list[Share]]] = {}
    start = 0
    for share in shares:
        texts, sharing = asked.setdefault(share.job.work.task, ([], []))
        share.places = place[start : start + len(share.rows)]
        texts.append(share.places)
        sharing.append(share)
        start += len(share.rows)
    return batch, {task: _numbered(texts, sharing) for task, (texts, sharing) in asked.items()}


def _taken(share: Share) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    tokens = share.job.work.tokens
    if len(tokens.offsets) == 2:
        return tokens.ids, np.diff(tokens.offsets)
    positions, offsets = ragged_positions(tokens.offsets, share.rows)
    return tokens.ids[positions], np.diff(offsets)


def _numbered(
    texts: list[NDArray[np.int64]], shares: list[Share]
) -> tuple[NDArray[np.int64], list[Share]]:
    """All texts of a task in the batch's order, and each share's places among them."""
    together = np.sort(np.concatenate(texts))
    for share in shares:
        share.places = np.searchsorted(together, share.places)
    return together, shares
