"""Who uses one collection beside others, and what must hold whatever is done at the same time."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from m3_core import Encoder
from m3_core.collection import DocumentCollection, Hit
from m3_core.encoder import CachedEncoder
from m3_core.errors import ClosedError
from m3_core.testing import tiny_checkpoint
from m3_core.testing.checkpoints import WORDS

PARTS = ("dense", "sparse", "colbert")
BAD = ("raw", "wrong", "lost", "mixed", "left")

Group = tuple[str, int]
Documents = tuple[list[str], list[dict[str, Any]], list[str]]


def text_of(name: str, generation: int) -> str:
    chance = random.Random(f"{name} {generation}")
    words = chance.choices(WORDS.split(), k=round(400 ** chance.random()))
    return " ".join([*words, f"{name} {generation}"])


def documents_of(group: Group, generation: int) -> Documents:
    names = [f"{group[0]}.{group[1]}.{i}" for i in range(1 + group[1] % 4)]
    data = {"owner": group[0], "group": group[1], "generation": generation}
    return [text_of(name, generation) for name in names], [data | {"id": n} for n in names], names


class Load:
    """The collection, and what is known about it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.checkpoint, self.saved = tiny_checkpoint(folder / "model"), folder / "saved" / "here"
        self.seed, self.ended, self.armed = seed, threading.Event(), False
        self.counts: Counter[str] = Counter()
        self.examples: list[str] = []
        self.beats: dict[str, float] = {}
        self.counting = threading.Lock()
        self.collection = DocumentCollection(self.opened())
        # What is imported at the first use is imported now: an interrupted import in one thread
        # is an ImportError in those that wait for it, which is Python's.
        self.collection.add(["river city"])
        self.collection.search("river city", 1)
        self.collection.delete(self.collection.ids())
        self.collection.save(self.saved)
        self.usual = set(self.saved.parent.iterdir())

    def opened(self) -> CachedEncoder:
        encoder = Encoder.from_pretrained(self.checkpoint, device="cpu", dtype="float32")
        return CachedEncoder(encoder, PARTS)

    def count(self, what: str, detail: str = "") -> None:
        with self.counting:
            self.counts[what] += 1
            if what in BAD and len(self.examples) < 20:
                self.examples.append(f"{what}: {detail}")

    def on_signal(self, number: int, frame: Any) -> None:
        """Interrupt what is to be interrupted, once, and never what looks at the outcome."""
        if self.armed:
            self.armed = False
            signal.default_int_handler(number, frame)

    def attempt(self, name: str, do: Callable[[], Any], *, interrupt: bool = False) -> Any:
        """What a call returns; None where it was interrupted or the encoder was closed."""
        try:
            try:
                self.armed = interrupt or self.armed
                result = do()
            finally:
                if interrupt:
                    self.armed = False
        except KeyboardInterrupt:
            self.count(f"{name}, interrupted" if interrupt else "raw", f"KeyboardInterrupt, {name}")
        except ClosedError:
            self.count(f"{name}, closed")
        except Exception as error:  # noqa: BLE001 (counted)
            self.count("raw", f"{name}: {error!r}")
        else:
            self.count(name)
            return result
        return None

    def check_hits(self, hits: list[Hit], owner: str | None = None) -> None:
        for hit in hits:
            right = text_of(hit.metadata["id"], hit.metadata["generation"])
            if hit.id != hit.metadata["id"] or hit.text != right:
                self.count("wrong", f"{hit.id} has {hit.text[-60:]!r}")
            if owner not in (None, hit.metadata["owner"]):
                self.count("wrong", f"the filter for {owner} lets {hit.id} through")

    def check_whole(self, collection: DocumentCollection) -> None:
        """Every group of some state is there wholly, and of one generation."""
        groups = defaultdict(set)
        for name, text, data in collection.get(collection.ids()):
            groups[data["owner"], data["group"]].add((name, text, data["generation"]))
        for group, found in groups.items():
            generation = next(iter(found))[2]
            texts, _, names = documents_of(group, generation)
            if found != {(n, t, generation) for n, t in zip(names, texts, strict=True)}:
                self.count("mixed", f"{group}: {[(one[0], one[2]) for one in found]}")


class Worker:
    """One thread's doing; its groups are its own."""

    def __init__(self, load: Load, name: str, *, interrupt: bool = False) -> None:
        self.load, self.name, self.interrupt = load, name, interrupt
        self.chance = random.Random(f"{load.seed} {name}")
        self.held: dict[int, int] = {}
        self.generation = 0

    def attempt(self, name: str, do: Callable[[], Any]) -> Any:
        return self.load.attempt(name, do, interrupt=self.interrupt)

    def change(self) -> None:
        """Add, replace or delete one group: it is as asked, or after an error as before."""
        number, collection = self.chance.randrange(6), self.load.collection
        old, self.generation = self.held.get(number), self.generation + 1
        texts, data, names = documents_of((self.name, number), self.generation)
        new = None if old and self.chance.random() < 0.3 else self.generation
        if new is None:
            done = self.attempt("delete", lambda: collection.delete(names))
        else:
            name = "replace" if old else "add"
            done = self.attempt(name, lambda: collection.add(texts, data, names))
        self.check_held(number, [new] if done is not None else [old, new])

    def check_held(self, number: int, allowed: list[int | None]) -> None:
        names = documents_of((self.name, number), 0)[2]
        found = {(one, text, d["generation"]) for one, text, d in self.load.collection.get(names)}
        for generation in allowed:
            whole = {(n, text_of(n, generation), generation) for n in names if generation}
            if found == whole:
                self.held[number] = generation or 0
                return
        what = f"{self.name}.{number}: {sorted((one[0], one[2]) for one in found)}, not {allowed}"
        self.load.count("mixed" if found else "lost", what)

    def search(self) -> None:
        collection, chance, where = self.load.collection, self.chance, None
        query = " ".join(chance.choices(WORDS.split(), k=round(20 ** chance.random())))
        owner = chance.choice([None, "writer 0", "writer 1", "main"])
        if owner and chance.random() < 0.5:
            where = {"owner": owner}
        elif owner:
            # A filter that uses the collection, and changes it.
            def where(data: Any) -> bool:
                if chance.random() < 0.02:
                    collection.search(query, 2, weights=(0, 1, 0))
                    collection.delete(["nobody"])
                return len(collection) >= 0 and data["owner"] == owner

        weights = chance.choice([(1, 0.3, 1), (1, 1, 0), (0, 1, 0), (1, 0, 0)])
        exhaustive = chance.choice([None, True, False])
        hits = self.attempt(
            "filtered search" if owner else "search",
            lambda: collection.search(
                query, 5, where=where, weights=weights, exhaustive=exhaustive
            ),
        )
        self.load.check_hits(hits or [], owner)

    def search_own(self) -> None:
        """A document's own text finds it, with the scores of equal vectors."""
        held, collection = [n for n, generation in self.held.items() if generation], None
        if not held:
            return
        number, collection = self.chance.choice(held), self.load.collection
        texts, _, names = documents_of((self.name, number), self.held[number])
        hits = self.attempt(
            "search for its own",
            lambda: collection.search(texts[0], 1, ids=names[:1], weights=(1, 0, 1)),
        )
        if hits is not None and not (hits and hits[0].score > 0.99):
            self.load.count("wrong", f"{names[0]} is found by its text with {hits}")

    def save(self) -> None:
        self.attempt("save", lambda: self.load.collection.save(self.load.saved))

    def load_saved(self) -> None:
        view = self.load.collection.encodings
        found = self.attempt("load", lambda: DocumentCollection.load(self.load.saved, view))
        if found is not None:
            self.load.check_whole(found)
            hits = self.attempt("search what was loaded", lambda: found.search("river city", 5))
            self.load.check_hits(hits or [])

    def step(self) -> None:
        """Do one thing at random."""
        kinds = [self.change, self.search, self.search_own, self.save, self.load_saved]
        self.chance.choices(kinds, [8, 6, 3, 1, 1])[0]()
        self.load.beats[self.name] = time.monotonic()

    def __call__(self) -> None:
        while not self.load.ended.is_set():
            self.step()


class Waiters(Worker):
    """Asynchronous searches and additions, many at once, cancelled at random."""

    def __call__(self) -> None:
        asyncio.run(self.run())

    async def run(self) -> None:
        while not self.load.ended.is_set():
            await asyncio.gather(*(self.one(i) for i in range(6)))
            # What was cancelled may still be done: all groups together are looked at.
            self.load.check_whole(self.load.collection)
            self.load.beats[self.name] = time.monotonic()

    async def one(self, number: int) -> None:
        collection = self.load.collection
        if number < 2:
            self.generation += 1
            name, made = "aadd", documents_of((self.name, number), self.generation)
            task = asyncio.create_task(collection.aadd(*made))
        else:
            name, query = "asearch", " ".join(self.chance.choices(WORDS.split(), k=5))
            task = asyncio.create_task(collection.asearch(query, 5))
        if self.chance.random() < 0.5:
            asyncio.get_running_loop().call_later(self.chance.random() * 0.03, task.cancel)
        try:
            found = await task
        except asyncio.CancelledError:
            self.load.count(f"{name}, cancelled")
        except ClosedError:
            self.load.count(f"{name}, closed")
        except Exception as error:  # noqa: BLE001 (counted)
            self.load.count("raw", f"{name}: {error!r}")
        else:
            self.load.count(name)
            self.load.check_hits(found if name == "asearch" else [])
