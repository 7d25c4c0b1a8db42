"""The HTTP service: one loaded model for many processes, asked in the protocols of others too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.server.app import create_app
    from m3_core.server.models import load_model, model_entries
    from m3_core.server.on_ray import RayServeOptions, application, serve_on_ray
    from m3_core.server.options import ServerOptions
    from m3_core.server.running import serve

__all__ = [
    "RayServeOptions",
    "ServerOptions",
    "application",
    "create_app",
    "load_model",
    "model_entries",
    "serve",
    "serve_on_ray",
]

_HOMES = {
    "application": "on_ray",
    "create_app": "app",
    "load_model": "models",
    "model_entries": "models",
    "RayServeOptions": "on_ray",
    "serve": "running",
    "serve_on_ray": "on_ray",
    "ServerOptions": "options",
}
_EXTRAS = dict.fromkeys(("fastapi", "starlette", "uvicorn", "orjson", "prometheus_client"), "serve")

__getattr__ = lazy_names(__name__, _HOMES, _EXTRAS)


def __dir__() -> list[str]:
    return __all__
