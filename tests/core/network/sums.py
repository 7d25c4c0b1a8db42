"""A program of a few lines for the engine, and work for it."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import torch

from m3_core.network.batches import Work
from m3_core.network.engine import SHORT_TOKENS, Engine
from m3_core.network.tokens import TokenBatch

LONG = SHORT_TOKENS + 1


class Sums:
    """The sum of each text's token ids, and of each its task: with hooks for trouble."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.batches: list[list[int]] = []
        self.before = lambda batch: None

    def compute(self, batch, tasks):
        self.batches.append(batch.lengths.tolist())
        self.before(batch)
        sums = torch.from_numpy(np.add.reduceat(batch.ids.astype(np.int64), batch.offsets[:-1]))
        return [{"sums": sums[torch.from_numpy(texts)] * factor} for factor, texts in tasks]


class Kept:
    def __init__(self, count: int) -> None:
        self.sums = np.zeros(count, np.int64)
        self.times = 0

    def add(self, results, places, rows) -> None:
        if (results["sums"][places] == -1).any():
            raise ArithmeticError("a text gave -1")
        self.sums[rows] = results["sums"][places]
        self.times += 1


def work_of(*texts: list[int], task: int = 1, group: object = None) -> Work:
    ids = np.array([token for text in texts for token in text], np.int32)
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    tokens = TokenBatch(ids, offsets, np.zeros(len(texts), bool))
    return Work(tokens, task, Kept(len(texts)), group=group)


def expected(work: Work) -> list[int]:
    tokens = work.tokens
    pairs = zip(tokens.offsets, tokens.offsets[1:], strict=False)
    return [int(tokens.ids[a:b].sum()) * work.task for a, b in pairs]


def done(work: Work) -> bool:
    return work.collector.sums.tolist() == expected(work)


class Gate:
    """Holds the engine in its first batch until it is opened."""

    def __init__(self, program: Sums) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self.error: Exception | None = None
        program.before = self

    def __call__(self, _) -> None:
        if not self.open.is_set():
            self.reached.set()
            assert self.open.wait(60)
            if self.error is not None:
                raise self.error


def held(engine: Engine, program: Sums) -> tuple[Gate, threading.Thread]:
    """An engine that is busy with a batch of one text."""
    gate = Gate(program)
    thread = threading.Thread(target=lambda: engine.submit(work_of([7])).wait())
    thread.start()
    assert gate.reached.wait(60)
    return gate, thread


def waited(child: int, seconds: float = 60) -> int:
    """The exit status of a child; -1 if it hangs."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1
