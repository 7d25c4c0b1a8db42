"""Forked children of busy parents: collections, indexes and what holds locks work in them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.forking import HAS_FORK, in_child

from m3_core import LexicalIndex
from m3_core.collection.collection import DocumentCollection
from m3_core.encoder.cached import CachedEncoder
from m3_core.encoder.protocol import TextEncoder
from m3_core.forks import aside, survive_forks, whole_in_forks
from m3_core.network.transformers_network import load_network
from m3_core.testing import FakeEncoder

pytestmark = pytest.mark.skipif(not HAS_FORK, reason="no fork on this system")
ROOT = Path(__file__).parents[3]
PARTS = ("dense", "sparse", "colbert")


def collection_of(encoder: TextEncoder) -> DocumentCollection:
    return DocumentCollection(CachedEncoder(encoder, PARTS, roles=("query",)))


@contextmanager
def running(*functions) -> Iterator[None]:
    """Call functions again and again in threads."""
    ended = threading.Event()

    def again(function) -> None:
        number = 0
        while not ended.is_set():
            function(number)
            number += 1

    threads = [threading.Thread(target=again, args=(one,)) for one in functions]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_children_of_a_busy_parent_search_and_add(encoder) -> None:
    """With a network: its thread, and torch's own helpers of the thread that forks."""
    documents = collection_of(encoder)
    documents.add([f"panda {i} river" for i in range(50)], ids=[f"d{i}" for i in range(50)])
    # So much that torch computes it with several threads, which the child has not.
    large = torch.ones(600, 600)
    assert float((large @ large)[0, 0]) == 600
    best = [one.id for one in documents.search("panda 7", 5, exhaustive=True)]

    def works() -> bool:
        found = [one.id for one in documents.search("panda 7", 5, exhaustive=True)]
        documents.add(["a bear"], ids=["new"])
        return found == best and len(documents.search("bear", 60, exhaustive=True)) >= 51

    def add(number: int) -> None:
        documents.add([f"world {number}"], ids=[f"w{number % 3}"])
        documents.delete([f"w{number % 3}"])

    with running(add, lambda _: documents.search("panda 7", 5, exhaustive=True)):
        assert [in_child(works) for _ in range(4)] == [0] * 4


def test_children_see_each_change_wholly_or_not_at_all() -> None:
    documents = collection_of(FakeEncoder())
    documents.add(["panda bear", "river city"])

    def add(number: int) -> None:
        documents.add([f"panda {number} {i}" for i in range(20)], ids=[f"{i}" for i in range(20)])
        documents.delete([f"{i}" for i in range(20)])

    def is_whole() -> bool:
        return len(documents.search("panda", 50)) == len(documents) in (2, 22)

    with running(add, add):
        assert [in_child(is_whole) for _ in range(15)] == [0] * 15


def test_locks_that_other_threads_hold_are_free_in_the_child() -> None:
    index, documents = LexicalIndex(), collection_of(FakeEncoder())
    index.add(["a"], [{1: 1.0}])
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with index._writing, documents._stored._writing:
            held.set()
            release.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)

    def works() -> bool:
        index.add(["b"], [{1: 2.0}])
        documents.add(["panda"])
        return [one for one, _ in index.search({1: 1.0}, 2)] == ["b", "a"] and len(documents) == 1

    assert in_child(works) == 0
    release.set()
    thread.join()


def test_a_fork_waits_for_a_change_of_another_thread_alone() -> None:
    begun, release, values = threading.Event(), threading.Event(), [1, 1]

    def change() -> None:
        with whole_in_forks():
            values[0] = 2
            begun.set()
            release.wait(60)
            values[1] = 2

    thread = threading.Thread(target=change)
    thread.start()
    assert begun.wait(60)
    threading.Timer(0.2, release.set).start()
    assert in_child(lambda: values == [2, 2]) == 0
    thread.join()
    with whole_in_forks():
        assert in_child(lambda: values == [2, 2]) == 0


def test_a_fork_waits_for_a_network_that_another_thread_loads(tmp_path: Path) -> None:
    """transformers' loading changes what holds for the whole process, such as the data type."""
    begun, release = threading.Event(), threading.Event()
    checkpoint = SimpleNamespace(folder=tmp_path)
    report = {"missing_keys": [], "mismatched_keys": []}

    def load(*_, dtype: torch.dtype, **__):
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            begun.set()
            assert release.wait(60)
            return torch.nn.Linear(2, 2), report
        finally:
            torch.set_default_dtype(before)

    def network() -> torch.nn.Module:
        options = {"config": None, "attn_implementation": "sdpa"}
        return load_network(load, checkpoint, torch.bfloat16, **options)

    thread = threading.Thread(target=network)
    thread.start()
    assert begun.wait(60)
    threading.Timer(0.2, release.set).start()

    def works() -> bool:
        whole = torch.get_default_dtype() == torch.float32
        return whole and network().weight.shape == (2, 2)

    assert in_child(works) == 0
    thread.join()


def test_what_cannot_repair_itself_keeps_nobody_else_from_it() -> None:
    class Broken:
        def after_fork(self) -> None:
            raise ArithmeticError("broken after the fork")

    class Repaired:
        times = 0

        def after_fork(self) -> None:
            self.times += 1

    things = [kind() for kind in (Repaired, Broken, Repaired) for _ in range(4)]
    for thing in things:
        survive_forks(thing)
    said: list[object] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda what: said.append(what.exc_value)
    try:

        def are_repaired() -> bool:
            return len(said) == 1 and {getattr(one, "times", 1) for one in things} == {1}

        assert in_child(are_repaired) == 0
    finally:
        sys.unraisablehook = hook


def test_errors_come_back_from_beside_a_fork() -> None:
    def fails() -> None:
        raise ArithmeticError("as it was")

    def works() -> bool:
        own = threading.get_ident()
        elsewhere = aside(threading.get_ident)
        with pytest.raises(ArithmeticError, match="as it was"):
            aside(fails)
        return elsewhere != own and aside(lambda: np.ones(2).sum()) == 2

    assert in_child(works) == 0


def test_children_tokenise_where_the_environment_forces_the_tokenizers_threads(tiny_m3) -> None:
    """``TOKENIZERS_PARALLELISM=true`` keeps the library from noticing the fork."""
    script = f"""
import os
from tests.forking import in_child
from m3_core import Encoder

encoder = Encoder.from_pretrained({str(tiny_m3)!r}, device="cpu", dtype="float32")
texts = ["panda bear", "river city", "a third one"] * 20
before = encoder.encode_documents(texts).dense_vecs

def same() -> bool:
    return bool(abs(encoder.encode_documents(texts).dense_vecs - before).max() < 1e-6)

raise SystemExit(in_child(same))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
