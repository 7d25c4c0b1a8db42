"""One server as all encoders of one client see it: opened once, watched for another model."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from m3_core.encoder.served import check_reply, split
from m3_core.encoder.servers import open_server
from m3_core.errors import BadReplyError, ModelChangedError, RemoteError
from m3_core.forks import survive_forks
from m3_core.representations import Representations
from m3_core.request_thread import in_order

if TYPE_CHECKING:
    from collections.abc import Callable

    from m3_core.encoder.protocol import Role
    from m3_core.encoder.served import Server, ServerKind
    from m3_core.http_client import HttpClient

# Servers of others do not say with which model they have encoded: it is asked so often.
_SECONDS_OF_TRUST = 30.0
_SCORED_AT_ONCE = 64
_SCORES = ("colbert", "sparse", "dense", "sparse+dense", "colbert+sparse+dense")


@dataclass(frozen=True, slots=True)
class RemoteStats:
    """What a client has done so far, all encoders of one address and key together.

    Attributes:
        requests: Requests that were sent, repeated ones among them.
        retries: How many of them were repeated.
        failures: How many found no server, or lost it.
        bytes: Bytes of all bodies that came back.
        texts: Texts that were encoded.
    """

    requests: int = 0
    retries: int = 0
    failures: int = 0
    bytes: int = 0
    texts: int = 0


class RemoteService:
    """One server, as all encoders of one client see it."""

    def __init__(
        self,
        http: HttpClient,
        kind: ServerKind,
        model: str | None,
        limits: tuple[int | None, int | None],
    ) -> None:
        self.http = http
        self.changed: str | None = None
        self._kind: ServerKind = kind
        self._model = model
        self._limits = limits
        self._server: Server | None = None
        self._trusted_until = 0.0
        self._failures = 0
        self.after_fork()
        survive_forks(self)

    def after_fork(self) -> None:
        """Replace the lock, which another thread may have held."""
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the server was asked what it has."""
        return self._server is not None

    @property
    def server(self) -> Server:
        """The server; asked now what it has, if it was not yet."""
        with self._lock:
            if self._server is None:
                self._server = self.http.run(open_server(self.http, self._kind, self._model))
                self._trust()
            return self._server

    async def encode(
        self,
        server: Server,
        role: Role,
        texts: list[str],
        parts: tuple[str, ...],
        max_length: int | None,
        update: Callable[[int], object],
    ) -> tuple[list[Representations], int]:
        """Encode texts in as many requests as it takes.

        Args:
            server: The server.
            role: Of all texts.
            texts: With their instructions, for servers of others.
            parts: What is asked for.
            max_length: Tokens a text at most; ``None`` for the server's own.
            update: Told how many texts are done.

        Returns:
            The representations of successive texts, and how many of these the server has cut.
        """
        told: Counter[str] = Counter()
        if self.changed is not None:
            raise ModelChangedError(self.changed)

        async def encoded(chunk: list[str]) -> Representations:
            try:
                reps = await server.encode(role, chunk, parts, max_length, told)
            except RemoteError as error:
                if error.status != 413 or len(chunk) == 1:
                    raise
                middle = len(chunk) // 2
                halves = [await encoded(chunk[:middle]), await encoded(chunk[middle:])]
                return Representations.concatenate(halves)
            reps = check_reply(reps, chunk, parts, server.served)
            self.http.counts["texts"] += len(chunk)
            update(len(chunk))
            return reps

        try:
            await self._check_identity(server)
            chunks = split(texts, server.served, parts, *self._limits)
            found = await in_order(chunks, encoded, self.http.options.in_flight)
            # Somebody else's server may have been started anew meanwhile.
            await self._check_identity(server)
        except ModelChangedError as error:
            self.changed = str(error)
            raise
        return found, told["truncated"]

    async def score(
        self, server: Server, pairs: list[tuple[str, str]], weights: list[float]
    ) -> dict[str, list[float]]:
        """Have pairs scored by our server.

        Args:
            server: The server.
            pairs: Queries with documents.
            weights: Of dense, sparse and colbert in the combined scores.

        Returns:
            As of ``Encoder.compute_score``.
        """
        served = server.served
        size = min(_SCORED_AT_ONCE, served.max_texts)
        chunks = [pairs[i : i + size] for i in range(0, len(pairs), size)]

        async def scored(chunk: list[tuple[str, str]]) -> dict[str, list[float]]:
            body = {"pairs": chunk, "weights": weights, "model": served.name}
            reply = await self.http.request("POST", "/v1/score", body)
            return _read_scores(reply.json(), len(chunk), served.name)

        found = await in_order(chunks, scored, self.http.options.in_flight)
        return {key: [one for part in found for one in part[key]] for key in _SCORES}

    async def _check_identity(self, server: Server) -> None:
        if server.served.kind == "m3" or (
            time.monotonic() < self._trusted_until
            and self.http.counts["failures"] == self._failures
        ):
            return
        found, known = await server.identity(), server.served.identity
        if found != known:
            raise ModelChangedError(
                f"{self.http.url} has {found} now, and had {known} before: what was encoded until "
                "now does not go with it; make a new encoder, and encode all documents anew"
            )
        self._trust()

    def _trust(self) -> None:
        self._trusted_until = time.monotonic() + _SECONDS_OF_TRUST
        self._failures = self.http.counts["failures"]


def _read_scores(found: Any, count: int, name: str) -> dict[str, list[float]]:
    scores = found.get("scores") if isinstance(found, dict) else None
    if not isinstance(scores, dict) or any(
        not isinstance(scores.get(key), list)
        or len(scores[key]) != count
        or not all(isinstance(one, (int, float)) and abs(one) < float("inf") for one in scores[key])
        for key in _SCORES
    ):
        raise BadReplyError(f"the scores of {name!r} are not those of {count} pairs")
    return {key: [float(one) for one in scores[key]] for key in _SCORES}
