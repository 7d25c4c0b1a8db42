"""How long a lone query takes, against sentence-transformers, FlagEmbedding and an older checkout.

    python benchmarks/latency.py --tokenizer FOLDER [--models NAME=FOLDER ...] [--old CHECKOUT]

Dense vectors alone, which all of them give. Every contender is a process of its own that holds a
loaded model and encodes one query when it is told to: they take turns, and only one computes at a
time. Each round asks each of them the same queries; a round's figure is the median over its
queries, and what is printed are medians over rounds of the ratio to the reference of that round,
and the lone times, which say little on shared machines. ``base`` and ``large`` are random networks
of XLM-R's shapes with bge-m3's tokenizer; ``--models`` adds checkpoints. Contenders that are not
installed are left out. ``--old`` is a folder with another version of this repository. On a busy
machine use ``OMP_NUM_THREADS=1`` and ``--cpu-time``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from shapes import sample_texts, write_checkpoint
from tokenizers import Tokenizer

PEERS = {"sentence-transformers": "sentence_transformers", "FlagEmbedding": "FlagEmbedding"}


def loaded(kind: str, folder: str, dtype: str) -> Callable[[str], object]:
    """What a contender calls for one query."""
    if kind == "sentence-transformers":
        import torch
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(
            folder, device="cpu", model_kwargs={"dtype": getattr(torch, dtype)}
        )
        return lambda query: model.encode([query], show_progress_bar=False)
    if kind == "FlagEmbedding":
        from FlagEmbedding import BGEM3FlagModel

        flag = BGEM3FlagModel(folder, devices="cpu", use_fp16=False, use_bf16=dtype == "bfloat16")
        return lambda query: flag.encode([query])
    from m3_core import Encoder

    encoder = Encoder.from_pretrained(folder, device="cpu", dtype=dtype)
    return lambda query: encoder.encode_queries([query])


def work(kind: str, folder: str, dtype: str, clock: str) -> None:
    """Answer each line, a list of queries, with the seconds that each took."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    # What libraries print shall not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    call = loaded(kind, folder, dtype)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        taken = []
        for query in json.loads(line):
            start = now()
            call(query)
            taken.append(now() - start)
        answers.write(f"{json.dumps(taken)}\n")
        answers.flush()


class Contender:
    """A process with a loaded model."""

    def __init__(self, kind: str, folder: Path, dtype: str, core: Path | None, clock: str) -> None:
        environment: dict[str, str] = {**os.environ, "HF_HUB_OFFLINE": "1"}
        if core is not None:
            environment["PYTHONPATH"] = str(core)
        command = [sys.executable, __file__, "--worker", kind, str(folder), dtype, clock]
        self.process = subprocess.Popen(
            command,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if kind in PEERS else None,
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{kind} in {dtype} did not load {folder}")

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def times(self, queries: list[str]) -> list[float]:
        """Seconds of each query."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{json.dumps(queries)}\n")
        self.process.stdin.flush()
        seconds: list[float] = json.loads(self.process.stdout.readline())
        # Threads of a process that has just computed go on spinning for a moment.
        time.sleep(0.05)
        return seconds


def contenders(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for kind, module in PEERS.items():
        if importlib.util.find_spec(module) is not None:
            found |= {
                f"{kind} {dtype}": {"kind": kind, "dtype": dtype, "core": None}
                for dtype in args.peer_dtypes
            }
    for name, root in (("older m3", args.old), ("m3", Path(__file__).resolve().parents[1])):
        if root is not None:
            found |= {
                f"{name} {dtype}": {"kind": "m3", "dtype": dtype, "core": root / "core"}
                for dtype in args.dtypes
                if name == "m3" or dtype != "int8"
            }
    return found


def report(
    name: str, folder: Path, queries: dict[int, list[str]], args: argparse.Namespace
) -> None:
    clock = "cpu" if args.cpu_time else "wall"
    with ExitStack() as stack:
        asked = {
            who: stack.enter_context(Contender(folder=folder, clock=clock, **how))
            for who, how in contenders(args).items()
        }
        for contender in asked.values():
            contender.times([query for texts in queries.values() for query in texts])
        for length, texts in queries.items():
            rounds = [
                {who: statistics.median(one.times(texts)) for who, one in asked.items()}
                for _ in range(args.rounds)
            ]
            print(f"\n{name}, queries of {length} tokens", flush=True)
            reference = args.reference if args.reference in asked else next(iter(asked))
            for who in asked:
                ratio = statistics.median(taken[reference] / taken[who] for taken in rounds)
                median = statistics.median(taken[who] for taken in rounds) * 1e3
                print(f"  {who:34} {ratio:6.2f} x  {median:8.2f} ms", flush=True)


def queries_of(tokenizer: Path, lengths: list[int], count: int) -> dict[int, list[str]]:
    """Queries of about so many tokens, special tokens included."""
    raw = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    found: dict[int, list[str]] = {}
    for length in lengths:
        texts = sample_texts(tokenizer, length - 2, 0.0, 20 * count, length)
        texts.sort(key=lambda text, goal=length: abs(len(raw.encode(text).ids) - goal))
        found[length] = texts[:count]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokenizer", type=Path, help="folder with bge-m3's tokenizer")
    parser.add_argument("--models", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--shapes", nargs="*", default=["base", "large"])
    parser.add_argument("--old", type=Path, help="folder of an older checkout")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "auto", "int8"], help="ours")
    parser.add_argument("--peer-dtypes", nargs="*", default=["float32"], help="the peers'")
    parser.add_argument("--reference", default="sentence-transformers float32")
    parser.add_argument("--lengths", nargs="+", type=int, default=[10, 30, 200])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--queries", type=int, default=8, help="a round")
    parser.add_argument("--keep", type=Path, help="where random checkpoints stay")
    parser.add_argument("--cpu-time", action="store_true", help="of the process, not the clock's")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(*args.worker)
        return
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores", flush=True)
    queries = queries_of(args.tokenizer, args.lengths, args.queries)
    for name, folder in (pair.split("=", 1) for pair in args.models):
        report(name, Path(folder), queries, args)
    with tempfile.TemporaryDirectory() as temporary:
        for shape in args.shapes:
            root = args.keep or Path(temporary)
            report(shape, write_checkpoint(root / shape, shape, args.tokenizer), queries, args)


if __name__ == "__main__":
    main()
