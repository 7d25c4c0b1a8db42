"""Asking an HTTP server, from any thread and any event loop, after forks too."""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import os
import random
import re
import time
import weakref
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from m3_core.errors import BadReplyError, ClosedError, RemoteError
from m3_core.extras import needs_extra
from m3_core.forks import survive_forks
from m3_core.json_text import parse_json
from m3_core.request_thread import inherited, requests
from m3_core.values import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from concurrent.futures import Future

    import httpx

T = TypeVar("T")

_log = logging.getLogger("m3_core")

KEY_VARIABLE = "M3_API_KEY"
"""The environment variable with the key where none is given."""

_RETRIED = frozenset({429, 502, 503, 504})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 8.0
# Longer than that nobody waits for a server that says when it is ready.
_MOST_PATIENCE = 60.0
_CONNECT_SECONDS = 10.0
# Below the 5 seconds after which uvicorn closes connections that nobody uses.
_KEPT_SECONDS = 4.0
_MOST_CONNECTIONS = 64
# Larger ones are read beside the event loop.
_BYTES_ON_THE_LOOP = 1 << 16
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How a server is asked.

    Attributes:
        timeout: Seconds that one request may take, the server's own waiting included.
        retries: How often a request is sent again that found no server, or one that is busy.
        in_flight: Requests of one call at the same time.
        headers: Further headers, as (name, value).
        verify: Check the certificate of ``https``; or the path of a file with other authorities.
    """

    timeout: float = 120.0
    retries: int = 5
    in_flight: int = 4
    # They may hold secrets.
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    verify: bool | str = True

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise ValueError(f"timeout must be a number of seconds above 0; got {self.timeout!r}")
        if self.retries < 0 or self.in_flight < 1:
            raise ValueError(
                f"retries must be at least 0 and in_flight at least 1; got {self.retries!r} and "
                f"{self.in_flight!r}"
            )


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server has answered.

    Attributes:
        status: The HTTP status.
        content_type: Without parameters.
        body: The body.
        place: What was asked, for errors.
        truncated: How many texts were cut to the model's length, if the server says it.
    """

    status: int
    content_type: str
    body: bytes
    place: str
    truncated: int = 0

    def json(self) -> Any:
        """Read the body as JSON.

        Returns:
            What it says.

        Raises:
            BadReplyError: It is none.
        """
        try:
            return parse_json(self.body)
        except ValueError as error:
            raise BadReplyError(
                f"{self.place} answered with what is no JSON ({self.content_type or 'no type'}): "
                f"{shown(self.body[:60])}",
                self.status,
            ) from error


def server_url(url: str) -> str:
    """Give the address of a server as it is compared and asked.

    Args:
        url: ``http://host:port`` or ``https://…``; a path before which the server stands is kept,
            a final ``/v1``, as clients of OpenAI want it, is not.

    Returns:
        The address without a slash at its end.

    Raises:
        ValueError: It is no such address, or holds a password.

    Example:
        >>> server_url("http://LOCALHOST:8000/v1/")
        'http://localhost:8000'
    """
    parts = None
    try:
        parts = urlsplit(url.strip()) if isinstance(url, str) else None
        is_one = parts is not None and parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        is_one = False
    if parts is None or not is_one or not parts.hostname:
        raise ValueError("a server's address is http://host:port or https://host; got another")
    if parts.username is not None or parts.password is not None:
        # Not shown: addresses are printed and saved.
        raise ValueError("the server's address holds a name or password: pass the key as api_key=")
    if parts.query or parts.fragment:
        raise ValueError("a server's address ends with its path, without ? and #")
    path = re.sub(r"/v1$", "", parts.path.rstrip("/"))
    return urlunsplit((parts.scheme, parts.netloc.lower(), path.rstrip("/"), "", ""))


class HttpClient:
    """Requests to one server.

    Args:
        url: As of ``server_url``.
        api_key: Sent as ``Authorization: Bearer …``; by default that of ``M3_API_KEY``.
        options: How it is asked.
        what: What needs it, for the error if httpx is absent.
    """

    def __init__(self, url: str, api_key: str | None, options: HttpOptions, what: str) -> None:
        self.url = server_url(url)
        self.options = options
        with needs_extra(what, "remote", "httpx"):
            import httpx
        self._httpx = httpx
        self._headers = dict(options.headers)
        if key := key_of_environment() if api_key is None else api_key.strip():
            _check_header("api_key", key)
            self._headers["Authorization"] = f"Bearer {key}"
        self.counts: Counter[str] = Counter()
        self._closed = False
        # Of one element, since the object is no more when its connections are closed.
        self._clients: list[httpx.AsyncClient] = []
        weakref.finalize(self, requests.abandon, self._clients).atexit = False
        survive_forks(self)

    def after_fork(self) -> None:
        """Leave the connections to the parent: whatever is sent on them would go between its."""
        inherited.extend(self._clients)
        self._clients.clear()

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._closed

    def close(self) -> None:
        """Close the connections; further requests raise ``ClosedError``."""
        self._closed = True
        requests.abandon(self._clients)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that makes requests, and wait for it.

        Args:
            coroutine: It runs on the thread of requests.

        Returns:
            What it returns.
        """
        future = self._start(coroutine)
        try:
            return future.result()
        except BaseException:
            # Of an interrupted caller; nothing where the coroutine itself has failed.
            future.cancel()
            raise

    async def arun(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Do ``run`` on any event loop, without a thread; cancelled, it ends the requests."""
        return await asyncio.wrap_future(self._start(coroutine))

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        if self._closed:
            coroutine.close()
            raise ClosedError(f"the client of {self.url} was closed: make another one")
        return requests.start(coroutine)

    async def request(
        self, method: str, path: str, body: Any = None, accept: str = "application/json"
    ) -> Reply:
        """Ask, and ask again where the server is away or busy.

        Args:
            method: ``"GET"`` or ``"POST"``.
            path: After the server's address.
            body: What is sent as JSON.
            accept: The type of the reply that is wished for.

        Returns:
            A reply of status 200.

        Raises:
            RemoteError: The server could not be reached, took too long, or refuses.
        """
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        place = f"{method} {self.url}{path}"
        tries = 0
        while True:
            tries += 1
            self.counts["requests"] += 1
            wished: float | None = None
            try:
                reply, wished = await self._once(method, path, content, accept, place)
            except (self._httpx.LocalProtocolError, self._httpx.UnsupportedProtocol) as error:
                # Of this side: it would be no better the next time.
                raise RemoteError(f"{place}: {_said(error)}") from error
            except self._httpx.TransportError as error:
                self.counts["failures"] += 1
                failed = RemoteError(f"{place}: {_said(error)}; {_tried(tries)}")
                failed.__cause__ = error
            else:
                if reply.status == 200:
                    return reply
                failed = _refused(reply, tries)
                if reply.status not in _RETRIED:
                    raise failed
            if tries > self.options.retries or (wished or 0) > _MOST_PATIENCE:
                raise failed
            longest = min(_FIRST_PAUSE * 2 ** (tries - 1), _LONGEST_PAUSE)
            # At random, so that clients of a server that has come back do not come at once.
            pause = random.uniform(longest / 2, longest)
            if wished is not None:
                pause = wished + random.uniform(0, _FIRST_PAUSE)
            self.counts["retries"] += 1
            _log.debug("%s: asked again in %.2f s", failed, pause)
            await asyncio.sleep(pause)

    async def _once(
        self, method: str, path: str, content: bytes | None, accept: str, place: str
    ) -> tuple[Reply, float | None]:
        headers = {"Accept": accept}
        if content is not None:
            headers["Content-Type"] = "application/json"
        asked = self._connected().request(method, self.url + path, content=content, headers=headers)
        try:
            # Of the whole: a server that sends a byte now and then would never time out.
            reply = await asyncio.wait_for(asked, self.options.timeout)
        except (asyncio.TimeoutError, self._httpx.ReadTimeout, self._httpx.WriteTimeout) as error:
            # Not asked again: a server that is this slow has enough to do.
            raise RemoteError(
                f"{place}: no answer within timeout={self.options.timeout:g} seconds"
            ) from error
        except self._httpx.DecodingError as error:
            raise BadReplyError(f"{place}: the body cannot be decoded: {error}") from error
        self.counts["bytes"] += len(reply.content)
        kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        if reply.is_redirect:
            kind = f"to {reply.headers.get('location', 'nowhere')!r:.120}"
        said = reply.headers.get("x-truncated-texts", "")
        truncated = int(said) if said.isdecimal() and len(said) < 10 else 0
        return (
            Reply(reply.status_code, kind, reply.content, place, truncated),
            _retry_after(reply.headers.get("retry-after")),
        )

    def _connected(self) -> httpx.AsyncClient:
        if not self._clients:
            options, httpx = self.options, self._httpx
            made = httpx.AsyncClient(
                headers={"User-Agent": "m3-retrieval", **self._headers},
                timeout=httpx.Timeout(
                    options.timeout, connect=min(_CONNECT_SECONDS, options.timeout), pool=None
                ),
                limits=httpx.Limits(
                    max_connections=_MOST_CONNECTIONS,
                    max_keepalive_connections=_MOST_CONNECTIONS,
                    keepalive_expiry=_KEPT_SECONDS,
                ),
                # The key is for this server alone, and a POST would not stay one.
                follow_redirects=False,
                # Nor for a proxy of the environment, which would look for the server at home.
                trust_env=not _is_here(self.url),
                verify=_authorities(options.verify) if self.url.startswith("https") else False,
            )
            self._clients.append(made)
            requests.clients.add(made)
        return self._clients[0]


def key_of_environment() -> str:
    """Give the key that is sent where none is given.

    Returns:
        That of ``M3_API_KEY``; the first, where there are several, as servers take them while
        their key is changed. Empty if there is none.
    """
    return next(iter(os.environ.get(KEY_VARIABLE, "").split()), "")


def _check_header(name: str, value: Any) -> None:
    """Refuse what no header can hold, without showing it, as httpx would in its error and log."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise ValueError(f"{name} holds characters that no HTTP header can")
    if value != value.strip():
        raise ValueError(f"{name} begins or ends with a space")


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


async def read_beside(reply: Reply, read: Callable[[Reply], T]) -> T:
    """Read a reply; a large one where it does not hold up other requests.

    Args:
        reply: The reply.
        read: Makes something of it.

    Returns:
        What ``read`` returns.
    """
    if len(reply.body) <= _BYTES_ON_THE_LOOP:
        return read(reply)
    return await asyncio.get_running_loop().run_in_executor(None, read, reply)


def _authorities(verify: bool | str) -> Any:  # noqa: FBT001
    if isinstance(verify, bool):
        return verify
    import ssl

    return ssl.create_default_context(cafile=verify)


def _retry_after(value: str | None) -> float | None:
    """Seconds that a server asks to wait: it says a number, or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value)) if value.strip().isdigit() else _until(value)
    except (ValueError, OverflowError, TypeError):
        return None


def _until(date: str) -> float:
    return max(0.0, email.utils.parsedate_to_datetime(date).timestamp() - time.time())


def _refused(reply: Reply, tries: int) -> RemoteError:
    status = reply.status
    if status in (401, 403):
        instead = f": pass the server's key as api_key= or set {KEY_VARIABLE}"
    elif 300 <= status < 400:
        instead = f" redirects {reply.content_type}, which is not followed: pass that address"
        return RemoteError(f"{reply.place}{instead}", status)
    elif status in _RETRIED:
        instead = f"; {_tried(tries)}"
    else:
        instead = ""
    return RemoteError(
        f"{reply.place} was answered with {status}{_words(reply.body)}{instead}", status
    )


def _words(body: bytes) -> str:
    """What the body of an error says, in the shapes of OpenAI, TEI, FastAPI and others."""
    try:
        found = parse_json(body)
    except ValueError:
        found = body.decode(errors="replace")
    for key in ("error", "detail", "message"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    text = found if isinstance(found, str) else json.dumps(found, default=str)
    text = " ".join(text.split())[:_SHOWN_CHARACTERS]
    return f" ({text})" if text else ""


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _tried(tries: int) -> str:
    return "tried once" if tries == 1 else f"tried {tries} times"


def hidden_headers(headers: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """Give headers as ``HttpOptions`` has them.

    Args:
        headers: The headers.

    Returns:
        The same, in the order of their names.

    Raises:
        ValueError: One cannot be sent.
    """
    listed = tuple(sorted((headers or {}).items()))
    for name, value in listed:
        if not isinstance(name, str) or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError(f"{shown(name)} is no name of an HTTP header")
        _check_header(f"the header {name}", value)
    return listed


def plain_key(api_key: Any) -> str | None:
    """Take a key out of pydantic's ``SecretStr``.

    Args:
        api_key: A string, a ``SecretStr``, or ``None``.

    Returns:
        The string, or ``None``.

    Raises:
        TypeError: It is something else.
    """
    key = api_key.get_secret_value() if hasattr(api_key, "get_secret_value") else api_key
    if key is not None and not isinstance(key, str):
        # Not shown: it may be the key in another form.
        raise TypeError(f"api_key must be a str or a SecretStr; got {type(api_key).__name__}")
    return key


@contextmanager
def progress(items: int, doing: str, unit: str, *, show: bool) -> Iterator[Callable[[int], object]]:
    """Show how far requests have come.

    Args:
        items: How many there are.
        doing: What the bar says is done.
        unit: What is counted.
        show: Show it.

    Yields:
        What is told how many more are done.
    """
    if not show:
        yield lambda _: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=items, desc=doing, unit=unit) as bar:
        yield bar.update
