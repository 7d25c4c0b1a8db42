"""What stands before all routes: the key, the size of the body, errors, figures and the log."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import orjson

from m3_core.server.failures import (
    ClientGoneError,
    Protocol,
    RequestError,
    as_request_error,
    error_body,
)
from m3_core.server.service import too_large

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from m3_core.server.service import Call, Service

_log = logging.getLogger("m3_core.server.requests")

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"))
_PIECE = 1 << 20
# What a socket takes at once.
_SMALL = 1 << 16
# Who sends more than is allowed reads the answer only after it has sent all.
_DRAINED_SECONDS = 5.0
_OPEN_PATHS = frozenset(("/health",))
# By machines that look after the server.
_ASKED_OFTEN = frozenset(("/health", "/metrics"))
_CLIENT_LEFT = 499


class Gate:
    """Wraps the app.

    Args:
        app: The routes.
        service: The server.
        protocols: Paths, and whose error bodies are given there; OpenAI's elsewhere.
    """

    def __init__(self, app: ASGIApp, service: Service, protocols: Mapping[str, Protocol]) -> None:
        self._app = app
        self._service = service
        self._protocols = protocols
        self._keys = [_digest(key.encode()) for key in service.options.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        scope.setdefault("state", {})
        answer = _Answer(send, scope["state"], self._service.options.send_seconds)
        incoming = _Incoming(receive)
        try:
            try:
                self._check(scope)
                await self._app(scope, incoming, answer)
            except Exception as error:  # noqa: BLE001 (every error gets an answer)
                await self._refuse(scope, incoming, answer, error)
        finally:
            self._note(scope, answer, time.perf_counter() - began)

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        if self._keys and scope["path"] not in _OPEN_PATHS:
            scheme, _, sent = headers.get(b"authorization", b"").partition(b" ")
            # Schemes are the same in any case.
            given = _digest(sent.strip() if scheme.lower() == b"bearer" else b"")
            # In a time that does not tell how much of it was right.
            if not any(hmac.compare_digest(given, key) for key in self._keys):
                raise RequestError(
                    401, "send the server's key: Authorization: Bearer KEY", "invalid_api_key"
                )
        length = headers.get(b"content-length", b"")
        most = self._service.options.max_body_bytes
        if length.isdigit() and int(length) > most:
            raise too_large(most)

    async def _refuse(
        self, scope: Scope, incoming: _Incoming, answer: _Answer, error: Exception
    ) -> None:
        if isinstance(error, ClientGoneError):
            answer.status = answer.status or _CLIENT_LEFT
            return
        call: Call | None = scope["state"].get("call")
        protocol = call.protocol if call else self._protocols.get(scope["path"], "openai")
        told = as_request_error(error, protocol)
        if answer.status:
            # Half of another answer is sent: what follows could only be taken for its rest.
            answer.status = told.status
            return
        if told.status != 408:
            await incoming.drain()
        await answer.tell(told, protocol)

    def _note(self, scope: Scope, answer: _Answer, seconds: float) -> None:
        route: Any = scope.get("route")
        path = getattr(route, "path", "unmatched")
        status = answer.status or 500
        self._service.metrics.answered(path, status, seconds)
        call: Call | None = scope["state"].get("call")
        entry: dict[str, Any] = {
            "id": answer.identity,
            "method": scope["method"] if scope["method"] in _METHODS else "other",
            "route": path,
            "status": status,
            "ms": round(seconds * 1000, 2),
        }
        if call is not None and call.model is not None:
            meter = call.meter
            entry |= {"model": call.model, "texts": meter.texts, "tokens": meter.tokens}
            entry["truncated"] = meter.truncated
        _log.log(logging.DEBUG if path in _ASKED_OFTEN else logging.INFO, "request", extra=entry)


class _Answer:
    """Sends an answer: large ones in pieces, each within a time.

    Args:
        send: The server's.
        state: Of the request; may hold the call.
        seconds: Time for each piece.
    """

    def __init__(self, send: Send, state: Mapping[str, Any], seconds: float) -> None:
        self._send = send
        self._state = state
        self._seconds = seconds
        self.identity = uuid4().hex
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self.identity.encode())]
            call: Call | None = self._state.get("call")
            if call is not None and call.meter.truncated:
                headers.append((b"x-truncated-texts", str(call.meter.truncated).encode()))
            await self._send({**message, "headers": headers})
            return
        body = message.get("body", b"")
        more = message.get("more_body", False)
        whole = memoryview(body)
        if len(whole) <= _SMALL:
            await self._send(message)
            return
        for at in range(0, len(whole), _PIECE):
            piece = body if len(whole) <= _PIECE else bytes(whole[at : at + _PIECE])
            rest = more or at + _PIECE < len(whole)
            await self._within({"type": message["type"], "body": piece, "more_body": rest})

    async def _within(self, message: Message) -> None:
        try:
            await asyncio.wait_for(self._send(message), self._seconds)
        except asyncio.TimeoutError:
            raise ClientGoneError from None

    async def tell(self, error: RequestError, protocol: Protocol) -> None:
        """Send an error.

        Args:
            error: The error.
            protocol: Whose shape it has.
        """
        body = orjson.dumps(error_body(protocol, error))
        headers = [(b"content-type", b"application/json")]
        headers.append((b"content-length", str(len(body)).encode()))
        if error.retry_after is not None:
            headers.append((b"retry-after", str(error.retry_after).encode()))
        if error.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if error.status in (408, 413):
            headers.append((b"connection", b"close"))
        await self({"type": "http.response.start", "status": error.status, "headers": headers})
        await self({"type": "http.response.body", "body": body})


class _Incoming:
    """The body of a request as it arrives.

    Args:
        receive: The server's.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._complete = False

    async def __call__(self) -> Message:
        message = await self._receive()
        self._complete = not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Read and forget the rest of the body, for a while."""
        try:
            await asyncio.wait_for(self._rest(), _DRAINED_SECONDS)
        except asyncio.TimeoutError:
            return

    async def _rest(self) -> None:
        while not self._complete:
            await self()


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
