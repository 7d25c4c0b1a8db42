"""Everything at once on one collection: changes, searches, files, Ctrl-C, cancellation, close.

    python tests/faults/mixed_load.py [--minutes 10] [--seed 0]

Documents come and go in groups of up to four. A group belongs to one thread, and all of it is of
one generation, which with the id gives the text: so every reader can tell what is whole. The
table names what was done, and what was found that must not be: "lost", "wrong" (a text, a vector
or a filter), "mixed" (half a group, or two generations), "raw" errors, "left" files. Any of them,
and a hang, end it with 1.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults.mixed_workers import BAD, Load, Waiters, Worker

from m3_core.collection import DocumentCollection

# Seconds without any progress of a thread after which it counts as hung.
PATIENCE = 120


def resident() -> float:
    """Resident memory in MiB; the largest so far where the system does not say it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def close_now_and_then(load: Load, seconds: float) -> None:
    """Put a new encoder in the place of one that is then closed under its users."""
    while not load.ended.wait(seconds):
        old = load.collection.encodings
        load.collection = load.collection.over(load.opened())
        old.close()
        load.count("close")


def interrupt_now_and_then(load: Load, chance: random.Random) -> None:
    main = threading.main_thread().ident
    while not load.ended.wait(0.08 * chance.random() ** 2):
        if load.armed:
            signal.pthread_kill(main, signal.SIGINT)


def run(folder: Path, seconds: float, seed: int) -> tuple[Load, list[tuple[float, float]]]:
    load = Load(folder, seed)
    threading.excepthook = lambda raised: load.count("raw", f"in a thread: {raised.exc_value!r}")
    sys.unraisablehook = lambda raised: load.count(
        "Ctrl-C in a finaliser" if isinstance(raised.exc_value, KeyboardInterrupt) else "raw",
        f"in a finaliser: {raised.exc_value!r}",
    )
    # A shell starts what runs in the background with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, load.on_signal)
    main, chance = Worker(load, "main", interrupt=True), random.Random(seed)
    others = [*(Worker(load, f"writer {i}") for i in range(2)), Waiters(load, "waiters")]
    doing: list[Callable[[], None]] = [
        *others,
        lambda: close_now_and_then(load, min(5, seconds / 5)),
        lambda: interrupt_now_and_then(load, chance),
    ]
    threads = [threading.Thread(target=one, daemon=True) for one in doing]
    began, samples = time.monotonic(), []
    load.beats = {one.name: began for one in others}
    for thread in threads:
        thread.start()
    try:
        while (now := time.monotonic()) < began + seconds:
            if now - min(load.beats.values()) < PATIENCE:
                faulthandler.dump_traceback_later(PATIENCE, exit=True)
            if now - began >= len(samples) * min(10, seconds / 8):
                samples.append(((now - began) / 60, resident()))
            main.step()
        load.ended.set()
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        for thread in threads:
            thread.join()
    finally:
        load.ended.set()
        signal.signal(signal.SIGINT, before)
    main.save()
    load.check_whole(DocumentCollection.load(load.saved, load.collection.encodings))
    load.check_whole(load.collection)
    for worker in (main, *others[:2]):
        for number, generation in worker.held.items():
            worker.check_held(number, [generation or None])
    for path in set(load.saved.parent.iterdir()) - load.usual:
        load.count("left", path.name)
    faulthandler.cancel_dump_traceback_later()
    return load, samples


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        load, samples = run(Path(folder), asked.minutes * 60, asked.seed)
    for name in sorted(load.counts.keys() - set(BAD)):
        print(f"{name}: {load.counts[name]}")
    for name in BAD:
        print(f"{name.upper()}: {load.counts[name]}")
    print(*load.examples, sep="\n")
    later = np.array(samples[len(samples) // 2 :])
    slope = np.polyfit(*later.T, 1)[0]
    shown = ", ".join(f"{mib:.0f}" for _, mib in samples[:: max(1, len(samples) // 12)])
    print(f"resident memory: {shown} MiB; second half: {slope:+.2f} MiB a minute")
    return int(any(load.counts[name] for name in BAD))


if __name__ == "__main__":
    sys.exit(main())
