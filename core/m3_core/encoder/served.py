"""What servers that encode say of their models, and how texts are asked of any of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from m3_core.encoder.protocol import PARTS
from m3_core.errors import BadReplyError, ModelChangedError, RemoteError
from m3_core.representations import LexicalWeights, MultiVectors, Representations

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from m3_core.encoder.protocol import Role
    from m3_core.http_client import HttpClient

ServerKind = Literal["auto", "m3", "tei", "openai", "vllm"]

# Where a server does not say what it takes.
MANY = 1 << 31
UNKNOWN_LENGTH = 8192
# Of paths that a server does not have, or does not have for its model.
ABSENT = frozenset({400, 404, 405, 422, 424, 501})

_OWNER = "m3-retrieval"
# Larger requests are no faster, and replies with multi-vectors take the more memory on both sides.
_MAX_TEXTS, _MAX_CHARACTERS = 256, 100_000
_LESS_WITH_VECTORS = 8


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
    max_length: int = UNKNOWN_LENGTH
    instructions: Mapping[str, str] = field(default_factory=dict)
    max_texts: int = MANY
    max_characters: int = MANY
    vocabulary_size: int | None = None
    fingerprints: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    identity: str = ""
    cuts: bool = False


class Server(Protocol):
    """A server of some kind, at an address; its coroutines run on the thread of requests."""

    served: Served

    async def encode(
        self,
        role: Role,
        texts: Sequence[str],
        parts: Sequence[str],
        max_length: int | None,
        told: Counter[str],
    ) -> Representations:
        """Encode the texts of one request.

        Args:
            role: For servers that put instructions before texts.
            texts: The texts; at least one.
            parts: What is asked for; at least one.
            max_length: Tokens a text at most; ``None`` for the server's own.
            told: Counts under ``"truncated"`` the texts that the server says it has cut.

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
        names = ", ".join(str(one.get("id")) for one in fitting[:20]) or "none"
        if model is not None:
            chosen = [one for one in fitting if one.get("id") == model]
            if not chosen and any(one.get("id") == model for one in self.models):
                raise RemoteError(
                    f"the server's model {model!r} is of another kind: of the one that is asked "
                    f"for it has {names}"
                )
            if not chosen:
                raise RemoteError(f"the server has no model {model!r}; it has {names}")
            return chosen[0]
        if not fitting:
            others = ", ".join(str(one.get("id")) for one in self.models[:20])
            raise RemoteError(
                "the server has no model of the kind that is asked for, an encoder or a reranker; "
                f"it has {others or 'none at all'}: start it with one"
            )
        if len(fitting) > 1 and self.kind != "m3":
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
        found = await asked(http, f"{prefix}/models")
        listed = found.get("data") if isinstance(found, dict) else None
        models = tuple(one for one in listed or () if isinstance(one, dict))
        owners = {one.get("owned_by") for one in models}
        if _OWNER in owners and kind in ("auto", "m3"):
            return Found("m3", prefix, models)
        if kind in ("auto", "tei"):
            info = await asked(http, "/info")
            if isinstance(info, dict) and "model_id" in info:
                return Found("tei", "", info=info)
        if models and kind in ("auto", "openai", "vllm"):
            is_vllm = kind == "vllm" or (kind == "auto" and "vllm" in owners)
            return Found("vllm" if is_vllm else "openai", prefix, models)
    known = "m3-retrieval, text-embeddings-inference, vLLM or OpenAI's protocol"
    raise RemoteError(
        f"at {http.url} is no server of {known if kind == 'auto' else f'the kind {kind!r}'}: "
        "neither /v1/models, /models nor /info say so; the address is that before these paths"
    )


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


async def asked(http: HttpClient, path: str, body: Any = None) -> Any:
    """What a path says; ``None`` if the server does not have it."""
    try:
        return (await http.request("GET" if body is None else "POST", path, body)).json()
    except BadReplyError:
        return None
    except RemoteError as error:
        if error.status not in ABSENT:
            raise
        return None
