"""An encoder whose model is in another process, or on another machine."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from m3_core.beside import beside
from m3_core.encoder.direct import TEXTS_ON_THE_LOOP, aside
from m3_core.encoder.methods import EncodingMethods
from m3_core.encoder.protocol import PARTS
from m3_core.encoder.remote_service import RemoteService, RemoteStats
from m3_core.encoder.served import nothing_of
from m3_core.errors import MissingRepresentationError
from m3_core.http_client import (
    HttpClient,
    HttpOptions,
    hidden_headers,
    plain_key,
    progress,
)
from m3_core.network import TruncationWarning, find_known, level_of_caller
from m3_core.representations import Representations
from m3_core.shared_clients import SharedClients
from m3_core.texts import check_pairs, check_texts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from m3_core.encoder.protocol import Role
    from m3_core.encoder.served import Served, ServerKind


class RemoteEncoder(EncodingMethods):
    """A ``TextEncoder`` that asks a server: one model for many processes and machines.

    Of ``m3-retrieval serve`` all representations of a request come in one binary reply. Of servers
    of others it gives what they have: text-embeddings-inference, infinity and OpenAI's protocol
    dense vectors; TEI with a sparse model, and vLLM with ``BgeM3EmbeddingModel``, lexical weights.
    It may be used by several threads and event loops at once, after forks, and be pickled; the
    server is asked first when it is first used.

    Large inputs are split into requests, of which several are under way at once. Requests that
    find the server away or busy (429, 502, 503, 504) are repeated after a pause, as long as
    ``Retry-After`` says. A server that has another model than it had is an error: each reply of
    ours says with which model it was made; of others the model is asked for every half minute.

    Args:
        url: ``http://host:port``, with or without ``/v1`` at its end.
        api_key: The server's key; by default that of the environment's ``M3_API_KEY``.
        model: The name of the server's model; by default its first encoder.
        protocol: Which server it is: ``"m3"``, ``"tei"``, ``"vllm"``, or ``"openai"`` for infinity
            and others; ``"auto"`` asks it.
        max_length: Tokens a text at most, below the server's own.
        query_instruction: Put before queries, for servers of others; by default as the makers of
            a known model say. Our server has its own.
        document_instruction: Put before documents, likewise.
        max_texts: Texts a request at most, as far as the server takes so many; by default 256, or
            32 with multi-vectors.
        max_characters: Characters a request at most, unless a single text is longer; likewise, by
            default 100,000, or 12,500.
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

            encoder = RemoteEncoder("http://gpu-host:8000", api_key="…")
            reps = encoder.encode_documents(texts, return_sparse=True)
    """

    def __init__(
        self,
        url: str,
        api_key: Any = None,
        *,
        model: str | None = None,
        protocol: ServerKind = "auto",
        max_length: int | None = None,
        query_instruction: str | None = None,
        document_instruction: str | None = None,
        max_texts: int | None = None,
        max_characters: int | None = None,
        timeout: float = 120.0,
        retries: int = 5,
        in_flight: int = 4,
        headers: Mapping[str, str] | None = None,
        verify: bool | str = True,
    ) -> None:
        options = HttpOptions(timeout, retries, in_flight, hidden_headers(headers), verify)
        for name, value in (("max_texts", max_texts), ("max_characters", max_characters)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value!r}")
        if protocol not in ("auto", "m3", "tei", "openai", "vllm"):
            raise ValueError(f"protocol is auto, m3, tei, openai or vllm; got {protocol!r}")
        self._service = RemoteService(
            HttpClient(url, plain_key(api_key), options, "RemoteEncoder"),
            protocol,
            model,
            (max_texts, max_characters),
        )
        self._options: dict[str, Any] = {
            "max_length": max_length,
            "query_instruction": query_instruction,
            "document_instruction": document_instruction,
        }
        given = {
            "model": model,
            "protocol": protocol,
            "max_texts": max_texts,
            "max_characters": max_characters,
            "timeout": timeout,
            "retries": retries,
            "in_flight": in_flight,
            "headers": None if headers is None else dict(headers),
            "verify": verify,
        }
        # A key of the environment is not handed on: another process has its own.
        self._made_of = (url, plain_key(api_key), given)

    @property
    def url(self) -> str:
        """The address of the server."""
        return self._service.http.url

    @property
    def origin(self) -> object:
        """The connection to the server, which encoders with other options share."""
        return self._service

    @property
    def name(self) -> str:
        """The name of the server's model."""
        return self._served.name

    @property
    def representations(self) -> frozenset[str]:
        """What the server gives: of ``"dense"``, ``"sparse"`` and ``"colbert"``."""
        return self._served.representations

    @property
    def dimension(self) -> int:
        """Width of the dense vectors."""
        return self._served.dimension

    @property
    def colbert_dimension(self) -> int:
        """Width of the multi-vectors; 0 where there are none."""
        return self._served.colbert_dimension

    @property
    def vocabulary_size(self) -> int | None:
        """Number of token ids of the model, if the server says it."""
        return self._served.vocabulary_size

    @property
    def max_length(self) -> int:
        """Tokens a text at most; 8,192 where a server of others does not say."""
        served = self._served
        return self._checked_length(self._options["max_length"], served) or served.max_length

    @property
    def query_instruction(self) -> str:
        """What is put before every query; ``""`` for nothing."""
        return self._instruction("query")

    @property
    def document_instruction(self) -> str:
        """What is put before every document; ``""`` for nothing."""
        return self._instruction("document")

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._service.http.closed

    @property
    def is_outdated(self) -> bool:
        """Whether the server has another model than it had; then all calls fail."""
        return self._service.changed is not None

    def close(self) -> None:
        """Close the connections, those of encoders over the same one too."""
        self._service.http.close()

    def fingerprint(self, parts: Collection[str] = ("dense",), *, queries: bool = False) -> str:
        """Name everything that changes the representations of documents.

        Args:
            parts: Of ``"dense"``, ``"sparse"`` and ``"colbert"``, those that matter.
            queries: The instruction of queries counts too.

        Returns:
            That of the server's own encoder, if it is ours and no ``max_length`` was set here.
        """
        served = self._served
        chosen = "+".join(part for part in PARTS if part in parts)
        length = self._options["max_length"]
        if served.fingerprints:
            own = served.fingerprints["query" if queries else "document"].get(chosen)
            if own is None:
                raise MissingRepresentationError(self._lacking(set(parts)))
            if length in (None, served.max_length):
                return own
            counted: list[Any] = [own, length]
        else:
            counted = [served.kind, served.identity, served.dimension, self.max_length, chosen]
            counted.append(self.document_instruction)
            counted.append(self.query_instruction if queries else None)
            if served.kind != "tei" or "None" in served.identity:
                # Without a revision, a name says little: the address counts too.
                counted.append(self.url)
        digest = hashlib.blake2b(json.dumps(counted).encode(), digest_size=8)
        return f"remote-{digest.hexdigest()}"

    def with_options(self, **changes: Any) -> RemoteEncoder:
        """Make another encoder over the same connection.

        Args:
            **changes: ``max_length``; for servers of others the two instructions.

        Returns:
            The other encoder; closing either closes both.

        Raises:
            ValueError: It is the server that has this option.
        """
        foreign = sorted(changes.keys() - self._options.keys())
        if foreign:
            raise ValueError(
                f"{', '.join(foreign)} cannot be set for a model that a server holds: the server "
                "is started with it"
            )
        other = self._over_the_same(changes)
        other._check_options(other._served)
        return other

    def compute_score(
        self,
        pairs: Iterable[tuple[str, str]],
        weights: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> dict[str, list[float]]:
        """Score (query, document) pairs on the server in all ways that M3 knows.

        Args:
            pairs: Queries with documents.
            weights: Of dense, sparse and colbert in the combined scores.

        Returns:
            As of ``Encoder.compute_score``.

        Raises:
            MissingRepresentationError: The server is of others, or its model a dense one.
        """
        served = self._served
        queries, documents = check_pairs(pairs)
        if served.kind != "m3" or served.representations != PARTS.keys():
            raise MissingRepresentationError(self._lacking(set(PARTS)))
        if self._options["max_length"] is not None:
            raise ValueError("max_length= of the encoder does not count in scores of the server")
        both = list(zip(queries, documents, strict=True))
        http = self._service.http
        return http.run(self._service.score(self._service.server, both, list(weights)))

    def stats(self) -> RemoteStats:
        """Say what was asked of the server so far, by this process."""
        counts = self._service.http.counts
        return RemoteStats(**{field.name: counts[field.name] for field in fields(RemoteStats)})

    def __repr__(self) -> str:
        model = self._made_of[2]["model"]
        state = ", closed" if self.closed else ""
        return f"RemoteEncoder({self.url!r}{f', model={model!r}' if model else ''}{state})"

    def __copy__(self) -> RemoteEncoder:
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> RemoteEncoder:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        url, key, given = self._made_of
        changed = {name: value for name, value in self._options.items() if value is not None}
        return _restored, (url, key, given, changed)

    def _over_the_same(self, changes: Mapping[str, Any]) -> RemoteEncoder:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._options = {**self._options, **changes}
        return other

    @property
    def _served(self) -> Served:
        return self._service.server.served

    def _encode(
        self,
        role: Role,
        texts: Iterable[str],
        parts: tuple[str, ...],
        max_length: int | None,
        *,
        show_progress: bool,
    ) -> Representations:
        listed = check_texts(texts)
        served = self._served
        ready = self._ready(served, role, listed, parts, max_length)
        if not listed:
            return nothing_of(served, parts)
        with progress(len(listed), "Encoding", "text", show=show_progress) as update:
            found, cut = self._service.http.run(
                self._service.encode(self._service.server, *ready, update)
            )
        _warn_of_cut(cut, len(listed), served)
        return Representations.concatenate(found)

    async def _aencode(
        self,
        role: Role,
        texts: Iterable[str],
        parts: tuple[str, ...],
        max_length: int | None,
        *,
        show_progress: bool,
    ) -> Representations:
        if not self._service.is_open:
            await beside(lambda: self._service.server)
        listed = check_texts(texts)
        served = self._served
        ready = self._ready(served, role, listed, parts, max_length)
        if not listed:
            return nothing_of(served, parts)
        with progress(len(listed), "Encoding", "text", show=show_progress) as update:
            found, cut = await self._service.http.arun(
                self._service.encode(self._service.server, *ready, update)
            )
        _warn_of_cut(cut, len(listed), served)
        return await aside(
            len(listed) > TEXTS_ON_THE_LOOP, lambda: Representations.concatenate(found)
        )

    def _ready(
        self,
        served: Served,
        role: Role,
        texts: list[str],
        parts: tuple[str, ...],
        max_length: int | None,
    ) -> tuple[Role, list[str], tuple[str, ...], int | None]:
        if not parts:
            raise ValueError("nothing to compute: set one of the flags")
        if not served.representations.issuperset(parts):
            raise MissingRepresentationError(self._lacking(set(parts)))
        self._check_options(served)
        length = self._checked_length(max_length, served) or self._options["max_length"]
        if served.kind != "m3" and (before := self._instruction(role)):
            texts = [before + text for text in texts]
        return role, texts, parts, length

    def _check_options(self, served: Served) -> None:
        self._checked_length(self._options["max_length"], served)
        if served.kind != "m3":
            return
        for role in ("query", "document"):
            name = f"{role}_instruction"
            if self._options[name] not in (None, served.instructions[role]):
                raise ValueError(
                    f"{name} cannot be set here: {self.url} puts its own, "
                    f"{served.instructions[role]!r}, before every text"
                )

    def _checked_length(self, length: int | None, served: Served) -> int | None:
        if length is None or length == served.max_length:
            return length
        if not served.cuts:
            raise ValueError(
                f"max_length={length} cannot be honoured: a server of the kind {served.kind!r} "
                f"cuts texts at its own length of {served.max_length} tokens"
            )
        if not isinstance(length, int) or not 0 < length <= served.max_length:
            raise ValueError(
                f"max_length must be from 1 to the server's {served.max_length}; got {length!r}"
            )
        return length

    def _instruction(self, role: str) -> str:
        served = self._served
        if served.kind == "m3":
            return served.instructions[role]
        chosen: str | None = self._options[f"{role}_instruction"]
        if chosen is not None:
            return chosen
        known = find_known(served.name)
        return "" if known is None else str(getattr(known, f"{role}_instruction"))

    def _lacking(self, parts: set[str]) -> str:
        served = self._served
        absent = sorted(parts - served.representations) or sorted(parts)
        return (
            f"{' and '.join(absent)} asked for, but {served.name!r} at {self.url} (a server of the "
            f"kind {served.kind!r}) gives only {', '.join(sorted(served.representations))}: "
            "m3-retrieval serve with an M3 checkpoint gives all three"
        )


def _warn_of_cut(cut: int, texts: int, served: Served) -> None:
    if cut:
        warnings.warn(
            f"{cut} of {texts} texts were longer than the max_length of {served.name!r} and were "
            "cut to it by the server",
            TruncationWarning,
            stacklevel=level_of_caller(),
        )


def shared_remote(url: str, api_key: Any = None, **options: Any) -> RemoteEncoder:
    """Give the process's encoder for an address and key, so that all share its connections.

    Args:
        url: As of ``RemoteEncoder``.
        api_key: Likewise.
        **options: Its others, except those of ``with_options``.

    Returns:
        The same object for equal arguments; another one after ``close()``, and where the server
        has another model than it had.
    """
    return _shared.get(url, api_key, options)


_shared = SharedClients(RemoteEncoder)


def _restored(
    url: str, key: str | None, given: Mapping[str, Any], changed: Mapping[str, Any]
) -> RemoteEncoder:
    encoder = shared_remote(url, key, **given)
    # Not by with_options, which asks the server.
    return encoder._over_the_same(changed) if changed else encoder
