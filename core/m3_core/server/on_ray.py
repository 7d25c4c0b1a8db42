"""The same service as a deployment of Ray Serve: replicas on many machines behind one address.

Each replica holds the models itself. Ray Serve's proxy hands requests to the replica that has fewer
under way; how many replicas there are follows, where that is asked for, the tokens that wait.
"""

from __future__ import annotations

import math
import signal
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from m3_core.extras import needs_extra
from m3_core.ray_cluster import connected, shares
from m3_core.server.app import create_app
from m3_core.server.metrics import engine_stats
from m3_core.server.options import ServerOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fastapi import FastAPI

    from m3_core.server.models import Entry

NAME = "m3-retrieval"
# What replicas report, and what the number of them is made of.
_METRIC = "waiting_tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class RayServeOptions:
    """Where and with how many replicas Ray serves.

    Args:
        address: ``"local"`` starts Ray on this machine and ends it; ``"auto"`` finds the cluster
            that runs here; else a cluster's address.
        replicas: Processes with the models; by default one a GPU of the cluster, or one a machine
            where there are none. With ``max_replicas``: so many at least.
        max_replicas: So many at most, as tokens wait; ``None`` for a fixed number.
        target_tokens: Tokens that may wait for each replica before there are more of them.
        num_cpus: CPUs of each; by default one beside a GPU, else its share of all.
        num_gpus: GPUs of each; by default one where there are some.
        upscale_seconds: How long more replicas must be wanted before they are started.
        downscale_seconds: How long fewer must be wanted before they are ended.

    Raises:
        ValueError: A number is below 1, or ``max_replicas`` below ``replicas``.
    """

    address: str = "auto"
    replicas: int | None = None
    max_replicas: int | None = None
    target_tokens: int = 16_384
    num_cpus: float | None = None
    num_gpus: float | None = None
    upscale_seconds: float = 10.0
    downscale_seconds: float = 300.0

    def __post_init__(self) -> None:
        for name in ("replicas", "max_replicas", "target_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if self.max_replicas is not None and self.max_replicas < (self.replicas or 1):
            raise ValueError(
                f"max_replicas is {self.max_replicas}, which is below replicas, {self.replicas}"
            )


class Replica:
    """What Ray Serve asks a replica beside its routes; ``app`` is given by ``serve.ingress``."""

    app: FastAPI

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Ray Serve how many tokens wait here."""
        stats = map(engine_stats, self.app.state.service.models)
        return {_METRIC: float(sum(one.waiting_tokens for one in stats if one is not None))}

    def check_health(self) -> None:
        """Have Ray Serve replace the replica once a model has failed."""
        failure = self.app.state.service.models.failure
        if failure is not None:
            raise RuntimeError(f"a model could not be loaded: {failure}") from failure


@dataclass(frozen=True, slots=True)
class ByWaitingTokens:
    """As many replicas as the tokens that wait need; Ray Serve keeps them within bounds.

    Args:
        target_tokens: Tokens that may wait for each.
    """

    target_tokens: int

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """Say how many replicas there should be.

        Args:
            context: Of Ray Serve, with what replicas reported.

        Returns:
            The number, and nothing to be remembered.
        """
        waiting = sum(((context.aggregated_metrics or {}).get(_METRIC) or {}).values())
        wanted = math.ceil(waiting / self.target_tokens)
        # Replicas that compute and have nothing waiting are busy all the same.
        busy = min(context.current_num_replicas, math.ceil(context.total_num_requests))
        return max(wanted, busy), {}


def application(
    models: Mapping[str, Callable[[], Any]],
    options: ServerOptions | None = None,
    ray_options: RayServeOptions | None = None,
) -> Any:
    """Make the application that ``ray.serve.run`` and ``serve deploy`` take.

    Args:
        models: Names that clients use, and for each a function that loads the model in a replica,
            as ``model_entries`` gives them.
        options: Keys and limits, of each replica.
        ray_options: How many replicas, and what each gets.

    Returns:
        The application.

    Raises:
        MissingPackageError: Ray is not installed.
        TypeError: A model is loaded already.
    """
    with needs_extra("serving with Ray", "ray", "ray"):
        from ray import serve
        from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    chosen, own = ray_options or RayServeOptions(), options or ServerOptions()
    for name, load in models.items():
        if not callable(load):
            raise TypeError(
                f"with Ray each replica loads model {name!r} itself: give a function that does"
            )
    entries = dict(models)

    def build() -> FastAPI:
        # Loaded now: a replica counts as ready, and gets requests, when this returns.
        loaded: dict[str, Entry] = {name: load() for name, load in entries.items()}
        return create_app(loaded, own)

    number, resources = shares(chosen.replicas, chosen.num_cpus, chosen.num_gpus)
    scaling: dict[str, Any] = {"num_replicas": number}
    if chosen.max_replicas is not None:
        scaling = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=chosen.replicas or 1,
                max_replicas=chosen.max_replicas,
                upscale_delay_s=chosen.upscale_seconds,
                downscale_delay_s=chosen.downscale_seconds,
                policy=AutoscalingPolicy(  # type: ignore[no-untyped-call]  # of Ray
                    policy_function=ByWaitingTokens,
                    policy_kwargs={"target_tokens": chosen.target_tokens},
                ),
            )
        }
    deployment: Any = serve.deployment(
        serve.ingress(build)(Replica),
        name=NAME,
        # Requests under way are what the engine makes batches of: not a few, as Ray Serve has it.
        max_ongoing_requests=own.max_requests,
        ray_actor_options=resources,
        health_check_timeout_s=60,
        **scaling,
    )
    return deployment.bind()


def serve_on_ray(
    models: Mapping[str, Callable[[], Any]],
    options: ServerOptions,
    ray_options: RayServeOptions,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    stop: threading.Event | None = None,
) -> None:
    """Serve models with Ray until the event is set, or until SIGINT or SIGTERM.

    Args:
        models: As of ``application``.
        options: Keys and limits, of each replica.
        ray_options: Where, and how many replicas.
        host: Address that the proxies listen at.
        port: Their port.
        stop: Ends it.

    Raises:
        MissingPackageError: Ray is not installed.
        ConnectionError: There is no cluster of that address.
        RuntimeError: The replicas could not be started.
    """
    with connected(ray_options.address, "serving with Ray", namespace="serve"):
        from ray import serve

        with _interrupted_by_sigterm(), suppress(KeyboardInterrupt):
            serve.start(http_options={"host": host, "port": port})
            try:
                serve.run(application(models, options, ray_options), name=NAME, route_prefix="/")
                (stop or threading.Event()).wait()
            finally:
                serve.delete(NAME)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end what runs as Ctrl-C does, where signals can be had."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Only now: the one that Ray sets when it connects aborts the process some seconds later.
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
