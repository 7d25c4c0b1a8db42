"""How every request is answered: read, checked, admitted, computed while the client is there."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict

from m3_core.network import Meter, metered
from m3_core.server.failures import ClientGoneError, Protocol, RequestError
from m3_core.server.metrics import Metrics, Pace, engine_stats
from m3_core.server.tracing import span

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from starlette.requests import Request
    from starlette.responses import Response

    from m3_core.server.models import Models, Served
    from m3_core.server.options import ServerOptions

T = TypeVar("T")
B = TypeVar("B", bound="Body")

# So many texts go before long work in the engine, which they would not wait for.
_FEW_TEXTS = 8


class Body(BaseModel):
    """The body of a request. Nothing is converted, and a field that is not known is an error."""

    model_config = ConfigDict(strict=True, extra="forbid")


class RequestMeter(Meter):
    """Counts a request's tokens, and stops it where they are too many or would be cut.

    Args:
        limit: Tokens at most.
    """

    __slots__ = ("limit", "may_cut")

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.may_cut = True

    def add(self, texts: int, tokens: int, truncated: int) -> None:
        """Count texts before they are computed."""
        super().add(texts, tokens, truncated)
        if truncated and not self.may_cut:
            raise RequestError(
                413,
                f"{truncated} of {texts} texts are longer than the model's max_length: split them, "
                "or let them be cut (truncate: true)",
                "text_too_long",
            )
        if self.tokens > self.limit:
            raise RequestError(
                413,
                f"the request has {self.tokens} tokens or more; {self.limit} are allowed: send "
                "fewer texts at a time",
                "too_many_tokens",
            )


@dataclass(slots=True)
class Call:
    """A request while it is answered.

    Attributes:
        service: The server.
        protocol: Whose error bodies its client reads.
        accept: Its ``Accept`` header.
        meter: Counts its tokens.
        model: The name of the model that it turned out to ask.
    """

    service: Service
    protocol: Protocol
    accept: str
    meter: RequestMeter
    agent: str = ""
    model: str | None = None
    held: int = field(default=0, repr=False)

    def encoder(self, name: str | None = None) -> Served:
        """Find the encoder that is asked, as ``Models.encoder`` does."""
        return self._noted(self.service.models.encoder(name))

    def scorer(self, name: str | None = None) -> Served:
        """Find the model that scores, as ``Models.scorer`` does."""
        return self._noted(self.service.models.scorer(name))

    def admit(self, texts: int) -> None:
        """Let texts pass unless they are too many, or too much waits already.

        Args:
            texts: How many texts, or pairs, will be computed.

        Raises:
            RequestError: They must not be computed now.
        """
        options = self.service.options
        if texts > options.max_texts:
            raise RequestError(
                413,
                f"the request has {texts} texts; {options.max_texts} are allowed: send it in parts",
                "too_many_texts",
            )
        if texts > _FEW_TEXTS:
            self.service.check_queue(self.model)

    def _noted(self, served: Served) -> Served:
        self.model = served.name
        return served


class Service:
    """A server's models, limits and figures.

    Args:
        models: The models.
        options: The limits.

    Attributes:
        running: Requests that are being computed.
        held_bytes: Bytes of the bodies of all requests.
    """

    def __init__(self, models: Models, options: ServerOptions) -> None:
        self.models = models
        self.options = options
        self.metrics = Metrics(models)
        self.running = 0
        self.held_bytes = 0
        self._pace = Pace()

    async def answer(
        self,
        request: Request,
        protocol: Protocol,
        body_type: type[B] | None,
        handler: Callable[[Call, B], Awaitable[Response]],
    ) -> Response:
        """Answer a request.

        Args:
            request: The request.
            protocol: Whose error bodies its client reads.
            body_type: What its body must be.
            handler: Computes the answer.

        Returns:
            The answer.

        Raises:
            RequestError: It is not answered.
            ClientGoneError: The client left.
        """
        headers = request.headers
        call = Call(
            self,
            protocol,
            headers.get("accept", ""),
            RequestMeter(self.options.max_tokens),
            headers.get("user-agent", ""),
        )
        request.state.call = call
        self.models.check_ready()
        try:
            parsed = None
            if body_type is not None:
                parsed = body_type.model_validate_json(await self._read(request, call))
            with self._place(), metered(call.meter), span(request, call):
                answer = await while_connected(
                    request,
                    handler(call, parsed),  # type: ignore[arg-type]  # None where no type is given
                )
        finally:
            self.held_bytes -= call.held
        self.metrics.computed(call.meter.texts, call.meter.truncated)
        return answer

    def check_queue(self, model: str | None) -> None:
        """Refuse long work while too much waits for a model.

        Args:
            model: Its name.

        Raises:
            RequestError: Too much waits.
        """
        for served in self.models:
            stats = engine_stats(served) if served.name == model else None
            if stats is not None and stats.waiting_tokens > self.options.max_waiting_tokens:
                raise RequestError(
                    429,
                    f"{stats.waiting_tokens} tokens wait for the model already: ask again later",
                    "engine_full",
                    retry_after=self._pace.seconds_for(stats.waiting_tokens, stats.tokens),
                )

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Take one of the places of requests that are computed."""
        most = self.options.max_requests
        if self.running >= most:
            raise RequestError(
                429,
                f"{most} requests are being computed already: ask again later",
                "too_many_requests",
                retry_after=1,
            )
        self.running += 1
        self.metrics.running.set(self.running)
        try:
            yield
        finally:
            self.running -= 1
            self.metrics.running.set(self.running)

    async def _read(self, request: Request, call: Call) -> bytes:
        """Read the body, no more of it than is allowed and no longer."""
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise RequestError(415, "send the body without compression", "content_encoding")
        try:
            return await asyncio.wait_for(self._parts(request, call), self.options.body_seconds)
        except asyncio.TimeoutError:
            raise RequestError(
                408,
                f"the body did not arrive within {self.options.body_seconds:g} s",
                "body_too_slow",
            ) from None

    async def _parts(self, request: Request, call: Call) -> bytes:
        options, body = self.options, bytearray()
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part = message.get("body", b"")
            body += part
            call.held += len(part)
            self.held_bytes += len(part)
            if len(body) > options.max_body_bytes:
                raise too_large(options.max_body_bytes)
            if self.held_bytes > options.max_held_bytes:
                raise RequestError(
                    429,
                    "the bodies of all requests take too much memory: ask again later",
                    "too_many_bytes",
                    retry_after=1,
                )
            if not message.get("more_body", False):
                return bytes(body)


def too_large(most: int) -> RequestError:
    """The error of a body that is larger than allowed."""
    return RequestError(
        413, f"the body is larger than {most} bytes: send it in parts", "body_too_large"
    )


async def while_connected(request: Request, work: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
    """Compute as long as the client is there: who left gives up its place in the engine.

    Args:
        request: The request; its body was read.
        work: What computes the answer.

    Returns:
        What it gives.

    Raises:
        ClientGoneError: The client left before.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
