"""The table of attacks: everything that is done to saved and shared documents, and what came of it.

    python tests/faults/run.py [--times 10]

``--times`` multiplies how often each is done. Every outcome but "whole" and "OSError" is a fault.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults import attacks, every_line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    logging.disable()
    times = arguments.times
    table: dict[str, Callable[[Path], object]] = {
        "2 threads save": lambda at: attacks.two_at_once(at, 20 * times),
        "4 threads save": lambda at: attacks.two_at_once(at, 20 * times, writers=4),
        "2 processes save": lambda at: attacks.processes_at_once(at, 30 * times),
        "4 processes save": lambda at: attacks.processes_at_once(at, 30 * times, writers=4),
        "load beside save": lambda at: attacks.loading_beside_saving(at, 20 * times),
        "kill -9 while saving; left; left after a save": lambda at: attacks.kills(at, 10 * times),
        "full disk, collection": lambda at: attacks.full_disk(at, 20 * times),
        "full disk, lexical index": lambda at: attacks.full_disk(at, 20 * times, "index"),
        "Ctrl-C while waiting to write": lambda at: attacks.ctrl_c_while_waiting(),
        "longest search beside 4 deleters (s, searches, changes)": lambda at: (
            attacks.longest_search(2 * times)
        ),
    }
    for name in every_line.CHANGES:
        table[f"MemoryError at every line of {name}"] = lambda at, name=name: every_line.faults(
            name
        )
        table[f"Ctrl-C at every line of {name}"] = lambda at, name=name: every_line.faults(
            name, KeyboardInterrupt
        )
    for name in every_line.INDEX_CHANGES:
        table[f"MemoryError at every line of an index's {name}"] = lambda at, name=name: (
            every_line.faults_of_index(name)
        )
    table["MemoryError at every line of save"] = every_line.faults_of_saving
    for name, attack in table.items():
        if arguments.only in name:
            with tempfile.TemporaryDirectory() as folder:
                print(f"{name}: {attack(Path(folder))}", flush=True)


if __name__ == "__main__":
    main()
