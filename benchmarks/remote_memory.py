"""How much memory do the processes of an ingestion pipeline take: with a model each, or one server.

LlamaIndex's ``IngestionPipeline.run(num_workers=...)`` starts processes, and pickles its steps into
them. With ``model_name=`` each of them loads the model; with ``base_url=`` they ask a server.
Memory is the peak of each process' own resident set (``VmHWM`` of Linux), summed over the workers,
with the server's beside it.

Run: ``python benchmarks/remote_memory.py --model m3-small --workers 2``
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PIPELINE = """
import json, sys
from llama_index.core import Document
from llama_index.core.ingestion import IngestionPipeline
from llamaindex_m3 import M3Embedding

# In the workers too, which import this file: what each has taken in the end.
import atexit, multiprocessing, os
from multiprocessing.util import Finalize

def note():
    status = open("/proc/self/status").read()
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    with open(sys.argv[4], "a") as file:
        print(json.dumps([multiprocessing.current_process().name, int(peak), "torch" in sys.modules]), file=file)

Finalize(None, note, exitpriority=1)

if __name__ == "__main__":
    options, count, workers = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    documents = [Document(text=f"Bears number {i} eat fish and {i % 17} berries.") for i in range(count)]
    pipeline = IngestionPipeline(transformations=[M3Embedding(**options)], disable_cache=True)
    nodes = pipeline.run(documents=documents, num_workers=workers)
    assert len(nodes) == count and all(node.embedding for node in nodes)
"""


def peak_of(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def run(options: dict[str, Any], args: argparse.Namespace, folder: Path) -> list[list[Any]]:
    script, notes = folder / "pipeline.py", folder / "notes"
    script.write_text(PIPELINE)
    notes.write_text("")
    asked = [json.dumps(options), str(args.documents), str(args.workers), str(notes)]
    subprocess.run([sys.executable, str(script), *asked], check=True)
    return [json.loads(line) for line in notes.read_text().splitlines()]


def report(name: str, processes: list[list[Any]], server: int) -> None:
    for process, peak, torch in processes:
        print(f"{name:10} {process:20} {peak >> 10:6} MiB{'  (with torch)' if torch else ''}")
    if server:
        print(f"{name:10} {'the server':20} {server >> 10:6} MiB")
    total = sum(peak for _, peak, _ in processes) + server
    print(f"{name:10} {'together':20} {total >> 10:6} MiB")


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="m3-small")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--documents", type=int, default=64)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        report("model_name", run({"model_name": args.model}, args, folder), 0)
        command = [sys.executable, "-m", "m3_core.cli.main", "serve", args.model, "--port", "8765"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
            try:
                wait_for("http://127.0.0.1:8765/health")
                found = run({"base_url": "http://127.0.0.1:8765"}, args, folder)
                report("base_url", found, peak_of(server.pid))
            finally:
                server.terminate()


def wait_for(url: str) -> None:
    import httpx

    for _ in range(600):
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server did not come up")


if __name__ == "__main__":
    main()
