"""Spans of OpenTelemetry around requests, where its package is installed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

    from m3_core.server.service import Call

try:
    from opentelemetry import propagate, trace
except ModuleNotFoundError:
    trace = None  # type: ignore[assignment]  # it is an extra that nobody needs


@contextmanager
def span(request: Request, call: Call) -> Iterator[None]:
    """Trace a request: its route, model and sizes, never its texts.

    Args:
        request: The request; its headers may name the trace that it belongs to.
        call: Says afterwards what was computed.

    Yields:
        To what answers it.
    """
    if trace is None:
        yield
        return
    route: Any = request.scope.get("route")
    parent = propagate.extract(dict(request.headers))
    tracer = trace.get_tracer("m3_core.server")
    name = f"{request.method} {route.path}" if route is not None else request.method
    with tracer.start_as_current_span(
        name,
        context=parent,
        kind=trace.SpanKind.SERVER,
        # An error's text may name what a client sent.
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield
        except BaseException as error:
            current.set_status(trace.StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            found = {
                "m3.model": call.model,
                "m3.texts": call.meter.texts,
                "m3.tokens": call.meter.tokens,
                "m3.truncated": call.meter.truncated,
            }
            current.set_attributes(
                {key: value for key, value in found.items() if value is not None}
            )
