"""Objects that ask servers, shared by all who name the same address, key and options."""

from __future__ import annotations

import inspect
import json
import threading
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from m3_core.forks import survive_forks
from m3_core.http_client import key_of_environment, plain_key, server_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Client(Protocol):
    """What ``SharedClients`` makes."""

    @property
    def closed(self) -> bool:
        """Whether it was closed."""

    @property
    def is_outdated(self) -> bool:
        """Whether it is of no more use, since the server has another model."""


C = TypeVar("C", bound=Client)


class SharedClients(Generic[C]):
    """Objects that ask servers, one for each address, key and options in a process.

    Args:
        make: Makes one of an address, a key and options.
    """

    def __init__(self, make: Callable[..., C]) -> None:
        self._make = make
        parameters = inspect.signature(make).parameters
        self._defaults = {name: one.default for name, one in parameters.items()}
        self._known: dict[Any, C] = {}
        self.after_fork()
        survive_forks(self)

    def after_fork(self) -> None:
        """Replace the lock, which another thread may have held."""
        self._lock = threading.Lock()

    def get(self, url: str, api_key: Any, options: Mapping[str, Any]) -> C:
        """Give the one that there is, or make it.

        Args:
            url: The address.
            api_key: The key; by default that of the environment.
            options: Of the constructor; ``None`` stands for its default.

        Returns:
            The same for equal arguments, unless it was closed or is outdated.
        """
        key = plain_key(api_key)
        given = {
            name: value
            for name, value in options.items()
            if value is not None and value != self._defaults.get(name)
        }
        seen = key_of_environment() if key is None else key
        about = server_url(url), seen, json.dumps(given, sort_keys=True, default=str)
        with self._lock:
            known = self._known.get(about)
            if known is None or known.closed or known.is_outdated:
                known = self._known[about] = self._make(url, key, **given)
            return known
