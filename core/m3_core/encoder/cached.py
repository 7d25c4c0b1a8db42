"""What the frameworks' adapters see of an encoder: their parts, through the shared cache."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from m3_core.beside import beside
from m3_core.encoder.cache import CacheUser, EncodingCache, cache_of
from m3_core.encoder.direct import TEXTS_ON_THE_LOOP, Direct, aencode_parts, encode_parts
from m3_core.encoder.located import token_offsets
from m3_core.encoder.methods import EncodingMethods
from m3_core.encoder.protocol import PARTS, TextEncoder
from m3_core.errors import ClosedError, MissingRepresentationError
from m3_core.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from m3_core.encoder.located import TextTokens
    from m3_core.encoder.protocol import Role
    from m3_core.representations import Representations

T = TypeVar("T")

_DIRECT = Direct()


class CachedEncoder(EncodingMethods):
    """An encoder as an adapter sees it: always the same parts, through the origin's cache.

    It is a ``TextEncoder`` itself. A pickled one holds no weights: the other process loads the
    model, once for all, when one of them is first used.

    Args:
        encoder: The encoder, or a function that loads it on first use.
        parts: Of ``"dense"``, ``"sparse"`` and ``"colbert"``, what the adapter asks for.
        reuse: Take part in the cache; without, each call runs the network.
        roles: In which of them others that encode a text shall compute these parts too.

    Raises:
        ValueError: There is no such part.
        MissingRepresentationError: The model does not give one of the parts.
    """

    def __init__(
        self,
        encoder: TextEncoder | Callable[[], TextEncoder],
        parts: Collection[str],
        *,
        reuse: bool = True,
        roles: Sequence[Role] = ("query", "document"),
    ) -> None:
        unknown = sorted(set(parts) - set(PARTS))
        if unknown:
            raise ValueError(f"parts are of {', '.join(PARTS)}; got {', '.join(unknown)}")
        self.parts = tuple(part for part in PARTS if part in parts)
        self.reuse = reuse
        self.roles = tuple(roles)
        self._opened: tuple[CacheUser, EncodingCache | Direct] | None = None
        self.after_fork()
        survive_forks(self)
        if isinstance(encoder, TextEncoder):
            self._load: Callable[[], TextEncoder] = partial(_itself, encoder)
            self._opened = self._open(encoder)
        else:
            self._load = encoder

    def after_fork(self) -> None:
        """Replace the lock, which another thread may have held."""
        self._lock = threading.Lock()

    @property
    def encoder(self) -> TextEncoder:
        """The encoder; loaded now, if it was not yet."""
        return self._ready()[0].encoder

    @property
    def name(self) -> str:
        """The name of the model."""
        return self.encoder.name

    @property
    def origin(self) -> object:
        """What computes."""
        return self.encoder.origin

    @property
    def representations(self) -> frozenset[str]:
        """What the encoder gives, whatever the adapter's parts are."""
        return self.encoder.representations

    @property
    def dimension(self) -> int:
        """Width of the dense vectors."""
        return self.encoder.dimension

    @property
    def colbert_dimension(self) -> int:
        """Width of the multi-vectors; 0 where there are none."""
        return self.encoder.colbert_dimension

    @property
    def max_length(self) -> int:
        """Tokens a text at most, special tokens included."""
        return self.encoder.max_length

    @property
    def query_instruction(self) -> str:
        """What is put before every query; ``""`` for nothing."""
        return self.encoder.query_instruction

    @property
    def document_instruction(self) -> str:
        """What is put before every document; ``""`` for nothing."""
        return self.encoder.document_instruction

    @property
    def closed(self) -> bool:
        """Whether the encoder was closed."""
        with self._lock:
            opened = self._opened
        return self.encoder.closed if opened is None else opened[0].encoder.closed

    def fingerprint(self, parts: Collection[str] = ("dense",), *, queries: bool = False) -> str:
        """Name what changes the encoder's representations; see ``TextEncoder.fingerprint``."""
        return self.encoder.fingerprint(parts, queries=queries)

    def token_offsets(
        self, texts: Iterable[str], role: Role = "document", max_length: int | None = None
    ) -> list[TextTokens]:
        """Say where tokens stand, if the encoder does; see ``TokenLocator``."""
        return token_offsets(self.encoder, texts, role, max_length)

    def close(self) -> None:
        """Close the encoder."""
        if not self.closed:
            self.encoder.close()

    def __copy__(self) -> CachedEncoder:
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> CachedEncoder:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        load = self._load
        if self._opened is not None:
            how = self._opened[0].encoder.__reduce_ex__(4)
            if isinstance(how, tuple) and len(how) == 2:
                # A function that loads it; it is called when the encoder is first used.
                load = partial(how[0], *how[1])
        return _restore, (load, self.parts, self.reuse, self.roles)

    def queries(self, texts: Iterable[str], *, show_progress: bool = False) -> Representations:
        """Encode queries.

        Args:
            texts: The queries.
            show_progress: Show a progress bar.

        Returns:
            The adapter's parts, in the order of the texts.
        """
        user, cache = self._ready()
        return cache.encode(user, "query", texts, self.parts, show_progress=show_progress)

    def documents(
        self, texts: Iterable[str], *, show_progress: bool = False, remember: bool = True
    ) -> Representations:
        """Encode documents.

        Args:
            texts: The documents.
            show_progress: Show a progress bar.
            remember: Look into the cache, and keep there what is computed. Without, for who keeps
                representations itself, what others have in it stays.

        Returns:
            The adapter's parts, in the order of the texts.
        """
        user, cache = self._ready()
        chosen = cache if remember else _DIRECT
        return chosen.encode(user, "document", texts, self.parts, show_progress=show_progress)

    async def aqueries(
        self, texts: Iterable[str], *, show_progress: bool = False
    ) -> Representations:
        """Do ``queries`` without holding up the event loop or occupying a thread."""
        user, cache = await self._aready()
        return await cache.aencode(user, "query", texts, self.parts, show_progress=show_progress)

    async def adocuments(
        self, texts: Iterable[str], *, show_progress: bool = False, remember: bool = True
    ) -> Representations:
        """Do ``documents`` without holding up the event loop or occupying a thread."""
        user, cache = await self._aready()
        chosen = cache if remember else _DIRECT
        return await chosen.aencode(
            user, "document", texts, self.parts, show_progress=show_progress
        )

    def _encode(
        self,
        role: Role,
        texts: Iterable[str],
        parts: tuple[str, ...],
        max_length: int | None,
        *,
        show_progress: bool,
    ) -> Representations:
        """Encode through the cache, unless a length is given."""
        if max_length is None and parts:
            user, cache = self._ready()
            return cache.encode(user, role, texts, parts, show_progress=show_progress)
        return encode_parts(
            self.encoder, role, texts, parts, max_length=max_length, show_progress=show_progress
        )

    async def _aencode(
        self,
        role: Role,
        texts: Iterable[str],
        parts: tuple[str, ...],
        max_length: int | None,
        *,
        show_progress: bool,
    ) -> Representations:
        user, cache = await self._aready()
        if max_length is None and parts:
            return await cache.aencode(user, role, texts, parts, show_progress=show_progress)
        return await aencode_parts(
            user.encoder, role, texts, parts, max_length=max_length, show_progress=show_progress
        )

    async def _aready(self) -> tuple[CacheUser, EncodingCache | Direct]:
        if self._opened is None:
            await beside(self._ready)
        return self._ready()

    def _ready(self) -> tuple[CacheUser, EncodingCache | Direct]:
        with self._lock:
            if self._opened is None:
                self._opened = self._open(self._load())
            opened = self._opened
        if opened[0].encoder.closed:
            raise ClosedError(f"{opened[0].encoder.name!r} was closed: load it again")
        return opened

    def _open(self, encoder: TextEncoder) -> tuple[CacheUser, EncodingCache | Direct]:
        absent = sorted(set(self.parts) - encoder.representations)
        if absent:
            raise MissingRepresentationError(
                f"{' and '.join(absent)} is needed here, but {encoder.name!r} gives only "
                f"{', '.join(sorted(encoder.representations))}: load an M3 checkpoint"
            )
        user = CacheUser(encoder, self.parts, self.roles)
        if not self.reuse:
            return user, _DIRECT
        cache = cache_of(encoder)
        cache.announce(user)
        return user, cache


async def aconverted(reps: Representations, convert: Callable[[Representations], T]) -> T:
    """Convert what was encoded into what a framework takes; of many texts off the event loop.

    Args:
        reps: What was encoded.
        convert: What to do with it.

    Returns:
        What ``convert`` returns.
    """
    if len(reps) <= TEXTS_ON_THE_LOOP:
        return convert(reps)
    return await beside(convert, reps)


def _itself(encoder: TextEncoder) -> TextEncoder:
    return encoder


def _restore(
    load: Callable[[], TextEncoder],
    parts: Collection[str],
    reuse: bool,  # noqa: FBT001
    roles: Sequence[Role],
) -> CachedEncoder:
    return CachedEncoder(load, parts, reuse=reuse, roles=roles)
