"""Servers of others, as far as they give the same representations."""

from __future__ import annotations

import base64
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.encoder.served import ABSENT, UNKNOWN_LENGTH, Served, asked
from m3_core.errors import BadReplyError, ModelChangedError, RemoteError
from m3_core.http_client import read_beside
from m3_core.representations import LexicalWeights, Representations
from m3_core.request_thread import in_order
from m3_core.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from m3_core.encoder.protocol import Role
    from m3_core.encoder.served import Found
    from m3_core.http_client import HttpClient, Reply

_TEI_TEXTS = 32
# <s>, <pad>, </s> and <unk>, which FlagEmbedding gives no weight.
_UNWEIGHTED = 4


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
        dense = await asked(http, "/embed", probe)
        sparse = await asked(http, "/embed_sparse", probe)
        served = Served(
            kind="tei",
            name=name,
            representations=_given(name, dense=dense is not None, sparse=sparse is not None),
            dimension=0 if dense is None else _width(dense),
            max_length=int(info.get("max_input_length") or UNKNOWN_LENGTH),
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
        told: Counter[str],
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
            max_length=int(entry.get("max_model_len") or UNKNOWN_LENGTH),
            identity=name,
            cuts=found.kind == "vllm",
        )
        probing = cls(http, basis, found.prefix)
        parts = ("dense", "sparse") if found.kind == "vllm" else ("dense",)
        got: dict[str, Any] = {}
        for part in parts:
            try:
                got[part] = await probing.encode("document", ["a"], (part,), None, Counter())
            except BadReplyError:
                raise
            except RemoteError as error:
                if error.status not in ABSENT or (part == "dense" and len(parts) == 1):
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
        told: Counter[str],
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
