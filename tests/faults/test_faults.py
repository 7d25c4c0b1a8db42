"""The short form of each attack; ``run.py`` does them as often as one likes."""

from __future__ import annotations

import logging
import threading

import pytest
from tests.faults import attacks, every_line
from tests.forking import HAS_FORK

from m3_core import LexicalIndex
from m3_core.collection import DocumentCollection

needs_fork = pytest.mark.skipif(not HAS_FORK, reason="no fork on this system")


def only_whole(found) -> bool:
    return set(found) == {"whole"}


@pytest.mark.parametrize("writers", [2, 4])
def test_threads_that_save_into_one_path(tmp_path, writers) -> None:
    assert only_whole(attacks.two_at_once(tmp_path, 8, writers))


@needs_fork
@pytest.mark.parametrize("writers", [2, 4])
def test_processes_that_save_into_one_path(tmp_path, writers) -> None:
    assert only_whole(attacks.processes_at_once(tmp_path, 6, writers))


def test_loading_beside_saving(tmp_path) -> None:
    assert only_whole(attacks.loading_beside_saving(tmp_path, 10))


@needs_fork
def test_killed_savers_leave_a_whole_state_and_the_next_one_nothing(tmp_path) -> None:
    found, _, left = attacks.kills(tmp_path, 8)
    assert only_whole(found)
    assert left == 0


@pytest.mark.parametrize("name", every_line.CHANGES)
@pytest.mark.parametrize(("error", "first"), [(MemoryError, 1), (KeyboardInterrupt, 4)])
def test_an_error_at_any_line_of_a_change(name, error, first, caplog) -> None:
    caplog.set_level(logging.CRITICAL)
    found = every_line.faults(name, error, first, every=6)
    assert only_whole(found)
    assert found["whole"] > 20


@pytest.mark.parametrize("name", every_line.INDEX_CHANGES)
def test_an_error_at_any_line_of_a_change_of_an_index(name) -> None:
    found = every_line.faults_of_index(name, every=3)
    assert only_whole(found)
    assert found["whole"] > 15


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_an_error_at_any_line_of_a_save(tmp_path, error) -> None:
    found = every_line.faults_of_saving(tmp_path, error)
    assert only_whole(found)
    assert found["whole"] > 50


@needs_fork
@pytest.mark.parametrize("kind", ["collection", "index"])
def test_a_full_disk_is_an_oserror_and_the_older_state_stays(tmp_path, kind) -> None:
    assert attacks.full_disk(tmp_path, 8, kind) == {"OSError": 8, "whole": 8}


def test_ctrl_c_while_waiting_to_write() -> None:
    assert attacks.ctrl_c_while_waiting() == "whole"


def test_readers_wait_for_no_writer() -> None:
    collection, index = attacks.small(), LexicalIndex()
    index.add(["a"], [{1: 1.0}])
    found: list[object] = []

    def read() -> None:
        found.append(collection.search("panda", 3))
        found.append(collection.get(["d1"]))
        found.append(collection.ids({"even": True}))
        found.append(index.search({1: 1.0}, 1))

    with collection._stored._writing, index._writing:
        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        thread.join(60)
    assert len(found) == 4


def test_a_filter_may_use_the_collection_while_another_thread_writes() -> None:
    collection = attacks.small()
    begun = threading.Event()
    changed = threading.Thread(target=lambda: (begun.wait(60), collection.delete(["d1"])))
    changed.start()

    def accept(metadata) -> bool:
        begun.set()
        # By now the other thread changes the documents, or has done so.
        changed.join(0.01)
        found = collection.search("panda", 3, exhaustive=True)
        return bool(found) and len(collection.get(["d0"])) == 1

    # The documents are those of the beginning.
    assert "d1" in {one.id for one in collection.search("panda", 20, where=accept)}
    changed.join(60)
    assert "d1" not in collection.ids()


def test_a_filter_may_change_the_collection(caplog) -> None:
    collection = attacks.small()

    def accept(metadata) -> bool:
        collection.add(["panda again"], [{"even": True}], ["d0"])
        return bool(metadata["even"])

    found = {one.id: one.text for one in collection.search("panda", 20, where=accept)}
    assert found["d0"] == "panda 0 panda"
    assert collection.get(["d0"])[0][1] == "panda again"
    assert isinstance(collection, DocumentCollection)
