"""What the frameworks' adapters see of an encoder: their parts, through the shared cache."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from m3_core.cache import PARTS, CacheUser, EncodingCache, cache_of, compute
from m3_core.encoder import Encoder
from m3_core.errors import MissingRepresentationError
from m3_core.registry import adapter_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from m3_core.encoding import Role
    from m3_core.representations import Representations

P = ParamSpec("P")
T = TypeVar("T")


class AdapterEncoder:
    """An encoder as an adapter sees it: always the same parts, through the model's cache.

    A pickled one holds no weights: the other process loads the model, once for all, when one of
    them is first used.

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
        encoder: Encoder | Callable[[], Encoder],
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
        self._lock = threading.Lock()
        self._opened: tuple[CacheUser, EncodingCache | None] | None = None
        self._load: Callable[[], Encoder]
        if isinstance(encoder, Encoder):
            function, arguments = encoder.__reduce__()
            self._load = partial(function, *arguments)
            self._opened = self._open(encoder)
        else:
            self._load = encoder

    @property
    def encoder(self) -> Encoder:
        """The encoder; loaded now, if it was not yet."""
        return self._user_and_cache()[0].encoder

    @property
    def name(self) -> str:
        """The name that the model was loaded by."""
        return self.encoder.name

    def __copy__(self) -> AdapterEncoder:
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> AdapterEncoder:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._load, self.parts, self.reuse, self.roles)

    def queries(self, texts: Iterable[str], *, show_progress: bool = False) -> Representations:
        """Encode queries.

        Args:
            texts: The queries.
            show_progress: Show a progress bar.

        Returns:
            The adapter's parts, in the order of the texts.
        """
        return self._encode("query", texts, show_progress=show_progress)

    def documents(self, texts: Iterable[str], *, show_progress: bool = False) -> Representations:
        """Encode documents.

        Args:
            texts: The documents.
            show_progress: Show a progress bar.

        Returns:
            The adapter's parts, in the order of the texts.
        """
        return self._encode("document", texts, show_progress=show_progress)

    async def aqueries(self, texts: Iterable[str], **options: Any) -> Representations:
        """Do ``queries`` off the event loop."""
        return await self.run_async(self.queries, texts, **options)

    async def adocuments(self, texts: Iterable[str], **options: Any) -> Representations:
        """Do ``documents`` off the event loop."""
        return await self.run_async(self.documents, texts, **options)

    async def run_async(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function in the encoder's few threads, with the caller's context."""
        if self._opened is None:
            await asyncio.to_thread(self._user_and_cache)
        return await self.encoder.run_async(function, *args, **kwargs)

    def _encode(self, role: Role, texts: Iterable[str], *, show_progress: bool) -> Representations:
        user, cache = self._user_and_cache()
        if cache is None:
            return compute(user.encoder, role, texts, self.parts, show_progress=show_progress)
        return cache.encode(user, role, texts, show_progress=show_progress)

    def _user_and_cache(self) -> tuple[CacheUser, EncodingCache | None]:
        with self._lock:
            if self._opened is None:
                self._opened = self._open(self._load())
            return self._opened

    def _open(self, encoder: Encoder) -> tuple[CacheUser, EncodingCache | None]:
        absent = sorted(set(self.parts) - encoder.representations)
        if absent:
            raise MissingRepresentationError(
                f"{' and '.join(absent)} is needed here, but {encoder.name!r} gives only "
                f"{', '.join(sorted(encoder.representations))}: load an M3 checkpoint"
            )
        user = CacheUser(encoder, self.parts, self.roles)
        cache = cache_of(encoder.model) if self.reuse else None
        if cache is not None:
            cache.announce(user)
        return user, cache


def adapter_encodings(
    encoder: Encoder | None,
    name: str,
    options: Mapping[str, Any],
    parts: Collection[str],
    *,
    reuse: bool = True,
    roles: Sequence[Role] = ("query", "document"),
) -> AdapterEncoder:
    """Give an adapter its encoder, seen through the cache of the loaded model.

    Args:
        encoder: As of ``registry.adapter_encoder``.
        name: As there.
        options: As there.
        parts: What the adapter will ask for.
        reuse: Take part in the cache.
        roles: As of ``AdapterEncoder``.

    Returns:
        The adapter's view; its ``encoder`` is the one of ``registry.adapter_encoder``.
    """
    own = adapter_encoder(encoder, name, options)
    return AdapterEncoder(own, parts, reuse=reuse, roles=roles)


def _restore(
    load: Callable[[], Encoder],
    parts: Collection[str],
    reuse: bool,  # noqa: FBT001
    roles: Sequence[Role],
) -> AdapterEncoder:
    return AdapterEncoder(load, parts, reuse=reuse, roles=roles)
