"""Recent encodings of a model, so that adapters over one encoder run the network once a text.

Vector stores ask a dense object and a sparse object for the same texts, one after the other. Each
adapter says beforehand what it will ask for; the first to ask computes for all of them.
"""

from __future__ import annotations

import hashlib
import sys
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from m3_core.representations import LexicalWeights, MultiVectors, Representations
from m3_core.texts import check_texts, distinct

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from m3_core.encoder import Encoder
    from m3_core.encoding import Role
    from m3_core.model import Model

# Dense vector and weights of a text of 500 tokens take about 8 KiB.
DEFAULT_BYTES = 128 << 20
DEFAULT_ENTRIES = 16_384

PARTS = {"dense": "dense_vecs", "sparse": "lexical_weights", "colbert": "colbert_vecs"}


class _PartKey(NamedTuple):
    """A representation and all options of an encoder that change it for the same tokens."""

    part: str
    pooling: str | None
    normalize: bool | None
    truncate_dim: int | None


@dataclass(frozen=True, eq=False)
class CacheUser:
    """What one adapter asks for; the cache counts on it for as long as the object exists.

    Attributes:
        encoder: The encoder, with the adapter's options.
        parts: Of ``"dense"``, ``"sparse"`` and ``"colbert"``, in this order.
        roles: The roles in which it encodes.
    """

    encoder: Encoder
    parts: tuple[str, ...]
    roles: tuple[Role, ...]

    @property
    def keys(self) -> tuple[_PartKey, ...]:
        """The parts with all options that change them."""
        return _part_keys(self.encoder, self.parts)


# One text's rows: arrays that own their memory, by representation.
_Rows = dict[_PartKey, tuple[np.ndarray[Any, Any], ...]]


@dataclass(slots=True, eq=False)
class _Running:
    """A text that some thread computes right now."""

    parts: frozenset[_PartKey]
    done: threading.Event = field(default_factory=threading.Event)
    rows: _Rows | None = None


class EncodingCache:
    """Encodings of the texts that were asked for last, of one loaded model.

    Safe under threads: a text that two ask for at once is computed by one of them.

    Args:
        max_bytes: Memory of all rows at most.
        max_entries: Texts at most.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES, max_entries: int = DEFAULT_ENTRIES) -> None:
        self.max_bytes = max_bytes
        self.max_entries = max_entries
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, _Rows] = OrderedDict()
        self._running: dict[bytes, _Running] = {}
        self._users: weakref.WeakSet[CacheUser] = weakref.WeakSet()
        self._bytes = 0

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
        self, user: CacheUser, role: Role, texts: Iterable[str], *, show_progress: bool
    ) -> Representations:
        """Give the representations that an adapter wants, computing only what is missing.

        Args:
            user: Whose encoder it is, and what is wanted; announced before.
            role: Which instruction stands before the texts.
            texts: The texts.
            show_progress: Show a progress bar if something is computed.

        Returns:
            The adapter's parts and no others, in the order of the texts.
        """
        # Fails if the encoder was closed, whatever is remembered.
        _ = user.encoder.model.pipeline
        rows, unique = distinct(check_texts(texts))
        if not unique:
            return compute(user.encoder, role, [], user.parts)
        found = self._collect(user, role, unique, show_progress=show_progress)
        size = user.encoder.vocabulary_size
        return _assemble([found[row] for row in rows.tolist()], user.keys, size)

    def _collect(
        self, user: CacheUser, role: Role, texts: list[str], *, show_progress: bool
    ) -> list[_Rows]:
        keys = [_text_key(user.encoder, role, text) for text in texts]
        needed = frozenset(user.keys)
        found: list[_Rows | None] = [None] * len(texts)
        while (missing := [i for i, rows in enumerate(found) if rows is None]) != []:
            mine: list[int] = []
            others: list[tuple[int, _Running]] = []
            with self._lock:
                encoder, parts = self._wanted(user, role)
                computed = frozenset(_part_keys(encoder, parts))
                for i in missing:
                    rows = self._entries.get(keys[i])
                    running = self._running.get(keys[i])
                    if rows is not None and needed <= rows.keys():
                        self._entries.move_to_end(keys[i])
                        found[i] = rows
                    elif running is not None and needed <= running.parts:
                        others.append((i, running))
                    else:
                        mine.append(i)
                started = {keys[i]: _Running(computed) for i in mine}
                self._running.update(started)
            # Own texts first: whoever waits has finished what others may wait for.
            if mine:
                try:
                    reps = compute(
                        encoder, role, [texts[i] for i in mine], parts, show_progress=show_progress
                    )
                    for i, rows in zip(mine, _rows_of(reps, encoder, parts), strict=True):
                        found[i] = started[keys[i]].rows = rows
                finally:
                    self._finish(started)
            for i, running in others:
                running.done.wait()
                # None if the other thread failed: then this one tries it in the next round.
                found[i] = running.rows
        return [rows for rows in found if rows is not None]

    def _wanted(self, user: CacheUser, role: Role) -> tuple[Encoder, tuple[str, ...]]:
        """What to compute, and with whose options, so that most users of a text are served."""
        prefix = _prefix(user.encoder, role)
        alike = [
            other
            for other in self._users
            if other is not user and role in other.roles and _prefix(other.encoder, role) == prefix
        ]
        encoder = user.encoder
        if user.parts == ("sparse",):
            # Weights are the same whatever the vectors' options: take those of the vectors' user.
            encoder = next((o.encoder for o in alike if o.parts != ("sparse",)), encoder)
        offered = set(_part_keys(encoder, tuple(PARTS)))
        parts = {*user.parts}
        for other in alike:
            parts.update(key.part for key in other.keys if key in offered)
        return encoder, tuple(part for part in PARTS if part in parts)

    def _finish(self, started: dict[bytes, _Running]) -> None:
        with self._lock:
            for key, running in started.items():
                if self._running.get(key) is running:
                    del self._running[key]
                if running.rows is not None:
                    self._store(key, running.rows)
                running.done.set()

    def _store(self, key: bytes, rows: _Rows) -> None:
        old = self._entries.pop(key, None)
        if old is not None:
            self._bytes -= _size(old)
            rows = old | rows
        self._entries[key] = rows
        self._bytes += _size(rows)
        while self._entries and (
            self._bytes > self.max_bytes or len(self._entries) > self.max_entries
        ):
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= _size(oldest)


_caches: weakref.WeakKeyDictionary[Model, EncodingCache] = weakref.WeakKeyDictionary()
_caches_lock = threading.Lock()


def cache_of(model: Model) -> EncodingCache:
    """Give the cache of a loaded model, which all adapters over it share.

    Args:
        model: The loaded checkpoint.

    Returns:
        The same object each time, for as long as the model exists; its bounds may be set.
    """
    with _caches_lock:
        cache = _caches.get(model)
        if cache is None:
            cache = _caches[model] = EncodingCache()
        return cache


def _part_keys(encoder: Encoder, parts: Sequence[str]) -> tuple[_PartKey, ...]:
    options = encoder.options
    every = {
        "dense": _PartKey("dense", options.pooling, options.normalize, options.truncate_dim),
        "sparse": _PartKey("sparse", None, None, None),
        "colbert": _PartKey("colbert", None, options.normalize, options.truncate_dim),
    }
    return tuple(every[part] for part in parts)


def _prefix(encoder: Encoder, role: Role) -> tuple[str, int]:
    query = role == "query"
    instruction = encoder.query_instruction if query else encoder.document_instruction
    return instruction, encoder.max_length


def _text_key(encoder: Encoder, role: Role, text: str) -> bytes:
    """What the network sees of a text: equal for both roles if they have the same instruction."""
    instruction, max_length = _prefix(encoder, role)
    seen = f"{max_length}\n{instruction}{text}".encode()
    return hashlib.blake2b(seen, digest_size=16).digest()


def compute(
    encoder: Encoder,
    role: Role,
    texts: Iterable[str],
    parts: Sequence[str],
    *,
    show_progress: bool = False,
) -> Representations:
    """Run the network, whatever is remembered.

    Args:
        encoder: The encoder.
        role: Which instruction stands before the texts.
        texts: The texts.
        parts: What to give.
        show_progress: Show a progress bar.

    Returns:
        Those parts, in the order of the texts.
    """
    encode = encoder.encode_queries if role == "query" else encoder.encode_documents
    return encode(
        texts,
        return_dense="dense" in parts,
        return_sparse="sparse" in parts,
        return_colbert_vecs="colbert" in parts,
        show_progress=show_progress,
    )


def _rows_of(reps: Representations, encoder: Encoder, parts: Sequence[str]) -> list[_Rows]:
    """Copies, since a view of one text would keep its whole batch in memory."""
    rows: list[_Rows] = [{} for _ in range(len(reps))]
    for key in _part_keys(encoder, parts):
        part = getattr(reps, PARTS[key.part])
        for i, row in enumerate(rows):
            if key.part == "dense":
                row[key] = (part[i].copy(),)
                continue
            own = slice(part.offsets[i], part.offsets[i + 1])
            arrays = (part.token_ids, part.weights) if key.part == "sparse" else (part.vectors,)
            row[key] = tuple(array[own].copy() for array in arrays)
    return rows


def _assemble(rows: list[_Rows], keys: Sequence[_PartKey], size: int) -> Representations:
    parts: dict[str, Any] = {}
    for key in keys:
        columns = list(zip(*(row[key] for row in rows), strict=True))
        if key.part == "dense":
            parts[PARTS[key.part]] = np.stack(columns[0])
            continue
        kind: Any = LexicalWeights if key.part == "sparse" else MultiVectors
        offsets = np.cumsum([0, *map(len, columns[0])], dtype=np.int64)
        known = {"vocabulary_size": size} if key.part == "sparse" else {}
        parts[PARTS[key.part]] = kind(*map(np.concatenate, columns), offsets, **known)
    return Representations(**parts)


def _size(rows: _Rows) -> int:
    return sum(sys.getsizeof(array) for arrays in rows.values() for array in arrays)
