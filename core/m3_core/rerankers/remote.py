"""A reranker whose model is in another process, or on another machine."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from m3_core.beside import beside
from m3_core.encoder import find_server
from m3_core.errors import BadReplyError, ModelChangedError, RemoteError
from m3_core.forks import survive_forks
from m3_core.http_client import (
    HttpClient,
    HttpOptions,
    hidden_headers,
    plain_key,
    progress,
)
from m3_core.request_thread import in_order
from m3_core.rerankers.ranking import select_best
from m3_core.shared_clients import SharedClients
from m3_core.texts import CheckedPairs, check_pairs, pairs_of
from m3_core.values import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from m3_core.encoder import Found

RerankServerKind = Literal["auto", "m3", "tei", "jina", "cohere"]

# Where a server does not say what it takes.
_MOST = {"m3": 64, "tei": 32, "jina": 256, "cohere": 256}
_MAX_CHARACTERS = 200_000


@dataclass(frozen=True, slots=True)
class _Judge:
    """What a server says of its reranker."""

    kind: str
    name: str
    path: str
    most: int


class RemoteReranker:
    """Asks a server for the scores of a reranker, as ``Reranker`` gives them.

    ``m3-retrieval serve``, text-embeddings-inference, and servers with Jina's ``/v1/rerank``
    (infinity, vLLM) or Cohere's ``/v2/rerank``. Connections, repetition of requests and splitting
    are those of ``RemoteEncoder``.

    Args:
        url: ``http://host:port``, with or without ``/v1`` at its end.
        api_key: The server's key; by default that of the environment's ``M3_API_KEY``.
        model: The name of the server's model; by default its first or only reranker.
        protocol: ``"m3"``, ``"tei"``, ``"jina"`` or ``"cohere"``; ``"auto"`` asks the server,
            which does not find services of Cohere and Jina.
        max_pairs: Pairs a request at most; by default as the server says.
        timeout: Seconds that one request may take.
        retries: How often a request is repeated.
        in_flight: Requests of one call at the same time.
        headers: Further headers of each request.
        verify: Check certificates of ``https``; or the path of a file with other authorities.

    Raises:
        MissingPackageError: httpx is absent.
        ValueError: The address is none, or an option is out of its range.

    Example:
        .. code-block:: python

            reranker = RemoteReranker("http://gpu-host:8000")
            reranker.rank("what do pandas eat?", ["Bamboo.", "Fish."])
    """

    def __init__(
        self,
        url: str,
        api_key: Any = None,
        *,
        model: str | None = None,
        protocol: RerankServerKind = "auto",
        max_pairs: int | None = None,
        timeout: float = 120.0,
        retries: int = 5,
        in_flight: int = 4,
        headers: Mapping[str, str] | None = None,
        verify: bool | str = True,
    ) -> None:
        if protocol not in ("auto", *_MOST):
            raise ValueError(f"protocol is auto, {', '.join(_MOST)}; got {protocol!r}")
        if protocol in ("jina", "cohere") and model is None:
            raise ValueError(f"name the model: protocol={protocol!r} sends it with each request")
        if max_pairs is not None and max_pairs < 1:
            raise ValueError(f"max_pairs must be at least 1; got {max_pairs!r}")
        options = HttpOptions(timeout, retries, in_flight, hidden_headers(headers), verify)
        key = plain_key(api_key)
        self._http = HttpClient(url, key, options, "RemoteReranker")
        self._kind: RerankServerKind = protocol
        self._model = model
        self._max_pairs = max_pairs
        self._judge: _Judge | None = None
        given = {
            "model": model,
            "protocol": protocol,
            "max_pairs": max_pairs,
            "timeout": timeout,
            "retries": retries,
            "in_flight": in_flight,
            "headers": None if headers is None else dict(headers),
            "verify": verify,
        }
        # A key of the environment is not handed on: another process has its own.
        self._made_of = (url, key, given)
        self.after_fork()
        survive_forks(self)

    def after_fork(self) -> None:
        """Replace the lock, which another thread may have held."""
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """The address of the server."""
        return self._http.url

    @property
    def name(self) -> str:
        """The name of the server's model."""
        return self._open().name

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._http.closed

    @property
    def is_outdated(self) -> bool:
        """Never: scores of one call are of one model, and none are kept."""
        return False

    def close(self) -> None:
        """Close the connections; further calls raise ``ClosedError``."""
        self._http.close()

    def compute_score(
        self,
        pairs: Iterable[tuple[str, str]],
        normalize: bool = False,  # noqa: FBT001, FBT002 (FlagEmbedding's flag)
        *,
        show_progress: bool = False,
    ) -> list[float]:
        """Score pairs.

        Args:
            pairs: Queries with documents.
            normalize: Put each score into 0 to 1; else it is the raw logit. Servers with Jina's
                or Cohere's protocol have only the former.
            show_progress: Show a progress bar.

        Returns:
            One score a pair, in their order; an empty list for no pairs.

        Raises:
            TypeError: An element is no pair of strings.
            ValueError: A text is no valid Unicode, or raw scores are asked for that are not there.
            RemoteError: The server cannot be reached, refuses, or answers with something else.
        """
        both = _pairs(pairs)
        if not both:
            return []
        judge = self._open()
        with progress(len(both), "Reranking", "pair", show=show_progress) as update:
            return self._http.run(self._scores(judge, both, update, normalize=normalize))

    async def acompute_score(
        self,
        pairs: Iterable[tuple[str, str]],
        normalize: bool = False,  # noqa: FBT001, FBT002 (FlagEmbedding's flag)
        *,
        show_progress: bool = False,
    ) -> list[float]:
        """Do ``compute_score`` without holding up the event loop or occupying a thread."""
        both = _pairs(pairs)
        if not both:
            return []
        judge = await beside(self._open) if self._judge is None else self._judge
        with progress(len(both), "Reranking", "pair", show=show_progress) as update:
            return await self._http.arun(self._scores(judge, both, update, normalize=normalize))

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        normalize: bool = False,  # noqa: FBT001, FBT002 (FlagEmbedding's flag)
        *,
        show_progress: bool = False,
    ) -> list[tuple[int, float]]:
        """Order documents by their score with a query.

        Args:
            query: The query.
            documents: The documents.
            top_n: How many to return at most; all if ``None``.
            normalize: As of ``compute_score``.
            show_progress: Likewise.

        Returns:
            (position among the documents, score), the best first; ties in the given order.

        Raises:
            ValueError: ``top_n`` is below 0. The other errors are ``compute_score``'s.
        """
        pairs = pairs_of(query, documents)
        return select_best(self.compute_score(pairs, normalize, show_progress=show_progress), top_n)

    async def arank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        normalize: bool = False,  # noqa: FBT001, FBT002 (FlagEmbedding's flag)
        *,
        show_progress: bool = False,
    ) -> list[tuple[int, float]]:
        """Do ``rank`` without holding up the event loop or occupying a thread."""
        pairs = pairs_of(query, documents)
        scores = await self.acompute_score(pairs, normalize, show_progress=show_progress)
        return select_best(scores, top_n)

    def with_options(self, **changes: Any) -> RemoteReranker:
        """Refuse options, which are the server's.

        Args:
            **changes: None.

        Returns:
            Itself.

        Raises:
            ValueError: There is one.
        """
        if changes:
            raise ValueError(
                f"{', '.join(sorted(changes))} cannot be set for a model that a server holds: the "
                "server is started with it"
            )
        return self

    def __repr__(self) -> str:
        state = ", closed" if self.closed else ""
        model = f", model={self._model!r}" if self._model else ""
        return f"RemoteReranker({self.url!r}{model}{state})"

    def __copy__(self) -> RemoteReranker:
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> RemoteReranker:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, self._made_of

    def _open(self) -> _Judge:
        with self._lock:
            if self._judge is None:
                kind = self._kind
                if kind == "jina" or kind == "cohere":
                    path = "/v2/rerank" if kind == "cohere" else "/v1/rerank"
                    self._judge = _Judge(kind, str(self._model), path, _MOST[kind])
                else:
                    found = self._http.run(find_server(self._http, kind))
                    self._judge = _judge(found, self._model)
            judge: _Judge = self._judge
        return judge

    async def _scores(
        self,
        judge: _Judge,
        pairs: Sequence[tuple[str, str]],
        update: Callable[[int], object],
        *,
        normalize: bool,
    ) -> list[float]:
        if judge.kind in ("jina", "cohere") and not normalize:
            raise ValueError(
                f"{self.url} gives scores from 0 to 1 and no raw ones: set normalize=True"
            )

        async def scored(chunk: list[tuple[str, str]]) -> list[float]:
            try:
                scores = await self._ask(judge, chunk, normalize=normalize)
            except RemoteError as error:
                if error.status != 413 or len(chunk) == 1:
                    raise
                middle = len(chunk) // 2
                return [*await scored(chunk[:middle]), *await scored(chunk[middle:])]
            update(len(chunk))
            return scores

        most = min(self._max_pairs or judge.most, judge.most)
        chunks = _chunks(pairs, most, by_query=judge.kind != "m3")
        found = await in_order(chunks, scored, self._http.options.in_flight)
        return [score for part in found for score in part]

    async def _ask(
        self, judge: _Judge, chunk: list[tuple[str, str]], *, normalize: bool
    ) -> list[float]:
        query, texts = chunk[0][0], [text for _, text in chunk]
        key = "score"
        if judge.kind == "m3":
            body: dict[str, Any] = {"pairs": chunk, "normalize": normalize, "model": judge.name}
        elif judge.kind == "tei":
            body = {"query": query, "texts": texts, "raw_scores": not normalize, "truncate": True}
        else:
            body = {"query": query, "documents": texts, "top_n": len(texts), "model": judge.name}
            key = "relevance_score"
        reply = await self._http.request("POST", judge.path, body)
        found = reply.json()
        if judge.kind == "m3":
            if isinstance(found, dict) and found.get("model") != judge.name:
                raise ModelChangedError(
                    f"{reply.place}: asked {judge.name!r}, {shown(found.get('model'))} answers"
                )
            scores = found.get("scores") if isinstance(found, dict) else None
        else:
            listed = found.get("results") if isinstance(found, dict) else found
            scores = _by_index(listed, key)
        if not _are_scores(scores, len(chunk)):
            raise BadReplyError(
                f"{reply.place}: asked for {len(chunk)} scores, and got {shown(found)}",
                reply.status,
            )
        return [float(score) for score in scores or ()]


_shared = SharedClients(RemoteReranker)


def shared_remote_reranker(url: str, api_key: Any = None, **options: Any) -> RemoteReranker:
    """Give the process's reranker for an address and key, so that all share its connections.

    Args:
        url: As of ``RemoteReranker``.
        api_key: Likewise.
        **options: Its others.

    Returns:
        The same object for equal arguments; another one after ``close()``.
    """
    return _shared.get(url, api_key, options)


def _restored(url: str, key: str | None, given: Mapping[str, Any]) -> RemoteReranker:
    return shared_remote_reranker(url, key, **given)


def _judge(found: Found, model: str | None) -> _Judge:
    if found.kind == "tei":
        name = str(found.info["model_id"])
        if model not in (None, name):
            raise RemoteError(f"the server has no model {model!r}; it has {name}")
        if "reranker" not in str(found.info.get("model_type", "reranker")).lower():
            raise RemoteError(f"the server's {name!r} is no reranker")
        return _Judge("tei", name, "/rerank", _most(found.info.get("max_client_batch_size"), "tei"))
    if found.kind == "m3":
        entry = found.choose(model, lambda one: one.get("kind") == "reranker")
        limits = entry.get("limits") or {}
        return _Judge("m3", str(entry["id"]), "/v1/score", _most(limits.get("max_texts"), "m3"))
    entry = found.choose(model, lambda one: "rerank" in one.get("capabilities", ["rerank"]))
    return _Judge("jina", str(entry["id"]), f"{found.prefix}/rerank", _MOST["jina"])


def _most(said: Any, kind: str) -> int:
    return said if isinstance(said, int) and said > 0 else _MOST[kind]


def _pairs(pairs: Iterable[tuple[str, str]]) -> CheckedPairs:
    return CheckedPairs(zip(*check_pairs(pairs), strict=True))


def _chunks(
    pairs: Sequence[tuple[str, str]], most: int, *, by_query: bool
) -> Iterator[list[tuple[str, str]]]:
    groups = [list(own) for _, own in groupby(pairs, lambda pair: pair[0])] if by_query else [pairs]
    for group in groups:
        chunk: list[tuple[str, str]] = []
        characters = 0
        for pair in group:
            size = len(pair[0]) + len(pair[1])
            if chunk and (len(chunk) >= most or characters + size > _MAX_CHARACTERS):
                yield chunk
                chunk, characters = [], 0
            chunk.append(pair)
            characters += size
        if chunk:
            yield chunk


def _by_index(listed: Any, key: str) -> Any:
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        return None
    scores = {one.get("index"): one.get(key) for one in listed}
    if scores.keys() != set(range(len(listed))):
        return None
    return [scores[number] for number in range(len(listed))]


def _are_scores(scores: Any, count: int) -> bool:
    return (
        isinstance(scores, list)
        and len(scores) == count
        and all(
            isinstance(one, (int, float)) and not isinstance(one, bool) and abs(one) < float("inf")
            for one in scores
        )
    )
