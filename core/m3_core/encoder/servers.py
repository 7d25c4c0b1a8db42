"""Servers that encode: ours, and others as far as they give the same representations."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from m3_core.encoder.protocol import PARTS
from m3_core.errors import BadReplyError, ModelChangedError, RemoteError
from m3_core.http_client import in_order, read_beside
from m3_core.representations import LexicalWeights, MultiVectors, Representations
from m3_core.values import shown
from m3_core.wire import MEDIA_TYPE, Encoded, from_body, from_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from m3_core.encoder.protocol import Role
    from m3_core.http_client import HttpClient, Reply

ServerKind = Literal["auto", "m3", "tei", "openai", "vllm"]

_OWNER = "m3-retrieval"
# At most, and where a server does not say what it takes: larger requests are no faster, and
# replies with multi-vectors take the more memory on both sides.
_MAX_TEXTS, _MAX_CHARACTERS = 256, 100_000
_LESS_WITH_VECTORS = 8
_TEI_TEXTS = 32
_MANY = 1 << 31
_UNKNOWN_LENGTH = 8192
# Of paths that a server does not have, or does not have for its model.
_ABSENT = frozenset({400, 404, 405, 422, 424, 501})
# <s>, <pad>, </s> and <unk>, which FlagEmbedding gives no weight.
_UNWEIGHTED = 4


@dataclass(frozen=True, slots=True)
class Served:
    """What a server says of one of its models.

    Attributes:
        kind: Which server it is.
        name: The model's name there.
        representations: Of ``"dense"``, ``"sparse"`` and ``"colbert"``.
        dimension: Width of the dense vectors.
        colbert_dimension: Width of the multi-vectors; 0 where there are none.
        max_length: Tokens a text at most.
        instructions: What the server itself puts before texts, by role.
        max_texts: Texts a request at most.
        max_characters: Characters a request at most, unless a single text is longer.
        vocabulary_size: Of the model, if the server says it.
        fingerprints: By role and parts as ``"dense+sparse"``; empty for servers of others.
        identity: What tells this model from another at the same address.
        cuts: Whether a request may say how many tokens are kept of a text.
    """

    kind: str
    name: str
    representations: frozenset[str]
    dimension: int
    colbert_dimension: int = 0
    max_length: int = _UNKNOWN_LENGTH
    instructions: Mapping[str, str] = field(default_factory=dict)
    max_texts: int = _MANY
    max_characters: int = _MANY
    vocabulary_size: int | None = None
    fingerprints: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    identity: str = ""
    cuts: bool = False


class Server(Protocol):
    """A server of some kind, at an address; its coroutines run on the thread of requests."""

    served: Served

    async def encode(
        self, role: Role, texts: Sequence[str], parts: Sequence[str], max_length: int | None
    ) -> Representations:
        """Encode the texts of one request.

        Args:
            role: For servers that put instructions before texts.
            texts: The texts; at least one.
            parts: What is asked for; at least one.
            max_length: Tokens a text at most; ``None`` for the server's own.

        Returns:
            These parts.
        """

    async def identity(self) -> str:
        """Ask again what tells the model from others."""


@dataclass(frozen=True, slots=True)
class Found:
    """What answers at an address.

    Attributes:
        kind: ``"m3"``, ``"tei"``, ``"vllm"`` or ``"openai"``.
        prefix: What paths begin with: ``"/v1"`` or nothing.
        models: What the list of models holds.
        info: What a TEI server says of itself.
    """

    kind: str
    prefix: str = "/v1"
    models: tuple[Mapping[str, Any], ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)

    def choose(self, model: str | None, wanted: Callable[[Mapping[str, Any]], bool]) -> Any:
        """Choose one of the models.

        Args:
            model: Its name; ``None`` for the first of ours, or the only one of others.
            wanted: Whether a model is of the right kind.

        Returns:
            Its entry in the list.

        Raises:
            RemoteError: There is none, or it must be said which.
        """
        fitting = [one for one in self.models if wanted(one)]
        names = ", ".join(str(one.get("id")) for one in fitting[:20]) or "none of this kind"
        if model is not None:
            chosen = [one for one in fitting if one.get("id") == model]
            if not chosen:
                raise RemoteError(f"the server has no model {model!r}; it has {names}")
            return chosen[0]
        if not fitting or (len(fitting) > 1 and self.kind != "m3"):
            raise RemoteError(f"name the model: the server has {names}")
        return fitting[0]


async def find_server(http: HttpClient, kind: ServerKind = "auto") -> Found:
    """Find out what answers at an address.

    Args:
        http: The client of the address.
        kind: ``"auto"`` or what it is.

    Returns:
        What it is.

    Raises:
        RemoteError: Nothing answers, or nothing that is known here.
    """
    for prefix in ("/v1", ""):
        found = await _asked(http, f"{prefix}/models")
        listed = found.get("data") if isinstance(found, dict) else None
        models = tuple(one for one in listed or () if isinstance(one, dict))
        owners = {one.get("owned_by") for one in models}
        if _OWNER in owners and kind in ("auto", "m3"):
            return Found("m3", prefix, models)
        if kind in ("auto", "tei"):
            info = await _asked(http, "/info")
            if isinstance(info, dict) and "model_id" in info:
                return Found("tei", "", info=info)
        if models and kind in ("auto", "openai", "vllm"):
            is_vllm = kind == "vllm" or (kind == "auto" and "vllm" in owners)
            return Found("vllm" if is_vllm else "openai", prefix, models)
    known = "m3-retrieval, text-embeddings-inference, vLLM or with OpenAI's protocol"
    raise RemoteError(
        f"no server is known at {http.url} {known if kind == 'auto' else f'of the kind {kind!r}'}: "
        "neither /v1/models, /models nor /info say so"
    )


async def open_server(http: HttpClient, kind: ServerKind, model: str | None) -> Server:
    """Find out what a server encodes with.

    Args:
        http: The client of its address.
        kind: Which server it is, or ``"auto"``.
        model: The name of its model, if it has several.

    Returns:
        The server.

    Raises:
        RemoteError: There is none, or none with such a model.
    """
    found = await find_server(http, kind)
    if found.kind == "m3":
        return M3Server(http, found, model)
    opened = TeiServer if found.kind == "tei" else OpenAIServer
    return await opened.open(http, found, model)


class M3Server:
    """``m3-retrieval serve``: all representations in one reply, as one binary body.

    Args:
        http: The client of its address.
        found: What it says of its models.
        model: The name of one; the first encoder by default.

    Raises:
        RemoteError: It has no such encoder.
        BadReplyError: It says of it what cannot be.
    """

    def __init__(self, http: HttpClient, found: Found, model: str | None) -> None:
        entry = found.choose(model, lambda one: one.get("kind", "encoder") == "encoder")
        self._http = http
        self._model = model
        self.served = _served(entry)

    async def identity(self) -> str:
        """Nothing to ask: each reply says it."""
        return self.served.identity

    async def encode(
        self, role: Role, texts: Sequence[str], parts: Sequence[str], max_length: int | None
    ) -> Representations:
        """Do as ``Server.encode`` says."""
        body = {
            "texts": list(texts),
            "role": role,
            "representations": list(parts),
            "max_length": max_length,
            "model": self.served.name,
        }
        accept = f"{MEDIA_TYPE}, application/json;q=0.5"
        reply = await self._http.request("POST", "/v1/encode", body, accept)
        encoded = await read_beside(reply, _encoded)
        known = self.served.fingerprints[role].get("+".join(parts))
        if encoded.model != self.served.name or encoded.fingerprint != known:
            raise ModelChangedError(
                f"{reply.place} answers with vectors of {encoded.model!r} ({encoded.fingerprint}), "
                f"and had {self.served.name!r} ({known}) before: what was encoded until now does "
                "not go with it; make a new encoder, and encode all documents anew",
                reply.status,
            )
        if encoded.role != role:
            raise BadReplyError(f"{reply.place}: asked for the role {role}, got {encoded.role}")
        return encoded.reps


class TeiServer:
    """Hugging Face's text-embeddings-inference: dense vectors, or sparse ones."""

    def __init__(self, http: HttpClient, served: Served) -> None:
        self._http = http
        self.served = served

    @classmethod
    async def open(cls, http: HttpClient, found: Found, model: str | None) -> TeiServer:
        """Ask for what there is to know.

        Args:
            http: The client of its address.
            found: What it says of itself.
            model: The name that its model must have.

        Returns:
            The server.

        Raises:
            RemoteError: It has another model, or one that does not encode.
        """
        info = found.info
        name = str(info["model_id"])
        if model not in (None, name):
            raise RemoteError(f"the server has no model {model!r}; it has {name}")
        probe = {"inputs": ["a"], "truncate": True}
        dense = await _asked(http, "/embed", probe)
        sparse = await _asked(http, "/embed_sparse", probe)
        served = Served(
            kind="tei",
            name=name,
            representations=_given(name, dense=dense is not None, sparse=sparse is not None),
            dimension=0 if dense is None else _width(dense),
            max_length=int(info.get("max_input_length") or _UNKNOWN_LENGTH),
            max_texts=int(info.get("max_client_batch_size") or _TEI_TEXTS),
            identity=_tei_identity(info),
        )
        return cls(http, served)

    async def identity(self) -> str:
        """Ask again what tells the model from others."""
        return _tei_identity((await self._http.request("GET", "/info")).json())

    async def encode(
        self,
        role: Role,
        texts: Sequence[str],
        parts: Sequence[str],
        max_length: int | None,
    ) -> Representations:
        """Do as ``Server.encode`` says."""
        body = {"inputs": list(texts), "truncate": True}
        given: dict[str, Any] = {}
        if "dense" in parts:
            reply = await self._http.request("POST", "/embed", body)
            given["dense_vecs"] = await read_beside(reply, lambda one: _rows(one.json(), one))
        if "sparse" in parts:
            reply = await self._http.request("POST", "/embed_sparse", body)
            given["lexical_weights"] = await read_beside(reply, _tei_weights)
        return Representations(**given)


class OpenAIServer:
    """``/v1/embeddings`` as OpenAI, infinity, vLLM and many others have it; vLLM's weights too."""

    def __init__(self, http: HttpClient, served: Served, prefix: str) -> None:
        self._http = http
        self._prefix = prefix
        self.served = served

    @classmethod
    async def open(cls, http: HttpClient, found: Found, model: str | None) -> OpenAIServer:
        """Ask for what there is to know.

        Args:
            http: The client of its address.
            found: Its models.
            model: The name of one of them.

        Returns:
            The server.

        Raises:
            RemoteError: It has no such model, or it must be said which.
        """
        entry = found.choose(model, lambda one: "embed" in one.get("capabilities", ["embed"]))
        name = str(entry["id"])
        basis = Served(
            found.kind,
            name,
            frozenset({"dense", "sparse"}),
            dimension=0,
            max_length=int(entry.get("max_model_len") or _UNKNOWN_LENGTH),
            identity=name,
            cuts=found.kind == "vllm",
        )
        probing = cls(http, basis, found.prefix)
        parts = ("dense", "sparse") if found.kind == "vllm" else ("dense",)
        got: dict[str, Any] = {}
        for part in parts:
            try:
                got[part] = await probing.encode("document", ["a"], (part,), None)
            except BadReplyError:
                raise
            except RemoteError as error:
                if error.status not in _ABSENT or (part == "dense" and len(parts) == 1):
                    raise
        given = _given(name, dense="dense" in got, sparse="sparse" in got)
        served = Served(
            found.kind,
            name,
            given,
            dimension=got["dense"].dense_vecs.shape[1] if "dense" in got else 0,
            max_length=basis.max_length,
            identity=name,
            cuts=basis.cuts,
        )
        return cls(http, served, found.prefix)

    async def identity(self) -> str:
        """Ask again whether the model is there."""
        found = (await self._http.request("GET", f"{self._prefix}/models")).json()
        listed = found.get("data") if isinstance(found, dict) else None
        names = [one.get("id") for one in listed or () if isinstance(one, dict)]
        return self.served.name if self.served.name in names else f"none of {names}"

    async def encode(
        self,
        role: Role,
        texts: Sequence[str],
        parts: Sequence[str],
        max_length: int | None,
    ) -> Representations:
        """Do as ``Server.encode`` says."""
        body: dict[str, Any] = {"model": self.served.name, "input": list(texts)}
        if self.served.cuts:
            body["truncate_prompt_tokens"] = max_length or self.served.max_length
        given: dict[str, Any] = {}
        if "dense" in parts:
            reply = await self._http.request(
                "POST", f"{self._prefix}/embeddings", body | {"encoding_format": "base64"}
            )
            given["dense_vecs"] = await read_beside(reply, self._dense)
        if "sparse" in parts:
            given["lexical_weights"] = await self._weights(texts, body)
        return Representations(**given)

    def _dense(self, reply: Reply) -> NDArray[np.float32]:
        found = reply.json()
        named = found.get("model") if isinstance(found, dict) else None
        # Some servers answer with a longer name, a version of the one that was asked for.
        if isinstance(named, str) and self.served.name.split("/")[-1] not in named:
            raise ModelChangedError(f"{reply.place}: asked {self.served.name!r}, {named!r} answers")
        return _rows([_floats(one.get("embedding")) for one in _data(found, reply)], reply)

    async def _weights(self, texts: Sequence[str], body: Mapping[str, Any]) -> LexicalWeights:
        """VLLM gives one weight a token, and leaves it to others which token that is."""
        http = self._http

        async def tokenized(text: str) -> tuple[Any, str]:
            asked = {"model": self.served.name, "prompt": text, "add_special_tokens": False}
            reply = await http.request("POST", "/tokenize", asked)
            found = reply.json()
            return (found.get("tokens") if isinstance(found, dict) else None), reply.place

        reply = await http.request("POST", "/pooling", {**body, "task": "token_classify"})
        items = await read_beside(reply, lambda one: _data(one.json(), one))
        tokens = await in_order(texts, tokenized, http.options.in_flight)
        if len(items) != len(tokens):
            raise BadReplyError(f"{reply.place}: {len(items)} texts in place of {len(tokens)}")
        most = int(body["truncate_prompt_tokens"]) - 2
        rows: list[dict[int, float]] = []
        for item, (ids, _) in zip(items, tokens, strict=True):
            weights = _numbers(item.get("data"), reply).reshape(-1)
            if not isinstance(ids, list) or len(ids[:most]) != len(weights):
                raise BadReplyError(
                    f"{reply.place}: {len(weights)} weights of another number of tokens: "
                    f"{shown(ids)}"
                )
            rows.append(_heaviest(zip(ids, weights.tolist(), strict=False), reply))
        return LexicalWeights.from_dicts(rows)


def check_reply(
    reps: Representations, texts: Sequence[str], parts: Sequence[str], served: Served
) -> Representations:
    """Check that representations are those that were asked for.

    Args:
        reps: What a server gave.
        texts: What was sent.
        parts: What was asked for.
        served: What the server has said of its model.

    Returns:
        The representations.

    Raises:
        BadReplyError: They are others.
        ModelChangedError: They are of another width.
    """
    given = [part for part, name in PARTS.items() if getattr(reps, name) is not None]
    if len(reps) != len(texts) or set(given) != set(parts):
        raise BadReplyError(
            f"asked {served.name!r} for {', '.join(parts)} of {len(texts)} texts, and got "
            f"{', '.join(given)} of {len(reps)}"
        )
    widths = {}
    if reps.dense_vecs is not None:
        widths["dense"] = reps.dense_vecs.shape[1], served.dimension
    if reps.colbert_vecs is not None:
        widths["multi-vectors"] = reps.colbert_vecs.vectors.shape[1], served.colbert_dimension
    for name, (found, known) in widths.items():
        if found != known:
            raise ModelChangedError(
                f"{served.name!r} gives {name} of width {found}, and had {known} before: the "
                "server has another model now"
            )
    return reps


def nothing_of(served: Served, parts: Sequence[str]) -> Representations:
    """Give the representations of no texts.

    Args:
        served: Whose.
        parts: Which.

    Returns:
        Arrays of no rows.
    """
    offsets = np.zeros(1, np.int64)
    ids, weights = np.zeros(0, np.int32), np.zeros(0, np.float32)
    width = served.colbert_dimension
    return Representations(
        dense_vecs=np.zeros((0, served.dimension), np.float32) if "dense" in parts else None,
        lexical_weights=LexicalWeights(ids, weights, offsets, served.vocabulary_size)
        if "sparse" in parts
        else None,
        colbert_vecs=MultiVectors(np.zeros((0, width), np.float32), offsets)
        if "colbert" in parts
        else None,
    )


def split(
    texts: Sequence[str],
    served: Served,
    parts: Sequence[str],
    max_texts: int | None,
    max_characters: int | None,
) -> Iterator[list[str]]:
    """Split texts into requests.

    Args:
        texts: The texts.
        served: What the server takes.
        parts: What is asked for.
        max_texts: Texts a request at most; ``None`` for what is usual.
        max_characters: Characters a request at most, unless a single text is longer; likewise.

    Yields:
        The texts of one request.
    """
    less = _LESS_WITH_VECTORS if "colbert" in parts else 1
    most = min(max_texts or _MAX_TEXTS // less, served.max_texts)
    longest = min(max_characters or _MAX_CHARACTERS // less, served.max_characters)
    chunk: list[str] = []
    characters = 0
    for text in texts:
        if chunk and (len(chunk) >= most or characters + len(text) > longest):
            yield chunk
            chunk, characters = [], 0
        chunk.append(text)
        characters += len(text)
    if chunk:
        yield chunk


async def _asked(http: HttpClient, path: str, body: Any = None) -> Any:
    """What a path says; ``None`` if the server does not have it."""
    try:
        return (await http.request("GET" if body is None else "POST", path, body)).json()
    except BadReplyError:
        return None
    except RemoteError as error:
        if error.status not in _ABSENT:
            raise
        return None


def _served(entry: Mapping[str, Any]) -> Served:
    try:
        parts = frozenset(entry["representations"])
        fingerprints = {
            role: {str(key): str(value) for key, value in entry["fingerprints"][role].items()}
            for role in ("document", "query")
        }
        limits = entry.get("limits") or {}
        size = entry.get("vocabulary_size")
        if not parts or parts - PARTS.keys():
            raise ValueError(f"representations are {sorted(parts)}")
        return Served(
            kind="m3",
            name=str(entry["id"]),
            representations=parts,
            dimension=int(entry.get("dimension") or 0),
            colbert_dimension=int(entry.get("colbert_dimension") or 0),
            max_length=int(entry["max_length"]),
            instructions={
                role: str(entry.get(f"{role}_instruction") or "") for role in fingerprints
            },
            max_texts=max(1, int(limits.get("max_texts") or _MANY)),
            max_characters=max(1, int(limits.get("max_characters") or _MANY)),
            vocabulary_size=None if size is None else int(size),
            fingerprints=fingerprints,
            identity=fingerprints["query"]["+".join(part for part in PARTS if part in parts)],
            cuts=True,
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise BadReplyError(
            f"what the server says of its model is not as expected ({error!r}): {shown(entry)}"
        ) from error


def _encoded(reply: Reply) -> Encoded:
    return from_json(reply.json()) if "json" in reply.content_type else from_body(reply.body)


def _given(name: str, *, dense: bool, sparse: bool) -> frozenset[str]:
    given = {part for part, has in (("dense", dense), ("sparse", sparse)) if has}
    if not given:
        raise RemoteError(f"the server's {name!r} does not encode: it is no embedding model")
    return frozenset(given)


def _tei_identity(info: Any) -> str:
    if not isinstance(info, dict):
        raise BadReplyError(f"/info of the server is no JSON object: {shown(info)}")
    return " ".join(str(info.get(key)) for key in ("model_id", "model_sha", "model_dtype"))


def _width(rows: Any) -> int:
    try:
        return len(rows[0])
    except (LookupError, TypeError) as error:
        raise BadReplyError(f"the server's vectors are none: {shown(rows)}") from error


def _data(found: Any, reply: Reply) -> list[Mapping[str, Any]]:
    """The items of a reply in OpenAI's shape, in the order of the texts."""
    listed = found.get("data") if isinstance(found, dict) else None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise BadReplyError(f"{reply.place}: the reply has no list of data: {shown(found)}")
    by_index = {one.get("index"): one for one in listed}
    if by_index.keys() != set(range(len(listed))):
        raise BadReplyError(f"{reply.place}: the data are not numbered from 0 on: {shown(listed)}")
    return [by_index[number] for number in range(len(listed))]


def _floats(embedding: Any) -> Any:
    if not isinstance(embedding, str):
        return embedding
    try:
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
    except ValueError as error:
        raise BadReplyError(f"a vector is not base64 of float32: {shown(embedding)}") from error


def _numbers(value: Any, reply: Reply) -> NDArray[np.float32]:
    try:
        array = np.asarray(value, np.float64)
        if not (np.abs(array) <= np.finfo(np.float32).max).all():
            raise ValueError("NaN, infinity, or too large a number")
    except (TypeError, ValueError, OverflowError) as error:
        raise BadReplyError(f"{reply.place}: no numbers: {shown(value)}: {error}") from error
    return array.astype(np.float32)


def _rows(value: Any, reply: Reply) -> NDArray[np.float32]:
    array = _numbers(value, reply)
    if array.ndim != 2:
        raise BadReplyError(f"{reply.place}: vectors have the shape {array.shape}")
    return array


def _tei_weights(reply: Reply) -> LexicalWeights:
    found = reply.json()
    try:
        pairs = [[(one["index"], one["value"]) for one in row] for row in found]
    except (LookupError, TypeError) as error:
        raise BadReplyError(f"{reply.place}: no sparse vectors: {shown(found)}") from error
    return LexicalWeights.from_dicts([_heaviest(row, reply) for row in pairs])


def _heaviest(pairs: Any, reply: Reply) -> dict[int, float]:
    """Weights of one text as FlagEmbedding gives them: the largest of each token, above 0."""
    row: dict[int, float] = {}
    for token, weight in pairs:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < 2**31:
            raise BadReplyError(f"{reply.place}: {shown(token)} is no token id")
        if not isinstance(weight, (int, float)) or not abs(weight) < np.inf:
            raise BadReplyError(f"{reply.place}: {shown(weight)} is no weight")
        if token >= _UNWEIGHTED and weight > row.get(token, 0.0):
            row[token] = float(weight)
    return row
