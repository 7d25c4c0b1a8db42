"""How much a process grows while `encode_stream` goes through very many short texts.

    python benchmarks/stream_memory.py [--texts 200000] [--model FOLDER]

Without a model a tiny random one is written, so that the stream and not the network is measured.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from m3_core import Encoder
from m3_core.testing import tiny_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator


def short_texts(count: int) -> Iterator[str]:
    for number in range(count):
        yield f"panda {number} river city {number * 7919 % 1000003} мир 世界"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--batch-size", type=int, default=1024)
    args = parser.parse_args()
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        encoder = Encoder.from_pretrained(args.model or tiny_checkpoint(folder))
        stream = encoder.encode_stream(
            short_texts(args.texts),
            args.batch_size,
            return_sparse=True,
            return_colbert_vecs=True,
        )
        warm_up = max(args.texts // 20 // args.batch_size, 4)
        start = peak = done = 0
        for number, part in enumerate(stream):
            done += len(part)
            resident = process.memory_info().rss
            peak = max(peak, resident)
            if number == warm_up:
                start = peak = resident
    print(f"{done} texts: {(peak - start) / 2**20:.1f} MiB of growth after {warm_up} batches")


if __name__ == "__main__":
    main()
