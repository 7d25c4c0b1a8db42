"""Does a bulk job that is killed half-way end as one that was not, and what does it cost.

    python benchmarks/bulk.py [--texts 20000] [--model m3-small] [--ray] [--actors 2]

Writes a corpus, encodes it without interruption, then again with SIGKILL in the middle and the same
command once more, and compares: the same rows in the same files, vectors within rounding, no file
written twice. With ``--ray``: with Ray on this machine, and compared with the run without it too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from m3_core.bulk import EncodedDataset

WORDS = (
    *("panda", "bear", "river", "city", "search", "query", "token", "model", "world", "water"),
    *("der", "Fluss", "und", "Stadt", "el", "río", "ciudad", "мир", "город", "你好", "世界"),
)


def write_corpus(path: Path, count: int) -> None:
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            words = draw.choices(WORDS, k=draw.randint(4, 24))
            row = {"id": f"d{number}", "text": " ".join(words) + f" {number}", "number": number}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


class Run:
    """A command, in a process group of its own, and the most memory that it took."""

    def __init__(self, arguments: list[str]) -> None:
        self.began = time.perf_counter()
        command = [sys.executable, "-m", "m3_core.cli.main", "encode", *arguments, "--quiet"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.peak = 0

    def until(self, is_time: Callable[[], bool]) -> bool:
        """Wait; whether the time came before the end."""
        own = psutil.Process(self.process.pid)
        while self.process.poll() is None:
            try:
                self.peak = max(self.peak, own.memory_info().rss)
            except psutil.Error:
                break
            if is_time():
                return True
            time.sleep(0.05)
        return False

    def kill(self, *, whole_group: bool) -> None:
        (os.killpg if whole_group else os.kill)(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began


def whole(arguments: list[str]) -> tuple[float, float]:
    """Seconds and MiB of a run that nothing interrupts."""
    run = Run(arguments)
    run.until(lambda: False)
    output, _ = run.process.communicate()
    if run.process.returncode:
        raise SystemExit(f"the command failed: {run.process.returncode} {output!r}")
    return run.seconds, run.peak / 2**20


def killed(arguments: list[str], out: Path, files: int, *, with_ray: bool) -> dict[str, object]:
    run = Run(arguments)
    if not run.until(lambda: len(list(out.glob("part-*"))) >= files // 2):
        raise SystemExit("it ended before it could be killed")
    # Ray's own processes see that the driver is gone and end.
    run.kill(whole_group=not with_ray)
    time.sleep(5 if with_ray else 0)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    seconds, _ = whole(arguments)
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    return {
        "files when killed": f"{len(before)} of {len(after)}",
        "files written twice": sum(after[name] != when for name, when in before.items()),
        "left over": len([one for one in out.iterdir() if one.name.endswith(".tmp")]),
        "seconds to go on": round(seconds, 1),
    }


def compared(one: Path, other: Path) -> dict[str, object]:
    """How far two corpora differ."""
    rows, largest = 0, {"dense": 0.0, "sparse": 0.0, "colbert": 0.0}
    left, right = EncodedDataset.open(one), EncodedDataset.open(other)
    for a, b in zip(left.batches(), right.batches(), strict=True):
        if (a.ids, a.texts, a.metadatas) != (b.ids, b.texts, b.metadatas):
            raise SystemExit(f"rows differ near {a.ids[0]}")
        x, y = a.representations, b.representations
        np.testing.assert_array_equal(x.lexical_weights.token_ids, y.lexical_weights.token_ids)
        pairs = {
            "dense": (x.dense_vecs, y.dense_vecs),
            "sparse": (x.lexical_weights.weights, y.lexical_weights.weights),
            "colbert": (x.colbert_vecs.vectors, y.colbert_vecs.vectors),
        }
        for part, (p, q) in pairs.items():
            differ = np.abs(p.astype(np.float32) - q.astype(np.float32)).max(initial=0)
            largest[part] = max(largest[part], float(differ))
        rows += len(a)
    return {"rows equal": rows, "largest difference": largest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--model", default="m3-small")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--shard-rows", type=int, default=1000)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--actors", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source = root / "corpus.jsonl"
        write_corpus(source, args.texts)
        files = -(-args.texts // args.shard_rows)

        def arguments(out: Path, *, with_ray: bool) -> list[str]:
            asked = [str(source), str(out), "--model", args.model, "--dtype", args.dtype]
            asked += ["--shard-rows", str(args.shard_rows)]
            actors = ["--num-actors", str(args.actors), "--num-cpus", "1"]
            return [*asked, *(["--ray-address", "local", *actors] if with_ray else [])]

        def say(name: str, value: object) -> None:
            print(json.dumps({name: value}, ensure_ascii=False), flush=True)

        seconds, mebibytes = whole(arguments(root / "whole", with_ray=False))
        say("without Ray", {"seconds": round(seconds, 1), "MiB at most": round(mebibytes)})
        out = root / "killed"
        say("killed", killed(arguments(out, with_ray=False), out, files, with_ray=False))
        say("against the whole run", compared(out, root / "whole"))
        if args.ray:
            seconds, _ = whole(arguments(root / "ray", with_ray=True))
            say(f"Ray, {args.actors} actors", {"seconds": round(seconds, 1)})
            say("against the run without Ray", compared(root / "ray", root / "whole"))
            out = root / "ray-killed"
            say("Ray, killed", killed(arguments(out, with_ray=True), out, files, with_ray=True))
            say("against the run without Ray", compared(out, root / "whole"))


if __name__ == "__main__":
    main()
