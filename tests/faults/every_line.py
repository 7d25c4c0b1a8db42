"""Errors at every line of what changes and saves documents: counts by outcome, as of attacks."""

from __future__ import annotations

import copy
import json
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.faults.attacks import Outcomes, generation, loaded, small
from tests.faults.injection import Injector

from m3_core import LexicalIndex
from m3_core.collection import DocumentCollection


def state(collection: DocumentCollection) -> str:
    """Everything that can be seen of a collection."""
    documents = sorted(collection.get(collection.ids()))
    searches = [
        sorted(
            (one.id, round(one.score, 4), {k: round(v, 4) for k, v in one.scores.items()})
            for one in collection.search("panda 3 river", 100, exhaustive=exhaustive, **options)
        )
        for exhaustive in (True, False)
        for options in ({}, {"where": {"even": True}}, {"ids": ["d1", "d2", "new", "d3"]})
    ]
    return json.dumps([len(collection), collection.ids(), documents, searches], sort_keys=True)


CHANGES: dict[str, Callable[[DocumentCollection], object]] = {
    "add": lambda one: one.add(["river panda", "a new city"], [{"even": True}, {}], ["new", "n2"]),
    "replace": lambda one: one.add(["river 3", "city"], [{"even": True}, {}], ["d1", "d6"]),
    "delete": lambda one: one.delete(["d2", "d3", "no such id"]),
    "delete most": lambda one: one.delete([f"d{i}" for i in range(10)]),
}


def index_state(index: LexicalIndex) -> str:
    """Everything that can be seen of a lexical index."""
    weights = {one: index.get(one) for one in index.ids}
    found = [
        index.search({1: 0.5, 2: 1.0, 9: 0.25}, 9, **options)
        for options in ({}, {"fill": True}, {"allowed": ["b", "c", "new"]})
    ]
    return json.dumps([len(index), index.ids, weights, found, index.score_all({1: 1}).tolist()])


def small_index() -> LexicalIndex:
    made = LexicalIndex()
    made.add(["a", "b", "c"], [{1: 0.5, 2: 0.25}, {2: 1.0}, {9: 0.5}])
    made.add(["d", "e"], [{1: 1.0}, {}])
    made.delete(["d"])
    return made


INDEX_CHANGES: dict[str, Callable[[LexicalIndex], object]] = {
    "add": lambda one: one.add(["new", "n2"], [{1: 2.0}, {7: 0.5}]),
    "replace": lambda one: one.add(["b", "e"], [{1: 2.0}, {2: 0.5}]),
    "delete": lambda one: one.delete(["a", "c", "no such id"]),
}


def faults_of_index(
    name: str, error: type[BaseException] = MemoryError, first: int = 1, every: int = 1
) -> Outcomes:
    """Do ``faults`` to a lexical index."""
    before, change = small_index(), INDEX_CHANGES[name]
    after = copy.deepcopy(before)
    lines = Injector(lambda: change(after)).lines
    whole = {index_state(before), index_state(after)}
    found: Outcomes = Counter()
    for at in range(first, lines + 1, every):
        one = copy.deepcopy(before)
        with suppress(error):
            Injector(lambda one=one: change(one), at, error)
        try:
            found["whole" if index_state(one) in whole else "another state"] += 1
        except Exception as other:  # noqa: BLE001 (counted)
            found[f"broken: {type(other).__name__}"] += 1
    return found


def faults(
    name: str, error: type[BaseException] = MemoryError, first: int = 1, every: int = 1
) -> Outcomes:
    """An error at every line of a change: the older or the newer state, and it can be changed."""
    before, change = small(), CHANGES[name]
    after = copy.deepcopy(before)
    lines = Injector(lambda: change(after)).lines
    whole = {state(before), state(after)}
    found: Outcomes = Counter()
    for at in range(first, lines + 1, every):
        one = copy.deepcopy(before)
        try:
            Injector(lambda one=one: change(one), at, error)
        except error:
            pass
        except Exception as other:  # noqa: BLE001 (counted)
            found[f"became {type(other).__name__}"] += 1
        found[_outcome(one, whole)] += 1
    return found


def _outcome(one: DocumentCollection, whole: set[str]) -> str:
    seen: list[str] = []

    def look() -> None:
        try:
            seen.append("whole" if state(one) in whole else "another state")
            one.add(["afterwards"], ids=["afterwards"])
            one.delete(["afterwards"])
            if state(one) not in whole:
                seen[0] = "another state afterwards"
        except Exception as error:  # noqa: BLE001 (counted)
            seen[:] = [f"broken: {type(error).__name__}"]

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(60)
    return seen[0] if not thread.is_alive() else "hung"


def faults_of_saving(folder: Path, error: type[BaseException] = MemoryError) -> Outcomes:
    """An error at every line of a save: the older or the newer state, and no leftovers."""
    path, older, newer = folder / "saved", generation(0, 5), generation(1, 6)
    older.save(path)
    usual = len(list(folder.rglob("*")))
    lines = Injector(lambda: newer.save(folder / "other")).lines
    (folder / "other").unlink()
    found: Outcomes = Counter()
    for at in range(1, lines + 1):
        with suppress(error):
            Injector(lambda: newer.save(path), at, error)
        found[loaded(path, {5, 6})] += 1
    older.save(path)
    found["leftover"] += len(list(folder.rglob("*"))) - usual
    return +found
