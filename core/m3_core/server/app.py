"""The app: every route, whose protocol it speaks, and the models behind."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from m3_core import __version__
from m3_core.server import native, openai, reranking, tei
from m3_core.server.computing import json_answer
from m3_core.server.failures import RequestError
from m3_core.server.gate import Gate
from m3_core.server.models import Models
from m3_core.server.options import ServerOptions
from m3_core.server.service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from m3_core.server.failures import Protocol
    from m3_core.server.models import Entry
    from m3_core.server.service import Body

_log = logging.getLogger("m3_core.server")

_NO_TELEMETRY: Any = dict.fromkeys(("tracing", "metrics", "logs", "auto_configure"), False)

_POSTS: tuple[tuple[str, Protocol, type[Body], Callable[..., Awaitable[Response]]], ...] = (
    ("/v1/encode", "openai", native.EncodeBody, native.encode_texts),
    ("/v1/score", "openai", native.EitherScoreBody, native.either_score),
    ("/v1/embeddings", "openai", openai.EmbeddingsBody, openai.embeddings),
    ("/embeddings", "openai", openai.EmbeddingsBody, openai.embeddings),
    ("/embed", "tei", tei.EmbedBody, tei.embed),
    ("/embed_sparse", "tei", tei.EmbedBody, tei.embed_sparse),
    ("/embed_all", "tei", tei.EmbedBody, tei.embed_all),
    ("/rerank", "tei", tei.EitherRerankBody, tei.either_rerank),
    ("/similarity", "tei", tei.SimilarityBody, tei.similarities),
    ("/tokenize", "tei", tei.TokenizeBody, tei.tokenize),
    ("/v2/rerank", "cohere", reranking.CohereV2Body, reranking.cohere_v2),
    ("/v1/rerank", "jina", reranking.RerankBody, reranking.rerank),
    ("/score", "openai", reranking.VllmScoreBody, reranking.vllm_score),
)


def create_app(
    models: Mapping[str, Entry], options: ServerOptions | None = None, *, on_failure: Any = None
) -> FastAPI:
    """Make the service as an ASGI app, for uvicorn, Ray Serve or another server with a lifespan.

    Models that are given as functions are loaded when the app starts (its lifespan), beside the
    event loop; until then, and until each has computed a batch, every route answers 503.

    Args:
        models: Names that clients use, and for each a ``TextEncoder``, a ``Reranker``, or a
            function that loads one. Without a name clients get the first encoder, or reranker.
        options: Keys and limits.
        on_failure: Called without arguments where a model cannot be loaded.

    Returns:
        The app; ``app.state.service`` holds its models and figures.

    Raises:
        ValueError: There are no models.

    Example:
        >>> from m3_core.testing import FakeEncoder
        >>> create_app({"fake": FakeEncoder()}).title
        'm3-retrieval'
    """
    service = Service(Models(models), options or ServerOptions())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.ensure_future(_load(service.models, on_failure))
        try:
            yield
        finally:
            service.models.state = "stopping"
            loading.cancel()
            with suppress(asyncio.CancelledError):
                await loading

    app = FastAPI(
        title="m3-retrieval",
        version=__version__,
        lifespan=lifespan,
        # To an address that is made of what the client says, without https behind a proxy.
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        # Of versions that trace by themselves: their spans and logs name what clients send.
        telemetry=_NO_TELEMETRY,
    )
    app.state.service = service
    app.add_middleware(
        Gate, service=service, protocols={path: protocol for path, protocol, _, _ in _POSTS}
    )
    app.add_exception_handler(HTTPException, _refuse)
    for path, protocol, body, handler in _POSTS:
        _add_post(app, service, path, protocol, body, handler)
    _add_gets(app, service)
    return app


async def _load(models: Models, on_failure: Callable[[], None] | None) -> None:
    try:
        await models.load()
    except Exception as error:  # noqa: BLE001 (told by /health, the log and whoever waits)
        _log.error("loading failed", extra={"error": type(error).__name__, "text": str(error)})
        if on_failure is not None:
            on_failure()


def _refuse(_: Request, error: Exception) -> Response:
    """Hand over to the gate what no route takes."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    told = {404: "there is no such path here", 405: "this path takes another method"}
    raise RequestError(status, told.get(status, "the request is not understood"), "no_such_route")


def _add_post(
    app: FastAPI,
    service: Service,
    path: str,
    protocol: Protocol,
    body: type[Body],
    handler: Callable[..., Awaitable[Response]],
) -> None:
    async def answer(request: Request) -> Response:
        return await service.answer(request, protocol, body, handler)

    app.add_api_route(
        path,
        answer,
        methods=["POST"],
        name=handler.__name__,
        operation_id=path.strip("/").replace("/", "_"),
        summary=(handler.__doc__ or path).partition("\n")[0],
        response_model=None,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": body.model_json_schema()}},
            }
        },
    )


def _add_gets(app: FastAPI, service: Service) -> None:
    def when_ready(answer: Callable[[], Any]) -> Response:
        service.models.check_ready()
        return json_answer(answer())

    @app.head("/health", include_in_schema=False, response_model=None)
    @app.get("/health", response_model=None)
    async def health() -> Response:
        """Say whether the server can answer: 200, or 503."""
        state = service.models.state
        return json_answer({"status": state}, 200 if state == "ready" else 503)

    @app.get("/metrics", response_model=None)
    async def metrics() -> Response:
        """Give figures for Prometheus."""
        return Response(service.metrics.text(), media_type=service.metrics.media_type)

    @app.get("/models", include_in_schema=False, response_model=None)
    @app.get("/v1/models", response_model=None)
    async def models() -> Response:
        """List the models."""
        return when_ready(lambda: native.model_list(service))

    @app.get("/v1/models/{name:path}", response_model=None)
    async def model(name: str) -> Response:
        """Describe a model."""
        return when_ready(lambda: native.describe(service, service.models.scorer(name)))

    @app.get("/v1/fingerprint", response_model=None)
    async def fingerprint(request: Request) -> Response:
        """Name what changes representations."""
        asked = request.query_params
        names = ("model", "parts", "queries")
        return when_ready(lambda: native.fingerprint(service, *map(asked.get, names)))

    @app.get("/info", response_model=None)
    async def info() -> Response:
        """Describe the first encoder, as TEI does."""
        return when_ready(lambda: tei.info(service))
