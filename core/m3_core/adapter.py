"""What the frameworks' adapters see of an encoder: their parts, through the shared cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m3_core.cache import PARTS, CacheUser, cache_of, compute
from m3_core.errors import MissingRepresentationError
from m3_core.registry import adapter_encoder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from m3_core.encoder import Encoder
    from m3_core.encoding import Role
    from m3_core.representations import Representations


class AdapterEncoder:
    """An encoder as an adapter sees it: always the same parts, through the model's cache.

    Args:
        encoder: The encoder.
        parts: Of ``"dense"``, ``"sparse"`` and ``"colbert"``, what the adapter asks for.
        reuse: Take part in the cache; without, each call runs the network.
        roles: The roles in which the adapter encodes.

    Raises:
        ValueError: There is no such part.
        MissingRepresentationError: The model does not give one of the parts.
    """

    def __init__(
        self,
        encoder: Encoder,
        parts: Collection[str],
        *,
        reuse: bool = True,
        roles: Sequence[Role] = ("query", "document"),
    ) -> None:
        unknown = sorted(set(parts) - set(PARTS))
        if unknown:
            raise ValueError(f"parts are of {', '.join(PARTS)}; got {', '.join(unknown)}")
        absent = sorted(set(parts) - encoder.representations)
        if absent:
            raise MissingRepresentationError(
                f"{' and '.join(absent)} is needed here, but {encoder.name!r} gives only "
                f"{', '.join(sorted(encoder.representations))}: load an M3 checkpoint"
            )
        self.encoder = encoder
        self.parts = tuple(part for part in PARTS if part in parts)
        self.reuse = reuse
        self._user = CacheUser(encoder, self.parts, tuple(roles))
        self._cache = cache_of(encoder.model) if reuse else None
        if self._cache is not None:
            self._cache.announce(self._user)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.encoder, self.parts, self.reuse, self._user.roles)

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
        return await self.encoder.run_async(self.queries, texts, **options)

    async def adocuments(self, texts: Iterable[str], **options: Any) -> Representations:
        """Do ``documents`` off the event loop."""
        return await self.encoder.run_async(self.documents, texts, **options)

    def _encode(self, role: Role, texts: Iterable[str], *, show_progress: bool) -> Representations:
        if self._cache is None:
            return compute(self.encoder, role, texts, self.parts, show_progress=show_progress)
        return self._cache.encode(self._user, role, texts, show_progress=show_progress)


def adapter_encodings(
    encoder: Encoder | None,
    name: str,
    options: Mapping[str, Any],
    parts: Collection[str],
    *,
    reuse: bool = True,
) -> AdapterEncoder:
    """Give an adapter its encoder, seen through the cache of the loaded model.

    Args:
        encoder: As of ``registry.adapter_encoder``.
        name: As there.
        options: As there.
        parts: What the adapter will ask for.
        reuse: Take part in the cache.

    Returns:
        The adapter's view; its ``encoder`` is the one of ``registry.adapter_encoder``.
    """
    return AdapterEncoder(adapter_encoder(encoder, name, options), parts, reuse=reuse)


def _restore(
    encoder: Encoder,
    parts: Collection[str],
    reuse: bool,  # noqa: FBT001
    roles: Sequence[Role],
) -> AdapterEncoder:
    return AdapterEncoder(encoder, parts, reuse=reuse, roles=roles)
