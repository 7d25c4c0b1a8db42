"""The table of a server's faults: who attacks it, what it answers, what its log holds.

    python tests/faults/server.py [--model m3-small] [--connections 1000] [--kills 3]

It starts ``m3-retrieval serve``, sends every request of ``server_attacks``, holds connections
open, kills the server while 16 clients ask, and starts it again. Each reply that says 200 must hold
the vectors of the local encoder; every other outcome is an error of the client's. It ends with
status 1 if a reply was wrong, if an honest client was not served, or if the log holds a text.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults.server_attacks import ATTACKS, MARK, NOTHING, answer

from m3_core import Encoder, wire
from m3_core.errors import BadReplyError

KEY = "key-of-this-run"
CLIENTS = 16
TEXTS = [f"{MARK} {number}: what the river carries to the city" for number in range(64)]


class Served:
    """The command in a process of its own; its log goes to a file."""

    def __init__(self, model: str, port: int, log: Path) -> None:
        limits = ["--max-texts", "32", "--max-tokens", "1024", "--max-body", "1"]
        self.command = [
            *(sys.executable, "-m", "m3_core.cli.main", "serve", f"m3={model}"),
            *("--port", str(port), "--dtype", "float32", "--log-level", "debug", *limits),
        ]
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, "M3_API_KEY": KEY}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stderr=log, env=environment)
        while True:
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)

    def end(self, how: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait()


def ask(client: httpx.Client, url: str, texts: list[str], expected: np.ndarray) -> str:
    """Encode texts, and say what came of it."""
    headers = {"Authorization": f"Bearer {KEY}", "Accept": wire.MEDIA_TYPE}
    try:
        reply = client.post(f"{url}/v1/encode", json={"texts": texts}, headers=headers)
    except httpx.TransportError as error:
        return type(error).__name__
    if reply.status_code != 200:
        return str(reply.status_code)
    try:
        found = wire.from_body(reply.content).reps.dense_vecs
    except BadReplyError:
        return "BadReplyError"
    same = found is not None and np.allclose(found, expected, atol=1e-5)
    return "200" if same else "WRONG VECTORS"


def killed(served: Served, expected: np.ndarray, kills: int) -> Counter[str]:
    """Kill the server while clients ask; each asks until it has its vectors."""
    outcomes: Counter[str] = Counter()
    ended = threading.Event()

    def asking(number: int) -> None:
        with httpx.Client(timeout=60) as client:
            while not ended.is_set():
                at = number % 8
                told = ask(client, served.url, TEXTS[at : at + 8], expected[at : at + 8])
                outcomes[told] += 1
                if told != "200":
                    time.sleep(0.2)

    threads = [threading.Thread(target=asking, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for _ in range(kills):
        time.sleep(2)
        served.end(signal.SIGKILL)
        served.start()
    before = outcomes["200"]
    while outcomes["200"] < before + CLIENTS:
        time.sleep(0.1)
    ended.set()
    for thread in threads:
        thread.join()
    return outcomes


async def connections(port: int, number: int) -> tuple[Counter[int], int]:
    """Open connections that send nothing, then as many that each ask, all at once."""
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(number)]
    beside = await answer(port, ATTACKS[0], KEY)
    found = await asyncio.gather(*(answer(port, ATTACKS[0], KEY, 300) for _ in range(number)))
    for _, writer in idle:
        writer.close()
    return Counter(found), beside


def row(name: str, found: object, *, right: bool) -> bool:
    print(f"{name:34} {'' if right else 'FAULT ':6}{found}", flush=True)
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="m3-small")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=3)
    asked = parser.parse_args()
    expected = Encoder.from_pretrained(asked.model, dtype="float32").encode_documents(TEXTS)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        served = Served(asked.model, asked.port, log)
        served.start()
        try:
            right = attacked(served, asked, expected.dense_vecs)
        finally:
            if served.process is not None:
                served.process.kill()
        text = log.read_text()
        right &= row("texts or keys in the log", MARK in text or KEY in text, right=not (
            MARK in text or KEY in text))  # fmt: skip
        print(f"{len(text.splitlines())} lines of log")
    raise SystemExit(not right)


def attacked(served: Served, asked: argparse.Namespace, expected: np.ndarray) -> bool:
    right = True
    for attack in ATTACKS:
        if attack.name in ("too large, said so", "too large, unsaid"):
            continue  # Their sizes are of the tests' limits.
        status = asyncio.run(answer(asked.port, attack, KEY))
        honest = asyncio.run(answer(asked.port, ATTACKS[0], KEY))
        shown = "closed" if status == NOTHING else status
        right &= row(attack.name, shown, right=status in attack.statuses and honest == 200)
    with httpx.Client(timeout=60) as client:
        for name, size in (("2 MiB, said so", False), ("2 MiB, unsaid", True)):
            body = MARK.encode() * (1 << 19)
            headers = {"Authorization": f"Bearer {KEY}"}
            content = iter([body]) if size else body
            url = f"{served.url}/v1/encode"
            status = client.post(url, content=content, headers=headers).status_code
            right &= row(name, status, right=status == 413)
    found, beside = asyncio.run(connections(asked.port, asked.connections))
    name = f"{asked.connections} connections, idle"
    right &= row(name, beside, right=beside == 200)
    shown = dict(sorted(found.items()))
    name = f"{asked.connections} requests at once"
    right &= row(name, shown, right=set(found) <= {200, 429} and found[200] > 0)
    outcomes = killed(served, expected, asked.kills)
    wrong = outcomes["WRONG VECTORS"] + outcomes["500"]
    right &= row(f"{asked.kills} kills, {CLIENTS} clients", dict(outcomes), right=not wrong)
    served.end(signal.SIGTERM)
    assert served.process is not None
    return right & row("SIGTERM", served.process.returncode, right=served.process.returncode == 0)


if __name__ == "__main__":
    main()
