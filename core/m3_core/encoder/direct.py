"""Encoding without memory: what the cache computes with, and what takes its place."""

from __future__ import annotations

from collections.abc import Sized
from typing import TYPE_CHECKING, TypeVar

from m3_core.beside import beside
from m3_core.encoder.protocol import flags_of
from m3_core.texts import check_texts, distinct

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from m3_core.encoder.cache import CacheUser
    from m3_core.encoder.protocol import Role, TextEncoder
    from m3_core.representations import Representations

# What is done with so many texts beside the network takes about a millisecond; more would hold up
# an event loop.
TEXTS_ON_THE_LOOP = 32

T = TypeVar("T")


class Direct:
    """What takes the cache's place where nothing is to be remembered: distinct texts, no more."""

    def encode(
        self,
        user: CacheUser,
        role: Role,
        texts: Iterable[str],
        parts: Sequence[str],
        *,
        show_progress: bool,
    ) -> Representations:
        """Give representations, as ``EncodingCache.encode``, of the network in any case."""
        order, unique = distinct(check_texts(texts))
        reps = encode_parts(user.encoder, role, unique, parts, show_progress=show_progress)
        return reps if len(unique) == len(order) else reps[order]

    async def aencode(
        self,
        user: CacheUser,
        role: Role,
        texts: Iterable[str],
        parts: Sequence[str],
        *,
        show_progress: bool,
    ) -> Representations:
        """Do ``encode`` without holding up the event loop or occupying a thread."""
        many = isinstance(texts, Sized) and len(texts) > TEXTS_ON_THE_LOOP
        order, unique = await aside(many, lambda: distinct(check_texts(texts)))
        reps = await aencode_parts(user.encoder, role, unique, parts, show_progress=show_progress)
        if len(unique) == len(order):
            return reps
        return await aside(many, lambda: reps[order])


async def aside(many: bool, function: Callable[[], T]) -> T:  # noqa: FBT001
    """Call a function that computes; where it has many texts, off the event loop.

    Args:
        many: It has more than ``TEXTS_ON_THE_LOOP``.
        function: The function.

    Returns:
        What it returns.
    """
    return await beside(function) if many else function()


def encode_parts(
    encoder: TextEncoder,
    role: Role,
    texts: Iterable[str],
    parts: Collection[str],
    *,
    max_length: int | None = None,
    show_progress: bool = False,
) -> Representations:
    """Run the network, whatever is remembered.

    Args:
        encoder: The encoder.
        role: Which instruction stands before the texts.
        texts: The texts.
        parts: What to give.
        max_length: Tokens a text at most, in this call.
        show_progress: Show a progress bar.

    Returns:
        Those parts, in the order of the texts.
    """
    encode = encoder.encode_queries if role == "query" else encoder.encode_documents
    return encode(texts, **flags_of(parts), max_length=max_length, show_progress=show_progress)


async def aencode_parts(
    encoder: TextEncoder,
    role: Role,
    texts: Iterable[str],
    parts: Collection[str],
    *,
    max_length: int | None = None,
    show_progress: bool = False,
) -> Representations:
    """Do ``encode_parts`` without holding up the event loop."""
    encode = encoder.aencode_queries if role == "query" else encoder.aencode_documents
    return await encode(
        texts, **flags_of(parts), max_length=max_length, show_progress=show_progress
    )
