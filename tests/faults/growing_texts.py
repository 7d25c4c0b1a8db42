"""Time and memory of tokenising texts that grow when they are normalised.

python tests/faults/growing_texts.py [folder with tokenizer.json] --megabytes 10
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from pathlib import Path

from m3_core.network import Tokenizer
from m3_core.network.checkpoint import PACKAGED

# An Arabic ligature of 18 letters, a Latin one of 3, a Japanese square of 4, and plain letters.
CHARACTERS = {"U+FDFA": "\ufdfa", "U+FB03": "\ufb03", "U+3300": "\u3300", "x": "x", "字": "字"}


def measure(folder: Path, character: str, size: int, limit: int) -> tuple[float, float, int]:
    """Seconds, growth of peak memory in MiB, and tokens, in a process of its own."""
    tokenizer = Tokenizer.from_folder(folder)
    tokenizer.encode(["warm"], limit)
    text = character * (size // len(character.encode()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    batch = tokenizer.encode([text], limit)
    taken = time.perf_counter() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return taken, grown / 1024, int(batch.lengths[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=PACKAGED["m3-small"])
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--limit", type=int, default=8192)
    asked = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    for name, character in CHARACTERS.items():
        size = int(asked.megabytes * 1e6)
        with spawn.Pool(1) as pool:
            found = pool.apply(measure, (asked.folder, character, size, asked.limit))
        print("{}: {:.2f} s, {:.0f} MiB, {} tokens".format(name, *found), flush=True)


if __name__ == "__main__":
    main()
