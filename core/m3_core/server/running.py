"""Running the app with uvicorn, until a signal asks it to end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from m3_core.server.app import create_app
from m3_core.server.logs import log_as_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from m3_core.server.models import Entry
    from m3_core.server.options import ServerOptions

_log = logging.getLogger("m3_core.server")

_LOCAL = frozenset(("127.0.0.1", "localhost", "::1"))
_BACKLOG = 2048


def serve(
    models: Mapping[str, Entry],
    options: ServerOptions,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    grace_seconds: float = 30.0,
    log_level: str = "info",
) -> None:
    """Serve models until SIGTERM or SIGINT; then finish what runs, and refuse what is new.

    Args:
        models: As of ``create_app``.
        options: Keys and limits.
        host: Address to listen at.
        port: Port; 0 for any that is free, which the log names.
        grace_seconds: Time that running requests have to finish once a signal has come.
        log_level: Of the lines of JSON on standard error.

    Raises:
        OSError: The address or the port is not to be had.
        Exception: What loading a model raised.
    """
    _check_free(host, port)
    log_as_json(log_level)
    _raise_file_limit()
    if host not in _LOCAL and not options.api_keys:
        _log.warning("anyone who reaches this address may ask: no API key is set")

    def stop() -> None:
        server.should_exit = True

    app = create_app(models, options, on_failure=stop)
    server: uvicorn.Server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            # Its own lines would name paths and addresses of clients.
            access_log=False,
            log_config=None,
            log_level=log_level,
            lifespan="on",
            backlog=_BACKLOG,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=max(1, round(grace_seconds)),
        )
    )
    with _signals_end_nothing_else():
        server.run()
    failure = app.state.service.models.failure
    if failure is not None:
        raise failure


def _check_free(host: str, port: int) -> None:
    """Bind once before anything else: uvicorn says it when models are being loaded already."""
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in places:
            with socket.socket(family, kind, protocol) as trying:
                if os.name == "posix":
                    # As uvicorn does: connections that have ended may linger.
                    trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    trying.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                trying.bind(address)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot listen at {host}, port {port}: {error.strerror}"
        ) from error


@contextmanager
def _signals_end_nothing_else() -> Iterator[None]:
    """Let the process end by itself: uvicorn raises the signals again once it has stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(one, lambda *_: None) for one in ending]
    try:
        yield
    finally:
        for one, handler in zip(ending, before, strict=True):
            signal.signal(one, handler)


def _raise_file_limit() -> None:
    """Let there be as many connections as the system allows: the usual limit is 1,024."""
    try:
        import resource
    except ModuleNotFoundError:
        # Windows has no such limit.
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
