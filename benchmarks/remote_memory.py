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

import psutil

PIPELINE = """
import json
import sys

from llama_index.core import Document
from llama_index.core.ingestion import IngestionPipeline
from llamaindex_m3 import M3Embedding

if __name__ == "__main__":
    options, count, workers = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    documents = [Document(text=f"Bears number {i} eat fish and berries.") for i in range(count)]
    pipeline = IngestionPipeline(transformations=[M3Embedding(**options)], disable_cache=True)
    nodes = pipeline.run(documents=documents, num_workers=workers)
    assert len(nodes) == count and all(node.embedding for node in nodes)
"""


def peak_of(pid: int) -> int:
    """Its peak in KiB; 0 of one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def run(options: dict[str, Any], args: argparse.Namespace, folder: Path) -> list[int]:
    """Run the pipeline; the peaks of its processes, that of the first one first."""
    script = folder / "pipeline.py"
    script.write_text(PIPELINE)
    asked = [json.dumps(options), str(args.documents), str(args.workers)]
    peaks: dict[int, int] = {}
    with subprocess.Popen([sys.executable, str(script), *asked]) as process:
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            for one in [parent, *parent.children(recursive=True)]:
                peaks[one.pid] = max(peaks.get(one.pid, 0), peak_of(one.pid))
            time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"the pipeline failed with {options}")
    # Beside the workers there is a small process that tracks their resources.
    return sorted(peaks.values(), reverse=True)[: args.workers + 1]


def report(name: str, processes: list[int], server: int) -> None:
    shown = " + ".join(str(peak >> 10) for peak in processes)
    if server:
        shown += f" + {server >> 10} of the server"
    print(f"{name:10} {shown} = {(sum(processes) + server) >> 10} MiB")


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
