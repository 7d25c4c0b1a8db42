"""Recent encodings of a model, so that adapters over one encoder run the network once a text.

Vector stores ask a dense object and a sparse object for the same texts, one after the other. Each
adapter says beforehand what it will ask for; the first to ask computes for all of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Generator, Sized
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from m3_core.encoder.direct import TEXTS_ON_THE_LOOP, aencode_parts, aside, encode_parts
from m3_core.encoder.protocol import PARTS, flags_of
from m3_core.encoder.rows import Rows, assembled, rows_of, size_of
from m3_core.forks import computed_once, survive_forks
from m3_core.texts import DistinctTexts, check_texts, distinct

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from m3_core.encoder.protocol import Role, TextEncoder
    from m3_core.representations import Representations

# Dense vector and weights of a text of 500 tokens take about 8 KiB.
DEFAULT_BYTES = 128 << 20
DEFAULT_ENTRIES = 16_384


@dataclass(frozen=True, eq=False)
class CacheUser:
    """What one adapter asks for; the cache counts on it for as long as the object exists.

    Attributes:
        encoder: The encoder, with the adapter's options.
        parts: Of ``"dense"``, ``"sparse"`` and ``"colbert"``, in this order.
        roles: The roles in which others that encode a text shall compute these parts too.
    """

    encoder: TextEncoder
    parts: tuple[str, ...]
    roles: tuple[Role, ...]

    @computed_once
    def every_key(self) -> dict[str, str]:
        """For each part that the encoder gives, a name of all options that change it."""
        encoder = self.encoder
        given = encoder.representations
        return {part: encoder.fingerprint((part,)) for part in PARTS if part in given}

    def keys(self, parts: Iterable[str]) -> dict[str, str]:
        """Under which keys encodings of some parts are kept."""
        return {part: self.every_key[part] for part in parts}

    def prefix(self, role: Role) -> tuple[str, int]:
        """What the network sees of every text beside the text, and how much of it."""
        encoder = self.encoder
        query = role == "query"
        instruction = encoder.query_instruction if query else encoder.document_instruction
        return instruction, encoder.max_length


@dataclass(slots=True, eq=False)
class _Running:
    """A text that somebody computes right now, and who may wait for it.

    Whoever waits for an event loop must run in it: a loop may be stopped, or its thread may be
    waiting itself. Nor can a thread wait for itself, as a signal handler in it would.
    """

    parts: frozenset[str]
    loop: asyncio.AbstractEventLoop | None
    thread: int = field(default_factory=threading.get_ident)
    rows: Future[Rows | None] = field(default_factory=Future)

    def may_be_awaited(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Whether the calling thread may wait for it, in an event loop or in none."""
        if self.loop is not None:
            return self.loop is loop
        return self.thread != threading.get_ident()


@dataclass(frozen=True, slots=True)
class _Missing:
    """Texts to be computed, and what of them."""

    encoder: TextEncoder
    texts: DistinctTexts
    parts: tuple[str, ...]


_Steps = Generator["_Missing | _Running | list[Rows]", Any, None]


class EncodingCache:
    """Encodings of the texts that were asked for last, of one loaded model.

    Safe under threads, event loops and forks: a text that two ask for at once is computed by one
    of them.

    Args:
        max_bytes: Memory of all rows at most.
        max_entries: Texts at most.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES, max_entries: int = DEFAULT_ENTRIES) -> None:
        self.max_bytes = max_bytes
        self.max_entries = max_entries
        self._vocabulary_size: int | None = None
        self._users: weakref.WeakSet[CacheUser] = weakref.WeakSet()
        self.after_fork()
        survive_forks(self)

    def after_fork(self) -> None:
        """Begin anew: another thread may have been in the middle of a change."""
        # A signal handler or a finaliser may come here while its own thread is here already.
        self._lock = threading.RLock()
        self._entries: OrderedDict[bytes, Rows] = OrderedDict()
        self._running: dict[bytes, _Running] = {}
        self._bytes = 0
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self._bytes

    def announce(self, user: CacheUser) -> None:
        """Remember what an adapter will ask for, for as long as it exists.

        Args:
            user: The adapter's wishes.
        """
        with self._lock:
            self._users.add(user)

    def encode(
        self,
        user: CacheUser,
        role: Role,
        texts: Iterable[str],
        parts: Sequence[str],
        *,
        show_progress: bool,
    ) -> Representations:
        """Give representations, computing only what is missing.

        Args:
            user: Whose encoder it is; announced before.
            role: Which instruction stands before the texts.
            texts: The texts.
            parts: What is wanted.
            show_progress: Show a progress bar if something is computed.

        Returns:
            These parts and no others, in the order of the texts.
        """
        order, unique = distinct(check_texts(texts))
        if not unique:
            return encode_parts(user.encoder, role, unique, parts)
        steps = self._steps(user, role, unique, parts, None)
        try:
            step = next(steps)
            while not isinstance(step, list):
                if isinstance(step, _Running):
                    step = steps.send(step.rows.result())
                    continue
                flags = flags_of(step.parts)
                # Not by another function, since each would be one more between a query and the
                # network.
                if role == "query":
                    reps = step.encoder.encode_queries(
                        step.texts, **flags, show_progress=show_progress
                    )
                else:
                    reps = step.encoder.encode_documents(
                        step.texts, **flags, show_progress=show_progress
                    )
                step = steps.send(reps)
        finally:
            steps.close()
        return self._assembled(user, step, order, parts)

    async def aencode(
        self,
        user: CacheUser,
        role: Role,
        texts: Iterable[str],
        parts: Sequence[str],
        *,
        show_progress: bool,
    ) -> Representations:
        """Do ``encode`` without holding up the event loop; takes and gives the same."""
        many = isinstance(texts, Sized) and len(texts) > TEXTS_ON_THE_LOOP
        order, unique = await aside(many, lambda: distinct(check_texts(texts)))
        if not unique:
            return await aencode_parts(user.encoder, role, unique, parts)
        steps = self._steps(user, role, unique, parts, asyncio.get_running_loop())
        reply: Any = None
        try:
            while True:
                step = await aside(many, partial(steps.send, reply))
                if isinstance(step, list):
                    break
                if isinstance(step, _Running):
                    # Shielded, since cancelling who waits must not cancel what others wait for.
                    reply = await asyncio.shield(asyncio.wrap_future(step.rows))
                else:
                    reply = await aencode_parts(
                        step.encoder, role, step.texts, step.parts, show_progress=show_progress
                    )
        finally:
            # Cancelled while a thread is at it, it is closed when the thread lets go of it.
            with suppress(ValueError):
                steps.close()
        return await aside(many, lambda: self._assembled(user, step, order, parts))

    def _assembled(
        self,
        user: CacheUser,
        found: list[Rows],
        order: NDArray[np.int64],
        parts: Sequence[str],
    ) -> Representations:
        return assembled(found, order, user.keys(parts), self._vocabulary_size)

    def _steps(
        self,
        user: CacheUser,
        role: Role,
        texts: DistinctTexts,
        wanted: Sequence[str],
        loop: asyncio.AbstractEventLoop | None,
    ) -> _Steps:
        """What to compute and for whom to wait, and then the rows of all texts."""
        keys = [_text_key(user.prefix(role), text) for text in texts]
        needed = frozenset(user.keys(wanted).values())
        found: list[Rows | None] = [None] * len(texts)
        while (missing := [i for i, rows in enumerate(found) if rows is None]) != []:
            mine: list[int] = []
            others: list[tuple[int, _Running]] = []
            started: dict[bytes, _Running] = {}
            computed: dict[bytes, Rows] = {}
            encoder, parts, named = self._to_compute(user, role, wanted)
            try:
                with self._lock:
                    for i in missing:
                        key = keys[i]
                        rows, running = self._entries.get(key), self._running.get(key)
                        if rows is not None and needed <= rows.keys():
                            self._entries.move_to_end(key)
                            found[i] = rows
                        elif (
                            running is not None
                            and needed <= running.parts
                            and running.may_be_awaited(loop)
                        ):
                            others.append((i, running))
                        else:
                            mine.append(i)
                            started[key] = _Running(frozenset(named.values()), loop)
                    self._running.update(started)
                    self.misses += len(mine)
                    self.hits += len(missing) - len(mine)
                # Own texts first: whoever waits has finished what others may wait for.
                if mine:
                    is_all = len(mine) == len(texts)
                    own = texts if is_all else DistinctTexts(texts[i] for i in mine)
                    reps = yield _Missing(encoder, own, parts)
                    if reps.lexical_weights is not None:
                        self._vocabulary_size = reps.lexical_weights.vocabulary_size
                    for i, rows in zip(mine, rows_of(reps, named), strict=True):
                        found[i] = computed[keys[i]] = rows
            finally:
                try:
                    self._finish(started, computed)
                except BaseException:
                    # Interrupted: others would wait for ever.
                    self._finish(started, computed)
                    raise
            for i, running in others:
                # None if who computed it failed: then it is tried here in the next round.
                found[i] = yield running
        yield [rows for rows in found if rows is not None]

    def _to_compute(
        self, user: CacheUser, role: Role, wanted: Sequence[str]
    ) -> tuple[TextEncoder, tuple[str, ...], dict[str, str]]:
        """What to compute, and with whose options, so that most users of a text are served."""
        prefix = user.prefix(role)
        with self._lock:
            users = list(self._users)
        alike = [
            other
            for other in users
            if other is not user and role in other.roles and other.prefix(role) == prefix
        ]
        chosen = user
        if set(wanted) == {"sparse"}:
            # Weights are the same whatever the vectors' options: take those of the vectors' user.
            chosen = next((other for other in alike if set(other.parts) != {"sparse"}), user)
        parts = set(wanted)
        for other in alike:
            own = other.keys(other.parts)
            parts.update(part for part, key in own.items() if chosen.every_key.get(part) == key)
        ordered = tuple(part for part in PARTS if part in parts)
        return chosen.encoder, ordered, chosen.keys(ordered)

    def _finish(self, started: dict[bytes, _Running], computed: dict[bytes, Rows]) -> None:
        with self._lock:
            for key, running in started.items():
                if self._running.get(key) is running:
                    del self._running[key]
                if key in computed:
                    self._store(key, computed[key])
        for key, running in started.items():
            if not running.rows.done():
                running.rows.set_result(computed.get(key))

    def _store(self, key: bytes, rows: Rows) -> None:
        old = self._entries.pop(key, None)
        if old is not None:
            rows = old | rows
        self._entries[key] = rows
        added = size_of(rows) - (0 if old is None else size_of(old))
        self._bytes += added
        while self._entries and (
            self._bytes > self.max_bytes or len(self._entries) > self.max_entries
        ):
            _, oldest = self._entries.popitem(last=False)
            freed = size_of(oldest)
            self._bytes -= freed


_caches: weakref.WeakKeyDictionary[Any, EncodingCache] = weakref.WeakKeyDictionary()


def cache_of(encoder: TextEncoder) -> EncodingCache:
    """Give the cache of an encoder, which all over the same origin share.

    Args:
        encoder: The encoder.

    Returns:
        The same object each time, for as long as the origin exists; its bounds may be set.
    """
    # One step, so that two threads get the same one without a lock.
    return _caches.setdefault(encoder.origin, EncodingCache())


def known_cache(encoder: TextEncoder) -> EncodingCache | None:
    """Give the cache of an encoder, if anybody has asked for it.

    Args:
        encoder: The encoder.

    Returns:
        As of ``cache_of``, or ``None``: none is made.
    """
    return _caches.get(encoder.origin)


def _text_key(prefix: tuple[str, int], text: str) -> bytes:
    """What the network sees of a text: equal for both roles if they have the same instruction."""
    instruction, max_length = prefix
    seen = f"{max_length}\n{instruction}{text}".encode()
    return hashlib.blake2b(seen, digest_size=16).digest()
