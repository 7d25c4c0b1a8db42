"""Savings of an ``M3Index`` that are killed, done twice at once, or meet a full disk.

    python tests/faults/killed_indices.py --kills 60

Every node, document and the index itself hold the number of their save. Whatever happens, the
folder must load as one save: the last that was ended, or a later one. Ends with 1 otherwise.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import mmap
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from llama_index.core import StorageContext
from llama_index.core.schema import TextNode

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults.killing import kill_at, moments, seconds_of

from llamaindex_m3 import M3Index
from m3_core.testing import FakeEncoder

ENCODER = FakeEncoder(dimension=32)


def made(number: int, nodes: int, *, equal_ids: bool) -> M3Index:
    """An index of which everything holds a number."""
    name = "" if equal_ids else f"{number}-"
    listed = [
        TextNode(
            id_=f"{name}{i}",
            text=f"panda {number} river {i} " + "bear " * (i % 7),
            metadata={"save": number},
        )
        for i in range(nodes)
    ]
    storage = StorageContext.from_defaults()
    storage.docstore.add_documents(listed)
    index = M3Index(listed, storage_context=storage, encoder=ENCODER)
    index.set_index_id("index" if equal_ids else f"index-{number}")
    index.summary = str(number)
    return index


def numbers(folder: Path) -> set[int]:
    """The numbers of the saves that what loads from a folder is of."""
    index = M3Index.from_persist_dir(folder, encoder=ENCODER)
    held = index.vector_store.get_nodes()
    kept = list(index.docstore.docs.values())
    found = {node.metadata["save"] for node in (*held, *kept)}
    found |= {
        one.node.metadata["save"]
        for one in index.as_retriever(similarity_top_k=3).retrieve("panda river")
    }
    if {node.node_id for node in held} != {node.node_id for node in kept}:
        found.add(-1)
    return found


class Attack:
    """A folder into which two indices are saved in turn."""

    def __init__(self, place: Path, nodes: int, *, equal_ids: bool) -> None:
        self.folder = place / "saved"
        self.ended = mmap.mmap(-1, 8)
        # Sizes differ, so that what is left of one is seen in the other.
        self.indices = [
            made(number, nodes + 7 * number, equal_ids=equal_ids) for number in range(2)
        ]
        self.results: collections.Counter[str] = collections.Counter()

    def save(self, turn: int) -> None:
        self.indices[turn % 2].storage_context.persist(self.folder)
        self.ended[:] = struct.pack("<q", turn)

    def check(self, allowed: set[int] | None = None) -> None:
        try:
            found = numbers(self.folder)
        except Exception as error:  # noqa: BLE001
            self.results[f"LOST {type(error).__name__}"] += 1
            return
        if len(found) != 1:
            self.results["MIXED"] += 1
        elif allowed is not None and not found <= allowed:
            self.results["LOST the last"] += 1
        else:
            self.results["whole"] += 1

    def kills(self, number: int, seed: int) -> None:
        turn = seconds_of(self.save, 4)
        for moment in moments(number, turn, seed):
            self.save(0)
            kill_at(lambda n: self.save(n + 1), moment)
            (last,) = struct.unpack("<q", self.ended[:])
            # The last one that was ended, or the one that was under way.
            self.check({last % 2, (last + 1) % 2})

    def writers(self, number: int, times: int) -> None:
        """Several processes save while this one loads."""
        self.save(0)
        children = []
        for _ in range(number):
            child = os.fork()
            if not child:
                status = 1
                with contextlib.suppress(Exception):
                    for turn in range(times):
                        self.save(turn)
                    status = 0
                os._exit(status)
            children.append(child)
        while children:
            self.check()
            for child in list(children):
                pid, status = os.waitpid(child, os.WNOHANG)
                if pid:
                    children.remove(child)
                    self.results["FAILED writers"] += bool(status)
        self.check()

    def threads(self, number: int, times: int) -> None:
        """Several threads save at once, each ended by an error or not."""
        failed: list[BaseException] = []
        # LlamaIndex's own stores look for the folder before they make it, which two may do at once.
        self.folder.mkdir(exist_ok=True)

        def save() -> None:
            try:
                for turn in range(times):
                    self.save(turn)
            except BaseException as error:  # noqa: BLE001
                failed.append(error)

        running = [threading.Thread(target=save) for _ in range(number)]
        for one in running:
            one.start()
        for one in running:
            one.join()
        for error in failed:
            self.results[f"FAILED threads {error!r}"] += 1
        self.check()

    def full_disk(self, number: int, seed: int) -> None:
        """Files may not grow beyond a random size."""
        rng = random.Random(seed)
        self.save(0)
        largest = max(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        for _ in range(number):
            self.save(0)
            limit = rng.randrange(largest)
            child = os.fork()
            if not child:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                status = 3
                try:
                    self.indices[1].storage_context.persist(self.folder)
                    status = 0
                except OSError:
                    status = 1
                finally:
                    os._exit(status)
            _, status = os.waitpid(child, 0)
            self.results["OTHER ERRORS"] += os.waitstatus_to_exitcode(status) not in (0, 1)
            self.check({0} if status else {1})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--nodes", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    bad = 0

    def run(name: str, do: Callable[[Attack], object], *, equal_ids: bool) -> None:
        nonlocal bad
        with tempfile.TemporaryDirectory() as place:
            attack = Attack(Path(place), asked.nodes, equal_ids=equal_ids)
            do(attack)
            left = [p.name for p in Path(place).rglob("*") if p.name.startswith(".")]
            attack.save(0)
            hidden = [p.name for p in Path(place).rglob("*") if p.name.startswith(".")]
        found = {key: value for key, value in attack.results.items() if value}
        print(f"{name}, {'equal' if equal_ids else 'other'} ids: {found}", end="; ")
        print(f"hidden files: {len(left)}, after another save {len(hidden)}", flush=True)
        bad += len(hidden) + sum(v for key, v in found.items() if key != "whole")

    few = max(asked.kills // 4, 2)
    for equal_ids in (True, False):
        run("kills", lambda a: a.kills(asked.kills, asked.seed), equal_ids=equal_ids)
        run("two writers", lambda a: a.writers(2, few), equal_ids=equal_ids)
        run("four writers", lambda a: a.writers(4, few), equal_ids=equal_ids)
        run("four threads", lambda a: a.threads(4, few), equal_ids=equal_ids)
        run("full disk", lambda a: a.full_disk(few, asked.seed), equal_ids=equal_ids)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
