"""Servers that encode, opened by what answers at an address; ours first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m3_core.encoder.foreign_servers import OpenAIServer, TeiServer
from m3_core.encoder.protocol import PARTS
from m3_core.encoder.served import MANY, Served, find_server
from m3_core.errors import BadReplyError, ModelChangedError
from m3_core.http_client import read_beside
from m3_core.values import shown
from m3_core.wire import MEDIA_TYPE, Encoded, from_body, from_json

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping, Sequence

    from m3_core.encoder.protocol import Role
    from m3_core.encoder.served import Found, Server, ServerKind
    from m3_core.http_client import HttpClient, Reply
    from m3_core.representations import Representations


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
        self,
        role: Role,
        texts: Sequence[str],
        parts: Sequence[str],
        max_length: int | None,
        told: Counter[str],
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
        told["truncated"] += reply.truncated
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
            max_texts=max(1, int(limits.get("max_texts") or MANY)),
            max_characters=max(1, int(limits.get("max_characters") or MANY)),
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
