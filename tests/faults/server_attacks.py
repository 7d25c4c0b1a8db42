"""Requests that no honest client sends, and what a server answers to each."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass

MARK = "ocelot"
"""In every body: it must not get into a log."""

NOTHING = 0
"""In place of a status: the server closed the connection, or waits, without an answer."""


@dataclass(frozen=True)
class Attack:
    """What is sent, and how it may be answered."""

    name: str
    data: Callable[[str], bytes]
    statuses: tuple[int, ...]
    pause: float = 0.0
    close: bool = False


def post(path, body, *, key=True, headers=(), length=None, chunked=False):
    """A request as bytes, for a server with this key."""

    def data(secret: str) -> bytes:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", "Host: server", *headers]
        if key:
            lines.append(f"Authorization: Bearer {secret if key is True else key}")
        if chunked:
            lines.append("Transfer-Encoding: chunked")
            payload = b"%x\r\n%s\r\n0\r\n\r\n" % (len(payload), payload)
        else:
            lines.append(f"Content-Length: {len(payload) if length is None else length}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload

    return data


def encode(texts, **more):
    return post("/v1/encode", {"texts": texts, **more})


DEEP = b'{"texts": ' + b"[" * 100_000
TEXT = f"a secret {MARK}"

ATTACKS = (
    Attack("honest", encode([TEXT]), (200,)),
    Attack("no key", post("/v1/encode", {"texts": [TEXT]}, key=False), (401,)),
    Attack("wrong key", post("/v1/encode", {"texts": [TEXT]}, key=MARK), (401,)),
    Attack("wrong key, no such path", post(f"/{MARK}", {}, key=MARK), (401,)),
    Attack("no such path", post(f"/{MARK}?{MARK}", {}), (404,)),
    Attack("wrong method", post("/health", {MARK: 1}), (405,)),
    Attack("no HTTP", lambda _: f"{MARK}\r\n\r\n".encode(), (400,)),
    Attack("malformed JSON", post("/v1/encode", f'{{"texts": ["{TEXT}"'.encode()), (400,)),
    Attack("nested too deep", post("/v1/encode", DEEP), (400,)),
    Attack("not UTF-8", post("/v1/encode", b'{"texts": ["ocelot\xff"]}'), (400,)),
    Attack("lone surrogate", post("/v1/encode", b'{"texts": ["ocelot \\ud800"]}'), (400,)),
    Attack("compressed", post("/v1/encode", b"\x1f", headers=("Content-Encoding: gzip",)), (415,)),
    Attack("texts are numbers", encode([TEXT, 5]), (400,)),
    Attack("texts are an object", encode({TEXT: TEXT}), (400,)),
    Attack("a field unknown", encode([TEXT], **{MARK: TEXT}), (400,)),
    Attack("a role unknown", encode([TEXT], role=TEXT), (400,)),
    Attack("a model unknown", encode([TEXT], model=TEXT), (404,)),
    Attack("max_length -1", encode([TEXT], max_length=-1), (400,)),
    Attack("max_length 10^40", encode([TEXT], max_length=10**40), (400,)),
    Attack("max_length of 5,000 digits", post("/v1/encode", b'{"texts": "ocelot", "max_length": '
           + b"9" * 5000 + b"}"), (400,)),
    Attack("weights NaN", post("/v1/score", {"pairs": [[TEXT, TEXT]], "model": "m3",
           "weights": [float("nan"), 1, 1]}), (400,)),
    Attack("pairs of three", post("/v1/score", {"pairs": [[TEXT, TEXT, TEXT]]}), (400,)),
    Attack("token ids", post("/v1/embeddings", {"input": [[5, 6]], "model": "m3"}), (400,)),
    Attack("TEI: inputs are numbers", post("/embed", {"inputs": [TEXT, 5]}), (422,)),
    Attack("TEI: none", post("/embed", {"inputs": []}), (400,)),
    Attack("TEI: too long, uncut", post("/embed", {"inputs": TEXT * 999, "truncate": False}),
           (413,)),
    Attack("Cohere: no query", post("/v2/rerank", {"documents": [TEXT]}), (422,)),
    Attack("Jina: a field unknown", post("/v1/rerank", {"query": TEXT, "documents": [TEXT],
           MARK: 1}), (422,)),
    Attack("both TEI and Jina", post("/rerank", {"query": TEXT, "texts": [TEXT],
           "documents": [TEXT]}), (422,)),
    Attack("too many texts", encode([TEXT] * 33), (413,)),
    Attack("too many tokens", encode(["panda river " * 99] * 16), (413,)),
    Attack("too large, said so", post("/v1/encode", f"{MARK} ".encode() * 60_000), (413,)),
    Attack("too large, unsaid", post("/v1/encode", f"{MARK} ".encode() * 60_000, chunked=True),
           (413,)),
    Attack("too large, said and unsent", post("/v1/encode", b"", length=10**12), (413,)),
    Attack("length no number", post("/v1/encode", {}, length=MARK), (400,)),
    Attack("body cut", post("/v1/encode", b'{"texts": ["ocelot', length=99), (NOTHING,),
           close=True),
    Attack("body that never comes", post("/v1/encode", b'{"texts"', length=99), (408,)),
    Attack("slow bytes", encode([TEXT]), (200, 408), pause=0.02),
    Attack("gone at once", encode([TEXT]), (NOTHING, 200), close=True),
)  # fmt: skip


async def answer(port: int, attack: Attack, secret: str, seconds: float = 60.0) -> int:
    """Send a request and read the status of what comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = attack.data(secret)
    try:
        if attack.pause:
            for at in range(0, len(data), 16):
                writer.write(data[at : at + 16])
                await writer.drain()
                await asyncio.sleep(attack.pause)
        else:
            writer.write(data)
            if not attack.close:
                await writer.drain()
        if attack.close:
            return NOTHING
        head = await asyncio.wait_for(reader.readline(), seconds)
        return int(head.split()[1]) if head else NOTHING
    except (ConnectionError, asyncio.TimeoutError):
        return NOTHING
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
