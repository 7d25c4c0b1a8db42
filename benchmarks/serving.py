"""What the service costs over the bare engine, and what it gives many clients, against peers.

    python benchmarks/serving.py --model FOLDER [--peers] [--texts 2048] [--seconds 20] [--rounds 3]

Questions: which share of the bare engine's throughput a bulk job loses over HTTP, with the binary
body and with JSON; how many requests a second 64 clients with one query each get beside one bulk
client, and how long they wait (p50, p99). With ``--peers`` infinity-emb, and m3serve behind a
minimal app, answer the same load where they are installed in ``--peer-python``. Server and clients
are processes of one machine, so the clients' own cost is in every figure; all in turn, in one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
from shapes import sample_texts

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENTS = 64
BULK = 128

M3SERVE = """
import sys
import uvicorn
from fastapi import FastAPI, Request
from m3serve import Engine

app, engine = FastAPI(), Engine(sys.argv[1], device="cpu", use_fp16=False)

@app.get("/health")
async def health():
    if engine._loop is None:
        await engine.start()
    return {}

@app.post("/v1/embeddings")
async def embeddings(request: Request):
    body = await request.json()
    found = await engine.embed(body["input"], timeout=600)
    return {"data": [{"index": i, "embedding": row} for i, row in enumerate(found.dense)]}

uvicorn.run(app, port=int(sys.argv[2]), access_log=False)
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


class Server:
    """A server in a process of its own, ready when it is made."""

    def __init__(self, name: str, command: list[str], port: int, path: str) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self.path = path
        environment = {**os.environ, "DO_NOT_TRACK": "1"}
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
        while True:
            if self.process.poll() is not None:
                raise SystemExit(f"{name} ended with status {self.process.returncode}")
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)

    def body(self, texts: list[str], model: str, role: str) -> dict[str, object]:
        if self.path == "/v1/encode":
            return {"texts": texts, "role": role, "representations": ["dense"]}
        return {"input": texts, "model": model}

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


def texts_of(arguments: argparse.Namespace, count: int) -> list[str]:
    return sample_texts(Path(arguments.tokenizer), 90, 0.6, count, seed=0)


def ours(arguments: argparse.Namespace) -> Server:
    port = free_port()
    command = [sys.executable, "-m", "m3_core.cli.main", "serve", f"model={arguments.model}"]
    options = ["--port", str(port), "--dtype", arguments.dtype, "--max-tokens", str(1 << 24)]
    return Server("m3-retrieval", [*command, *options], port, "/v1/encode")


def peers(arguments: argparse.Namespace) -> dict[str, Callable[[], Server]]:
    python = arguments.peer_python
    infinity = Path(python).with_name("infinity_emb")

    def start_infinity() -> Server:
        port = free_port()
        command = [str(infinity), "v2", "--model-id", arguments.model, "--served-model-name"]
        options = ["model", "--port", str(port), "--device", "cpu", "--no-bettertransformer"]
        return Server("infinity-emb", [*command, *options], port, "/embeddings")

    def start_m3serve() -> Server:
        port = free_port()
        command = [python, "-c", M3SERVE, arguments.model, str(port)]
        return Server("m3serve", command, port, "/v1/embeddings")

    found: dict[str, Callable[[], Server]] = {}
    if infinity.exists():
        found["infinity-emb"] = start_infinity
    if not subprocess.run(
        [python, "-c", "import m3serve, fastapi, uvicorn"], check=False
    ).returncode:
        found["m3serve"] = start_m3serve
    return found


def bulk_seconds(server: Server, texts: list[str], accept: str, parts: list[str]) -> float:
    """Time for all texts, in requests of which 4 are under way at once."""
    chunks = [texts[at : at + BULK] for at in range(0, len(texts), BULK)]

    async def run() -> None:
        gate = asyncio.Semaphore(4)
        async with httpx.AsyncClient(timeout=None) as client:

            async def ask(chunk: list[str]) -> None:
                body = {"texts": chunk, "representations": parts}
                async with gate:
                    reply = await client.post(
                        f"{server.url}/v1/encode", json=body, headers={"Accept": accept}
                    )
                reply.raise_for_status()

            await asyncio.gather(*map(ask, chunks))

    start = time.perf_counter()
    asyncio.run(run())
    return time.perf_counter() - start


def share_of_http(arguments: argparse.Namespace) -> None:
    from m3_core import Encoder

    texts = texts_of(arguments, arguments.texts)
    encoder = Encoder.from_pretrained(arguments.model, dtype=arguments.dtype)

    async def bare(parts: list[str]) -> None:
        flags = {
            "return_dense": "dense" in parts,
            "return_sparse": "sparse" in parts,
            "return_colbert_vecs": "colbert" in parts,
        }
        gate = asyncio.Semaphore(4)

        async def ask(chunk: list[str]) -> None:
            async with gate:
                await encoder.aencode_documents(chunk, **flags)

        await asyncio.gather(*(ask(texts[at : at + BULK]) for at in range(0, len(texts), BULK)))

    server = ours(arguments)
    kinds = [["dense"], ["dense", "sparse"], ["dense", "sparse", "colbert"]]
    if "sparse" not in encoder.representations:
        kinds = kinds[:1]
    try:
        for parts in kinds:
            seconds: dict[str, list[float]] = {"bare": [], "binary": [], "json": []}
            for _ in range(arguments.rounds):
                start = time.perf_counter()
                asyncio.run(bare(parts))
                seconds["bare"].append(time.perf_counter() - start)
                for kind, accept in (
                    ("binary", "application/vnd.safetensors"),
                    ("json", "application/json"),
                ):
                    seconds[kind].append(bulk_seconds(server, texts, accept, parts))
            middle = {kind: statistics.median(times) for kind, times in seconds.items()}
            shares = {
                kind: round(1 - middle["bare"] / middle[kind], 3) for kind in ("binary", "json")
            }
            print(
                json.dumps(
                    {
                        "bulk": "+".join(parts),
                        "texts": len(texts),
                        "bare_texts_per_second": round(len(texts) / middle["bare"], 1),
                        "share_lost": shares,
                    }
                ),
                flush=True,
            )
    finally:
        server.end()


def many_clients(server: Server, arguments: argparse.Namespace) -> dict[str, object]:
    """Single queries of many clients, with one bulk client beside them."""
    queries = sample_texts(Path(arguments.tokenizer), 10, 0.4, 512, seed=1)
    documents = texts_of(arguments, BULK)
    ended = threading.Event()
    waits: list[float] = []
    bulk = 0

    def post(client: httpx.Client, texts: list[str], role: str) -> None:
        body = server.body(texts, "model", role)
        client.post(server.url + server.path, json=body).raise_for_status()

    def asking(number: int) -> None:
        with httpx.Client(timeout=None) as client:
            at = number
            while not ended.is_set():
                start = time.perf_counter()
                post(client, [queries[at % len(queries)]], "query")
                waits.append(time.perf_counter() - start)
                at += CLIENTS

    def filling() -> None:
        nonlocal bulk
        with httpx.Client(timeout=None) as client:
            while not ended.is_set():
                post(client, documents, "document")
                bulk += BULK

    threads = [threading.Thread(target=asking, args=(number,)) for number in range(CLIENTS)]
    threads.append(threading.Thread(target=filling))
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    time.sleep(arguments.seconds)
    ended.set()
    spent = time.perf_counter() - start
    for thread in threads:
        thread.join()
    middle, late = np.percentile(waits, [50, 99])
    return {
        "server": server.name,
        "requests_per_second": round(len(waits) / spent, 1),
        "p50_ms": round(middle * 1000, 1),
        "p99_ms": round(late * 1000, 1),
        "bulk_texts_per_second": round(bulk / spent, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--texts", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--tokenizer", help="A folder with tokenizer.json; the model's if absent.")
    arguments = parser.parse_args()
    arguments.tokenizer = arguments.tokenizer or arguments.model
    share_of_http(arguments)
    starts = {"m3-retrieval": lambda: ours(arguments)}
    if arguments.peers:
        starts |= peers(arguments)
    for start in starts.values():
        server = start()
        try:
            print(json.dumps(many_clients(server, arguments)), flush=True)
        finally:
            server.end()


if __name__ == "__main__":
    main()
