"""This commit against another checkout: two processes on the same checkpoint that take turns.

    git worktree add /tmp/other COMMIT
    python benchmarks/against_commit.py --other /tmp/other --tokenizer FOLDER [--dtype bfloat16]

One process a checkout, each with its models loaded, asked one after the other for the same job, the
order turned round every round; given is the median of the rounds' ratios, above one where this
commit is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from shapes import ROOT, sample_texts, write_checkpoint

ROOMS = ("core", "langchain_m3", "llamaindex_m3")


def serve(encoder_folder: str, reranker_folder: str, texts_file: str, dtype: str) -> None:
    """Load both models, then do the jobs named on standard input and say how long each took."""
    from m3_core import Encoder, Reranker

    options = {"device": "cpu", "dtype": dtype, "max_length": 512}
    encoder = Encoder.from_pretrained(encoder_folder, **options)
    reranker = Reranker.from_pretrained(reranker_folder, **options)
    texts = json.loads(Path(texts_file).read_text())
    parts = {"return_sparse": True, "return_colbert_vecs": True}
    paragraphs = texts["paragraphs"]
    pairs = [(texts["question"][0], text) for text in paragraphs[:48]]
    jobs: dict[str, Callable[[], object]] = {
        "paragraphs": lambda: encoder.encode_documents(paragraphs, **parts),
        "paragraphs, dense": lambda: encoder.encode_documents(paragraphs),
        "mix": lambda: encoder.encode_documents(texts["mix"], **parts),
        "one query x 40": lambda: [encoder.encode_queries(texts["question"]) for _ in range(40)],
        "compute_score": lambda: encoder.compute_score(pairs),
        "rerank": lambda: reranker.compute_score(pairs),
    }
    for line in sys.stdin:
        start = time.perf_counter()
        jobs[line.strip()]()
        sys.stdout.write(f"{time.perf_counter() - start}\n")
        sys.stdout.flush()


class Checkout:
    """A process that runs the code of one checkout."""

    def __init__(self, root: Path, arguments: list[str]) -> None:
        path = os.pathsep.join(str(root / room) for room in ROOMS)
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", *arguments],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, job: str) -> float:
        """How long it takes for a job."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{job}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--other", type=Path, required=True, help="another checkout")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--shape", choices=["base", "large"], default="base")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        from rerank import write_reranker

        encoder = write_checkpoint(Path(made, "encoder"), args.shape, args.tokenizer)
        reranker = write_reranker(Path(made, "reranker"), args.shape, args.tokenizer, None)
        texts = {
            "paragraphs": sample_texts(args.tokenizer, 91, 0.5, 64, 1),
            "mix": sample_texts(args.tokenizer, 120, 0.5, 24, 2)
            + sample_texts(args.tokenizer, 12, 0.4, 100, 3),
            "question": sample_texts(args.tokenizer, 12, 0.1, 1, 4),
        }
        file = Path(made, "texts.json")
        file.write_text(json.dumps(texts))
        arguments = [str(encoder), str(reranker), str(file), args.dtype]
        checkouts = [Checkout(args.other, arguments), Checkout(ROOT, arguments)]
        jobs = [
            "paragraphs",
            "paragraphs, dense",
            "mix",
            "one query x 40",
            "compute_score",
            "rerank",
        ]
        for job in jobs:
            for one in checkouts:
                one.seconds(job)
            ratios = []
            for number in range(args.rounds):
                order = checkouts if number % 2 else checkouts[::-1]
                taken = {id(one): one.seconds(job) for one in order}
                ratios.append(taken[id(checkouts[0])] / taken[id(checkouts[1])])
            spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
            print(f"{job:20} {statistics.median(ratios):.3f} x  ({spread})", flush=True)
        for one in checkouts:
            one.close()


if __name__ == "__main__":
    main()
