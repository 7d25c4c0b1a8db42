"""What is done to collections, and what came of it: counts by outcome, all but "whole" are bad."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from m3_core import LexicalIndex
from m3_core.collection import DocumentCollection
from m3_core.encoder import CachedEncoder
from m3_core.errors import IndexFileError
from m3_core.testing import FakeEncoder

PARTS = ("dense", "sparse", "colbert")
WORDS = ["panda", "bear", "river", "city", "search", "query", "token", "model", "world", "water"]
ENCODER = FakeEncoder(dimension=8)

Outcomes = Counter[str]


def view() -> CachedEncoder:
    return CachedEncoder(ENCODER, PARTS)


def generation(number: int, size: int = 30) -> DocumentCollection:
    """Documents that say of which generation they are: texts, metadata and ids."""
    made = DocumentCollection(view())
    texts = [f"generation {number} {WORDS[i % 10]} {i}" for i in range(size)]
    made.add(texts, [{"generation": number}] * size, [f"{number}.{i}" for i in range(size)])
    return made


def generation_of(loaded: DocumentCollection, sizes: set[int]) -> str:
    """Whether everything in a collection is of one generation, vectors included."""
    ids = loaded.ids()
    numbers = {one.split(".")[0] for one in ids}
    metadata = {str(found["generation"]) for _, _, found in loaded.get(ids)}
    texts = {text.split()[1] for _, text, _ in loaded.get(ids)}
    if len(ids) not in sizes or not (len(numbers) == 1 and numbers == metadata == texts):
        return "mixed"
    # A document's own text finds it by every representation.
    for weights in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        _, text, _ = loaded.get(ids[:1])[0]
        best = loaded.search(text, 1, weights=weights, exhaustive=True)
        if not best or best[0].text != text:
            return "mixed"
    return "whole"


def loaded(path: Path, sizes: set[int]) -> str:
    """How a saved collection is found."""
    try:
        return generation_of(DocumentCollection.load(path, view()), sizes)
    except IndexFileError:
        return "unreadable"
    except FileNotFoundError:
        return "lost"
    except Exception as error:  # noqa: BLE001 (counted)
        return f"raw {type(error).__name__}"


def two_at_once(folder: Path, rounds: int, writers: int = 2, size: int = 30) -> Outcomes:
    """Threads that save into one path at the same moment."""
    made = [generation(number, size) for number in range(writers)]
    found: Outcomes = Counter()
    for number in range(rounds):
        path, barrier = folder / f"saved{number}", threading.Barrier(writers)

        def save(one: DocumentCollection, path: Path = path, barrier: threading.Barrier = barrier):
            barrier.wait()
            try:
                one.save(path)
            except Exception as error:  # noqa: BLE001 (counted)
                found[f"save raised {type(error).__name__}"] += 1

        threads = [threading.Thread(target=save, args=(one,)) for one in made]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found[loaded(path, {size})] += 1
    return found


def forked(function: Callable[[], object]) -> int:
    """Start a child that does something and ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    return child


def processes_at_once(folder: Path, rounds: int, writers: int = 2, size: int = 30) -> Outcomes:
    """Processes that save into one path at the same moment."""
    made = [generation(number, size) for number in range(writers)]
    found: Outcomes = Counter()
    for number in range(rounds):
        path = folder / f"saved{number}"
        read, write = os.pipe()

        def save(one: DocumentCollection, path: Path = path, read: int = read) -> None:
            os.read(read, 1)
            one.save(path)

        children = [forked(lambda one=one: save(one)) for one in made]
        os.write(write, b"." * writers)
        for child in children:
            if os.waitpid(child, 0)[1]:
                found["save raised"] += 1
        os.close(read)
        os.close(write)
        found[loaded(path, {size})] += 1
    return found


def loading_beside_saving(folder: Path, loads: int, size: int = 30) -> Outcomes:
    """Loads while another thread saves one state after the other."""
    made = [generation(number, size + number) for number in range(2)]
    path, ended = folder / "saved", threading.Event()
    made[0].save(path)

    def save() -> None:
        number = 0
        while not ended.is_set():
            made[number % 2].save(path)
            number += 1

    thread = threading.Thread(target=save)
    thread.start()
    try:
        return Counter(loaded(path, {size, size + 1}) for _ in range(loads))
    finally:
        ended.set()
        thread.join()


def kills(folder: Path, times: int, size: int = 200, seed: int = 0) -> tuple[Outcomes, int, int]:
    """Savers that are killed at any moment; what they left, before and after one more save.

    Returns:
        Outcomes, and how many files too many there were when all had been killed, and after
        one more save.
    """
    made = [generation(number, size + number) for number in range(2)]
    path, chance = folder / "saved", random.Random(seed)
    made[0].save(path)
    usual = len(list(folder.rglob("*")))
    began = time.perf_counter()
    made[1].save(path)
    seconds = time.perf_counter() - began
    found: Outcomes = Counter()

    def save_again_and_again() -> None:
        number = 0
        while True:
            made[number % 2].save(path)
            number += 1

    for _ in range(times):
        child = forked(save_again_and_again)
        time.sleep(0.005 + chance.random() * 4 * seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found[loaded(path, {size, size + 1})] += 1
    left = len(list(folder.rglob("*"))) - usual
    made[0].save(path)
    return found, left, len(list(folder.rglob("*"))) - usual


def small() -> DocumentCollection:
    made = DocumentCollection(view())
    for first in range(0, 12, 4):
        numbers = range(first, first + 4)
        made.add(
            [f"panda {i} {WORDS[i % 10]}" for i in numbers],
            [{"even": i % 2 == 0} for i in numbers],
            [f"d{i}" for i in numbers],
        )
    made.delete(["d5"])
    return made


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    """No file of this process can grow beyond a size, as on a disk that is full."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def full_disk(folder: Path, limits: int, kind: str = "collection") -> Outcomes:
    """Saving in children whose files cannot grow beyond some size."""
    path, found = folder / "saved", Counter[str]()
    if kind == "collection":
        older, newer = generation(0, 30), generation(1, 60)
    else:
        older, newer = LexicalIndex(), LexicalIndex()
        older.add([f"0.{i}" for i in range(300)], [{i: 0.5} for i in range(300)])
        newer.add([f"1.{i}" for i in range(600)], [{i: 0.5} for i in range(600)])
    newer.save(path)
    size = max(one.stat().st_size for one in [path, *path.rglob("*")] if one.is_file())
    older.save(path)
    usual = sorted(folder.rglob("*"))

    def save(limit: int) -> None:
        status = 9
        with limited_files(limit):
            try:
                newer.save(path)
            except OSError:
                status = 7
            except BaseException:  # noqa: BLE001 (counted)
                status = 8
            else:
                status = 6
        os._exit(status)

    names = {6: "saved", 7: "OSError", 8: "another error", 9: "another error"}
    for number in range(limits):
        child = forked(lambda number=number: save(1 + number * size // limits))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found[names.get(status, "died")] += 1
        if kind == "collection":
            found[loaded(path, {30})] += 1
        else:
            found["whole" if len(LexicalIndex.load(path)) == 300 else "another state"] += 1
        if sorted(folder.rglob("*")) != usual and number == limits - 1:
            found["leftover"] += 1
    return found


def ctrl_c_while_waiting() -> str:
    """Ctrl-C in the main thread while another one holds what a change waits for."""
    collection = small()
    stored = collection._stored
    # On the older collection, a reader.
    lock = stored._writing if hasattr(stored, "_writing") else stored.lock.reading()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    main = threading.main_thread().ident
    assert main is not None
    # A shell starts what runs in the background with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()
    try:
        collection.delete(["d1"])
        outcome = "not interrupted"
    except KeyboardInterrupt:
        outcome = "whole"
    finally:
        signal.signal(signal.SIGINT, before)
    release.set()
    holder.join()
    user = threading.Thread(target=lambda: (collection.search("panda", 3), collection.add(["x"])))
    user.daemon = True
    user.start()
    user.join(20)
    return "hung" if user.is_alive() else outcome


def longest_search(seconds: float, deleters: int = 4, size: int = 2000) -> tuple[float, int, int]:
    """How long a search takes at most while threads delete and add.

    Returns:
        Seconds of the longest search, how many searches and how many changes there were.
    """
    collection = generation(0, size)
    # The first search imports what it needs.
    collection.search("panda 3", 5)
    ended, changes = threading.Event(), [0] * deleters

    def delete(number: int) -> None:
        while not ended.is_set():
            collection.delete([f"0.{number}"])
            changes[number] += 1

    threads = [threading.Thread(target=delete, args=(i,)) for i in range(deleters)]
    for thread in threads:
        thread.start()
    longest, searches, end = 0.0, 0, time.perf_counter() + seconds
    try:
        while time.perf_counter() < end:
            began = time.perf_counter()
            collection.search("panda 3", 5)
            longest = max(longest, time.perf_counter() - began)
            searches += 1
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    return longest, searches, sum(changes)
