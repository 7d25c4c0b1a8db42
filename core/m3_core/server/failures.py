"""What went wrong with a request, in the shape that clients of each protocol read."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from m3_core.errors import (
    ClosedError,
    M3Error,
    MissingRepresentationError,
    NonFiniteError,
    OutOfMemoryError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Protocol = Literal["openai", "tei", "cohere", "jina"]
"""Whose shape an error has; our own routes have OpenAI's."""

_log = logging.getLogger("m3_core.server")

_LONGEST_NAME = 60
_SHOWN_FAULTS = 3

_OPENAI_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    499: "client_closed_request",
    500: "server_error",
    503: "server_error",
}
_TEI_TYPES = {429: "Overloaded", 500: "Backend", 503: "Unhealthy", 401: "Unauthorized"}


class RequestError(Exception):
    """A request that is not answered.

    Args:
        status: The status code.
        message: What was asked for, what was found, what to do; never a text of the client.
        code: A short name for programs.
        retry_after: Seconds after which asking again may help.
    """

    def __init__(
        self, status: int, message: str, code: str, *, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.retry_after = retry_after


class ClientGoneError(Exception):
    """The client has closed its connection: nobody reads an answer."""


def error_body(protocol: Protocol, error: RequestError) -> dict[str, Any]:
    """Give the body of an answer that is none.

    Args:
        protocol: Whose clients read it.
        error: What went wrong.

    Returns:
        The body, to be written as JSON.
    """
    return _SHAPES[protocol](error)


def _openai(error: RequestError) -> dict[str, Any]:
    kind = _OPENAI_TYPES.get(error.status, "invalid_request_error")
    return {
        "error": {"message": error.message, "type": kind, "param": None, "code": error.code},
    }


def _tei(error: RequestError) -> dict[str, Any]:
    return {"error": error.message, "error_type": _TEI_TYPES.get(error.status, "Validation")}


def _cohere(error: RequestError) -> dict[str, Any]:
    return {"message": error.message}


def _jina(error: RequestError) -> dict[str, Any]:
    # The route is Cohere's too.
    return {"detail": error.message, "message": error.message}


_SHAPES: Mapping[Protocol, Callable[[RequestError], dict[str, Any]]] = {
    "openai": _openai,
    "tei": _tei,
    "cohere": _cohere,
    "jina": _jina,
}


def as_request_error(error: Exception, protocol: Protocol) -> RequestError:
    """Say with which status an error is answered.

    Args:
        error: What was raised while a request was answered.
        protocol: Whose clients read it.

    Returns:
        The same in words for the client. What is not the client's is only named.
    """
    if isinstance(error, RequestError):
        return error
    if isinstance(error, ValidationError):
        return _invalid(error, 400 if protocol == "openai" else 422)
    if isinstance(error, MissingRepresentationError):
        return RequestError(400, str(error), "missing_representation")
    if isinstance(error, OutOfMemoryError):
        return RequestError(413, str(error), "out_of_memory")
    if isinstance(error, ClosedError):
        return RequestError(503, "the model was closed", "model_closed", retry_after=5)
    if isinstance(error, NonFiniteError):
        return RequestError(500, str(error), "non_finite")
    if isinstance(error, (ValueError, TypeError)) and not isinstance(error, M3Error):
        return RequestError(400, str(error), "invalid_value")
    log_failure(error)
    return RequestError(500, "the server failed to answer: its log says where", "internal_error")


def log_failure(error: BaseException) -> None:
    """Log where an error came up, without its text, which may hold what a client sent."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    _log.error("request failed", extra={"error": type(error).__name__, "where": where})


def _invalid(error: ValidationError, status: int) -> RequestError:
    """Say which fields are wrong, and never what they hold."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    if faults[0]["type"] == "json_invalid":
        message = "the body is no valid JSON in UTF-8: it may be cut, or hold half a surrogate pair"
        return RequestError(400 if status == 400 else status, message, "invalid_json")
    told: dict[str, str] = {}
    for fault in faults:
        place = ".".join(map(str, fault["loc"]))[:_LONGEST_NAME] or "the body"
        told.setdefault(place, _reason(fault))
    shown = "; ".join(f"{place}: {why}" for place, why in list(told.items())[:_SHOWN_FAULTS])
    more = len(told) - _SHOWN_FAULTS
    tail = f"; and {more} more" if more > 0 else ""
    return RequestError(status, f"the body is not as it must be: {shown}{tail}", "invalid_body")


def _reason(fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        return "this server does not know this field, and does not pass over it"
    return str(fault["msg"])
