"""Copies and views of collections, and searches, while documents are added and changed."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
from tests.core.collection.test_collection import ALL, IDS, QUERY, TEXTS, ids, make
from tests.core.collection.test_collection import reps as reps

from m3_core.collection.collection import DocumentCollection
from m3_core.encoder.cached import CachedEncoder


def test_searches_while_documents_are_added_see_whole_batches(encoder) -> None:
    collection = DocumentCollection(CachedEncoder(encoder, ("dense", "sparse")))
    wrong, done = [], threading.Event()

    def search() -> None:
        while not done.is_set():
            batches = [one.metadata["batch"] for one in collection.search("panda", 1000)]
            if any(batches.count(batch) != 4 for batch in batches):
                wrong.append(batches)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for batch in range(12):
            collection.add(
                [f"panda {i}" for i in range(4)],
                [{"batch": batch}] * 4,
                [f"{batch % 6}.{i}" for i in range(4)],
            )
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(collection) == 24


@pytest.mark.parametrize("parts", [("sparse",), ALL])
@pytest.mark.parametrize("again", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_have_documents_of_their_own(encoder, parts, again) -> None:
    collection = make(encoder, parts)
    collection.delete(IDS[3:9])
    before = ids(collection.search(QUERY, 40))
    copied = again(collection)
    assert ids(copied.search(QUERY, 40)) == before
    assert copied.ids() == collection.ids()
    copied.add([QUERY], ids=["new"])
    copied.delete(IDS[:2])
    found = ids(copied.search(QUERY, 40))
    assert "new" in found
    assert not {*IDS[:2], *IDS[3:9]} & set(found)
    collection.add(["bear"], ids=["other"])
    assert len(collection) == 35
    assert len(copied) == 33
    collection.delete(["other"])
    assert ids(collection.search(QUERY, 40)) == before


def test_copies_while_documents_are_added(encoder) -> None:
    collection = DocumentCollection(CachedEncoder(encoder, ALL))

    def add() -> None:
        for first in range(0, 40, 2):
            collection.add(TEXTS[first : first + 2], ids=IDS[first : first + 2])

    thread = threading.Thread(target=add)
    thread.start()
    copies = [copy.deepcopy(collection) for _ in range(20)]
    thread.join()
    for one in copies:
        assert one.ids() == IDS[: len(one)]
        assert len(one) % 2 == 0
        assert set(ids(one.search(QUERY, 40, exhaustive=True))) == set(one.ids())


@pytest.mark.parametrize("parts", [("sparse",), ("dense", "sparse"), ALL])
def test_copies_are_whole_and_views_share(encoder, parts) -> None:
    collection = make(encoder, parts)
    collection.delete(IDS[5:9])
    collection.add(["panda"], [{"tags": [1]}], ["id3"])
    expected = collection.search(QUERY, 40)
    view = collection.over(CachedEncoder(encoder.with_options(query_instruction="Fluss "), parts))
    packed = pickle.dumps(collection)
    for one in (copy.deepcopy(collection), pickle.loads(packed)):
        found = one.search(QUERY, 40)
        assert [(f.id, f.text, f.metadata) for f in found] == [
            (f.id, f.text, f.metadata) for f in expected
        ]
        assert [f.score for f in found] == pytest.approx([f.score for f in expected], abs=1e-6)
        assert one.ids() == collection.ids()
        one.add([QUERY], ids=["own"])
        one.delete(["id0"])
        assert "own" in ids(one.search(QUERY, 40))
    assert len(collection) == len(view) == 36
    assert pickle.loads(packed).encodings._opened is None
    view.add([QUERY], ids=["shared"])
    assert "shared" in ids(collection.search(QUERY, 40))
    assert len(copy.copy(collection)) == len(view) == 37
    assert ids(view.search("Stadt", 9)) == ids(collection.search("Fluss Stadt", 9))
    with pytest.raises(ValueError, match="other options for documents"):
        collection.over(CachedEncoder(encoder.with_options(max_length=99), parts))
    with pytest.raises(ValueError, match=r"asked for were dense$"):
        collection.over(CachedEncoder(encoder, ("dense",)))


def test_nothing_is_shared_with_callers(encoder) -> None:
    collection = DocumentCollection(CachedEncoder(encoder, ALL))
    given = {"tags": ["a"], "deep": {"er": [{"est": 1}]}}
    kept = copy.deepcopy(given)
    collection.add(["panda bear", "panda"], [given, given], ["x", "y"])
    given["tags"].append("caller")
    given["deep"]["er"][0]["est"] = 2
    for _ in range(2):
        found = [one.metadata for one in collection.search("panda", 2)]
        found += [metadata for _, _, metadata in collection.get(["x", "y"])]
        assert found == [kept] * 4
        for metadata in found:
            metadata["deep"]["er"].clear()
    with pytest.raises(TypeError, match="metadata of document 'z' cannot be copied"):
        collection.add(["w", "z"], [{}, {"lock": threading.Lock()}], ["w", "z"])
    assert collection.ids() == ["x", "y"]


def test_only_what_is_found_is_copied(encoder) -> None:
    copied = []

    class Counted:
        def __deepcopy__(self, memo: dict) -> Counted:
            copied.append(self)
            return Counted()

    collection = DocumentCollection(CachedEncoder(encoder, ALL))
    collection.add(TEXTS, [{"counted": Counted()} for _ in TEXTS])
    assert len(copied) == len(TEXTS)
    assert len(collection.search(QUERY, 3)) == 3
    assert len(copied) == len(TEXTS) + 3


def test_copies_that_are_made_during_changes_are_whole(encoder) -> None:
    collection = make(encoder)
    done = threading.Event()

    def change() -> None:
        # Always both or none of the two.
        while not done.is_set():
            collection.delete(["id1", "id2"])
            collection.add(["panda bear", "panda"], ids=["id1", "id2"])

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for number in range(8):
            one = copy.deepcopy(collection)
            if number % 2:
                one = pickle.loads(pickle.dumps(collection))
            assert len(one) in (38, 40)
            assert sorted(ids(one.search(QUERY, 40, exhaustive=True))) == sorted(one.ids())
    finally:
        done.set()
        thread.join()
