"""What m3-small costs beside the same network with the whole vocabulary.

    python benchmarks/embedded.py --whole FOLDER [--xquad FOLDER] [--rounds 3] [--cpu-time]

``FOLDER`` is multilingual-e5-small in M3's layout with bge-m3's 250,002 pieces. Each round starts
both in processes of their own, in turn: loading up to the first query, the process's largest
resident memory after loading and at the end, a query with all three representations (median of
30) and so many paragraphs: XQuAD's where its folder is given, made ones otherwise. Printed are
medians over the rounds, and of the ratio of each round. On a busy machine use ``--cpu-time`` and
``OMP_NUM_THREADS=1``; imports are left out of all figures.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

QUERIES = [f"Which team won game number {number} of the season?" for number in range(30)]


def paragraphs(xquad: Path | None, count: int) -> list[str]:
    """So many texts, none like another."""
    if xquad is None:
        subjects = ("panda", "river", "city", "library", "engine", "forest", "treaty")
        sentence = "The {} number {} was first described in a report of the year {}. "
        return [
            "".join(sentence.format(subjects[(i + j) % 7], i * 7 + j, 1500 + i) for j in range(7))
            for i in range(count)
        ]
    found = [
        paragraph["context"]
        for file in sorted(xquad.glob("xquad.*.json"))
        for article in json.loads(file.read_text("utf-8"))["data"]
        for paragraph in article["paragraphs"]
    ]
    return found[:: max(len(found) // count, 1)][:count]


def resident() -> float:
    """The largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def work(model: str, xquad: Path | None, count: int, *, cpu_time: bool) -> dict[str, float]:
    """Load, ask, encode."""
    from m3_core import Encoder

    clock = time.process_time if cpu_time else time.perf_counter
    every = {"return_sparse": True, "return_colbert_vecs": True}
    before = resident()
    started = clock()
    encoder = Encoder.from_pretrained(model, device="cpu", dtype="float32")
    encoder.encode_queries(["first"], **every)
    figures = {"loading, s": clock() - started, "memory, loaded, MB": resident() - before}
    times = []
    for query in QUERIES:
        started = clock()
        encoder.encode_queries([query], **every)
        times.append(clock() - started)
    figures["a query, ms"] = 1000 * statistics.median(times)
    texts = paragraphs(xquad, count)
    started = clock()
    for _ in encoder.encode_stream(texts, 64, **every):
        pass
    figures[f"{len(texts)} paragraphs, s"] = clock() - started
    figures["memory, at most, MB"] = resident() - before
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--whole", required=True)
    parser.add_argument("--xquad", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--paragraphs", type=int, default=1000)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        print(json.dumps(work(args.work, args.xquad, args.paragraphs, cpu_time=args.cpu_time)))
        return
    found: dict[str, list[dict[str, float]]] = {"m3-small": [], args.whole: []}
    for _ in range(args.rounds):
        for model, rounds in found.items():
            command = [sys.executable, *sys.argv, "--work", model]
            shown = subprocess.run(command, check=True, capture_output=True, env=os.environ)
            rounds.append(json.loads(shown.stdout.splitlines()[-1]))
    small, whole = found.values()
    print(f"{'':24} {'m3-small':>10} {'whole':>10} {'ratio':>8}")
    for name in small[0]:
        ours, theirs = ([one[name] for one in rounds] for rounds in (small, whole))
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        print(
            f"{name:24} {statistics.median(ours):10.3f} {statistics.median(theirs):10.3f}"
            f" {ratio:8.2f}"
        )


if __name__ == "__main__":
    main()
