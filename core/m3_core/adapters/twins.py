"""Asynchronous methods that follow the synchronous ones which subclasses replace."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from m3_core.beside import beside

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator


class AsyncTwins:
    """A class whose asynchronous methods compute what its synchronous ones do.

    The frameworks' own asynchronous methods run the synchronous ones in a thread, so a subclass
    needs to replace only these. Ours await the encoder instead. Where a subclass replaces
    ``embed_query`` and leaves ``aembed_query`` alone, that runs its ``embed_query`` in a thread.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give the class asynchronous methods for those that it replaces."""
        super().__init_subclass__(**kwargs)
        for name, twin in _left_behind(cls):
            setattr(cls, twin, _in_thread(name, getattr(cls, twin)))

    def _sync_keywords(self, keywords: dict[str, Any]) -> dict[str, Any]:
        """Turn keywords of an asynchronous method into those of the synchronous one."""
        return keywords


def _left_behind(cls: type) -> Iterator[tuple[str, str]]:
    """Synchronous methods that stand before their asynchronous twins in the order of bases."""
    seen: set[str] = set()
    twins: dict[str, tuple[str, type]] = {}
    for kind in cls.__mro__:
        for name, value in vars(kind).items():
            if not inspect.isfunction(value) or name in seen:
                continue
            seen.add(name)
            if not inspect.iscoroutinefunction(value):
                twins[_twin(name)] = (name, kind)
            elif name in twins and twins[name][1] is not kind and issubclass(kind, AsyncTwins):
                yield twins[name][0], name


def _twin(name: str) -> str:
    stem = name.lstrip("_")
    return f"{name[: len(name) - len(stem)]}a{stem}"


def _in_thread(
    name: str, twin: Callable[..., Coroutine[Any, Any, Any]]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(twin)
    async def run(self: AsyncTwins, *args: Any, **keywords: Any) -> Any:
        return await beside(getattr(self, name), *args, **self._sync_keywords(keywords))

    return run
