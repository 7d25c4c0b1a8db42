"""Requests whose results are known, faults to inject, and the judge of what callers get."""

from __future__ import annotations

import asyncio
import collections
import itertools
import random
import threading
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from m3_core import Encoder, Reranker
from m3_core.encoder import CachedEncoder
from m3_core.errors import NonFiniteError, OutOfMemoryError
from m3_core.testing.checkpoints import WORDS

if TYPE_CHECKING:
    from collections.abc import Callable

POISON, NAN = "panda", "bear"
LONG_TEXT_WORDS = 150


class PoisonError(Exception):
    """A pass held a poisoned text: only who asked for one may see it."""


class TransientError(Exception):
    """A pass failed without a reason that lies in its texts."""


@dataclass(eq=False)
class Request:
    ask: Callable[[], Any]
    aask: Callable[[], Any]
    expected: Any
    poisoned: bool
    has_nan: bool


class Faults:
    """Stands between an engine and its program."""

    numbers = itertools.count()

    def __init__(self, engine: Any, tokenizer: Any, seed: int) -> None:
        self.rate = 0.0
        self.random = random.Random(seed)
        self.counts: collections.Counter[str] = collections.Counter()
        ids = tokenizer.encode([POISON, NAN], 16)
        self.poison, self.nan = (int(ids.ids[start + 1]) for start in ids.offsets[:-1])
        self.program, self.compute = engine.program, engine.program.compute
        self.program.compute = self

    def __call__(self, batch: Any, tasks: Any) -> Any:
        if (batch.ids == self.poison).any():
            self.counts["poisoned passes"] += 1
            raise PoisonError(next(self.numbers))
        drawn = self.random.random()
        if drawn < self.rate:
            self.counts["failed passes"] += 1
            raise TransientError(next(self.numbers))
        if drawn < 2 * self.rate:
            self.counts["passes out of memory"] += 1
            raise torch.OutOfMemoryError("injected: CUDA out of memory")
        results = self.compute(batch, tasks)
        bad = np.logical_or.reduceat(batch.ids == self.nan, batch.offsets[:-1])
        if bad.any():
            for (_, texts), result in zip(tasks, results, strict=True):
                rows = torch.from_numpy(np.flatnonzero(bad[texts]))
                for key in ("dense_finite", "scores"):
                    if key in result:
                        result[key][rows] = False if key == "dense_finite" else float("nan")
        return results


def is_same(one: Any, other: Any) -> bool:
    """Whether two results are of the same parts and shapes, and equal but for rounding."""
    if isinstance(other, list):
        return isinstance(one, list) and len(one) == len(other) and _are_close(one, other)
    if any(
        (getattr(one, part.name) is None) != (getattr(other, part.name) is None)
        for part in fields(other)
    ):
        return False
    same = len(one) == len(other)
    if same and other.dense_vecs is not None:
        same = _are_close(one.dense_vecs, other.dense_vecs)
    if same and other.colbert_vecs is not None:
        own, theirs = one.colbert_vecs, other.colbert_vecs
        same = np.array_equal(own.offsets, theirs.offsets)
        same = same and _are_close(own.vectors, theirs.vectors)
    if same and other.lexical_weights is not None:
        pairs = zip(one.lexical_weights, other.lexical_weights, strict=True)
        for mine, theirs in pairs:
            keys = mine.keys() | theirs.keys()
            same = same and all(abs(mine.get(k, 0) - theirs.get(k, 0)) < 1e-4 for k in keys)
    return same


def _are_close(one: Any, other: Any) -> bool:
    return np.shape(one) == np.shape(other) and np.allclose(one, other, rtol=1e-3, atol=1e-5)


def make_requests(encoder: Encoder, reranker: Reranker, count: int, rng: random.Random) -> list:
    words = [word for word in WORDS.split() if word not in (POISON, NAN)]

    def text(mark: str = "") -> str:
        length = rng.choice((2, 5, 8, 12, 30, LONG_TEXT_WORDS))
        chosen = rng.choices(words, k=rng.randrange(1, length))
        return " ".join([mark, *chosen] if mark else chosen)

    encoders = [
        encoder,
        encoder.with_options(pooling="mean"),
        encoder.with_options(truncate_dim=16),
        encoder.with_options(query_instruction="search: ", normalize=False),
    ]
    rerankers = [reranker, reranker.with_options(max_length=32)]
    cached = [CachedEncoder(one, ("dense", "sparse")) for one in encoders[:2]]
    requests = []
    for number in range(count):
        # Not by chance: a short run shall have both.
        mark = {7: POISON, 19: NAN}.get(number % 25, "")
        size = rng.choice((1, 1, 1, 1, 2, 3, 8)) if rng.random() < 0.97 else 40
        texts = [text() for _ in range(size)]
        if mark:
            texts[rng.randrange(size)] = text(mark)
        kind = rng.random()
        if kind < 0.2:
            which = rng.choice(rerankers)
            pairs = [(texts[0], document) for document in texts]
            ask = lambda w=which, p=pairs: w.compute_score(p)  # noqa: E731
            aask = lambda w=which, p=pairs: w.acompute_score(p)  # noqa: E731
        elif kind < 0.5:
            held = rng.choice(cached)
            role = rng.choice(("queries", "documents"))
            ask = lambda h=held, r=role, t=texts: getattr(h, r)(t)  # noqa: E731
            aask = lambda h=held, r=role, t=texts: getattr(h, "a" + r)(t)  # noqa: E731
        else:
            which, role = rng.choice(encoders), rng.choice(("queries", "documents"))
            flags = (True, rng.random() < 0.4, rng.random() < 0.3, rng.choice((None, 8, 64)))
            ask = lambda w=which, r=role, t=texts, f=flags: (  # noqa: E731
                getattr(w, f"encode_{r}")(t, *f)
            )
            aask = lambda w=which, r=role, t=texts, f=flags: (  # noqa: E731
                getattr(w, f"aencode_{r}")(t, *f)
            )
        requests.append(Request(ask, aask, None, mark == POISON, mark == NAN))
    return requests


class Judge:
    """Says of each outcome whether it is that of its request."""

    def __init__(self) -> None:
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self._lock = threading.Lock()
        self._raised: set[object] = set()

    def judge(
        self,
        request: Request,
        result: Any,
        error: BaseException | None,
        given_up: type[BaseException] | None = None,
    ) -> None:
        """Take an outcome.

        Args:
            request: What was asked for.
            result: What came.
            error: What was raised.
            given_up: With what a caller who gives up may end.
        """
        try:
            kind, what = self._of(request, result, error, given_up)
        except Exception as fault:  # noqa: BLE001 (a result that cannot even be compared)
            kind, what = "wrong", f"a result that cannot be compared: {fault!r}"
        with self._lock:
            self.outcomes[kind] += 1
            if isinstance(error, (PoisonError, TransientError)):
                # A failed pass of several callers is computed again for each of them alone.
                if error.args in self._raised:
                    what = f"one {type(error).__name__} reached two callers"
                self._raised.add(error.args)
            if what is not None:
                self.wrong.append(what)

    def _of(
        self,
        request: Request,
        result: Any,
        error: BaseException | None,
        given_up: type[BaseException] | None,
    ) -> tuple[str, str | None]:
        if error is None:
            if request.poisoned or request.has_nan:
                return "wrong", "a poisoned request got a result"
            if not is_same(result, request.expected):
                return "wrong", "a result is not the serial one"
            return "right", None
        if isinstance(error, PoisonError) and request.poisoned:
            return "poisoned", None
        if isinstance(error, NonFiniteError) and request.has_nan:
            return "not finite", None
        if isinstance(error, (TransientError, OutOfMemoryError)):
            return type(error).__name__, None
        if given_up is not None and isinstance(error, given_up):
            return "cancelled" if given_up is asyncio.CancelledError else "timed out", None
        return "wrong", f"{type(error).__name__}: {error}"

    def bound(self, faults: list[Faults]) -> None:
        """Compare what callers were told with how many passes failed.

        Args:
            faults: What made them fail.
        """
        for kind, passes in (
            ("TransientError", "failed passes"),
            ("OutOfMemoryError", "passes out of memory"),
        ):
            told, failed = self.outcomes[kind], sum(one.counts[passes] for one in faults)
            if told > failed:
                self.wrong.append(f"{told} callers were told of {failed} {passes}")
