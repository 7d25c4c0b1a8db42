"""Figures for Prometheus: requests as they are answered, engines as they are asked."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from m3_core.server.models import Models, Served

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
_ENGINE = {
    "requests": "Calls that were handed to the engine.",
    "texts": "Texts, or pairs, that were computed.",
    "tokens": "Tokens of these.",
    "batches": "Forward passes.",
    "failed": "Calls that ended with an error.",
    "cancelled": "Calls that were given up, as by clients that left.",
    "cache_hits": "Texts that the cache of encodings spared.",
    "cache_misses": "Texts that it did not.",
}


class Metrics:
    """All figures of a server, in a registry of its own.

    Args:
        models: The models whose engines are asked.
    """

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, models: Models) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "m3_requests",
            "Requests, answered or not.",
            ["route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "m3_request_seconds",
            "Time from a request's head to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._texts = Histogram(
            "m3_request_texts",
            "Texts, or pairs, of a request.",
            buckets=_TEXTS,
            registry=self._registry,
        )
        self._truncated = Counter(
            "m3_truncated_texts",
            "Texts that were cut to the model's length.",
            registry=self._registry,
        )
        self.running = Gauge(
            "m3_requests_running", "Requests that are being computed.", registry=self._registry
        )
        self._models = models
        self._registry.register(self)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: The path as the server knows it.
            status: The status code.
            seconds: How long it took.
        """
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def computed(self, texts: int, truncated: int) -> None:
        """Count the texts of a request that was computed.

        Args:
            texts: How many.
            truncated: How many of them were cut.
        """
        if texts:
            self._texts.observe(texts)
        self._truncated.inc(truncated)

    def text(self) -> bytes:
        """Write all figures as Prometheus reads them."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Any]:
        """Ask the engines; called by the registry."""
        found = [(one.name, stats) for one in self._models if (stats := engine_stats(one))]
        for name, help_text in _ENGINE.items():
            counter = CounterMetricFamily(f"m3_engine_{name}", help_text, labels=["model"])
            for model, stats in found:
                if hasattr(stats, name):
                    counter.add_metric([model], getattr(stats, name))
            yield counter
        waited = CounterMetricFamily(
            "m3_engine_waiting_seconds",
            "Time that calls have waited for their first pass, all together.",
            labels=["model"],
        )
        waiting = GaugeMetricFamily(
            "m3_engine_waiting_tokens", "Tokens that wait now.", labels=["model"]
        )
        for model, stats in found:
            waited.add_metric([model], stats.waiting_seconds * stats.requests)
            waiting.add_metric([model], stats.waiting_tokens)
        yield waited
        yield waiting


def engine_stats(served: Served) -> Any:
    """Ask a model what its engine has done.

    Args:
        served: The model.

    Returns:
        ``EngineStats``; ``None`` of a model without an engine, or one that was closed.
    """
    if served.model.closed or not hasattr(served.model, "stats"):
        return None
    return served.model.stats()


class Pace:
    """How fast engines work through what waits, of what they did in the last half minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=32)

    def seconds_for(self, waiting: int, done: int) -> int:
        """Estimate when what waits will be done.

        Args:
            waiting: Tokens that wait.
            done: Tokens that were computed so far.

        Returns:
            Seconds, from 1 to 60.
        """
        now = time.monotonic()
        if not self._seen or now - self._seen[-1][0] >= 1:
            self._seen.append((now, done))
        began, before = self._seen[0]
        if done <= before or now <= began:
            return 5
        return max(1, min(60, math.ceil(waiting * (now - began) / (done - before))))
