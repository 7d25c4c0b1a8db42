from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
from tests.conftest import make_text

from m3_core import Encoder
from m3_core.collection.collection import DocumentCollection
from m3_core.encoder.cached import CachedEncoder
from m3_core.errors import IndexFileError
from m3_core.lexical_index.index import LexicalIndex
from m3_core.scoring import dense_scores, hybrid_scores, lexical_scores, maxsim_scores

ALL = ("dense", "sparse", "colbert")
TEXTS = [make_text(i, 3 + i % 7) for i in range(40)]
IDS = [f"id{i}" for i in range(40)]
QUERY = "panda bear Stadt мир"


def make(encoder: Encoder, parts=ALL) -> DocumentCollection:
    collection = DocumentCollection(CachedEncoder(encoder, parts))
    metadatas = [{"even": i % 2 == 0, "number": i} for i in range(40)]
    assert collection.add(TEXTS, metadatas, IDS) == IDS
    return collection


def ids(found) -> list[str]:
    return [one.id for one in found]


@pytest.fixture(scope="module")
def reps(encoder: Encoder):
    wanted = {"return_sparse": True, "return_colbert_vecs": True}
    return encoder.encode_queries([QUERY], **wanted), encoder.encode_documents(TEXTS, **wanted)


@pytest.mark.parametrize("weights", [(1, 0.3, 1), (0, 1, 1), (1, 0, 0)])
def test_hybrid_is_brute_force_with_the_same_weights(encoder, reps, weights) -> None:
    found = make(encoder).search(QUERY, 40, weights=weights)
    expected = hybrid_scores(*reps, weights)[0]
    assert len(found) == 40
    for one in found:
        row = IDS.index(one.id)
        # Multi-vectors are stored in float16.
        assert one.score == pytest.approx(expected[row], abs=2e-3)
        assert one.text == TEXTS[row]
        assert one.metadata["number"] == row
        assert set(one.scores) == set(ALL[: 3 if weights[2] else 2])
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_each_score_is_the_cores(encoder, reps) -> None:
    queries, documents = reps
    dense = dense_scores(queries.dense_vecs, documents.dense_vecs)[0]
    sparse = lexical_scores(queries.lexical_weights, documents.lexical_weights)[0]
    late = maxsim_scores(queries.colbert_vecs, documents.colbert_vecs)[0]
    for one in make(encoder).search(QUERY, 5):
        row = IDS.index(one.id)
        assert one.scores["dense"] == pytest.approx(dense[row], abs=1e-5)
        assert one.scores["sparse"] == pytest.approx(sparse[row], abs=1e-5)
        assert one.scores["colbert"] == pytest.approx(late[row], abs=2e-3)


def test_few_candidates_are_the_best_of_each_ranking(encoder, reps) -> None:
    found = make(encoder, ("dense", "sparse")).search(QUERY, 1, fetch_k=1)
    dense = dense_scores(reps[0].dense_vecs, reps[1].dense_vecs)[0]
    sparse = lexical_scores(reps[0].lexical_weights, reps[1].lexical_weights)[0]
    candidates = {int(dense.argmax()), int(sparse.argmax())}
    best = max(candidates, key=lambda row: dense[row] + 0.3 * sparse[row])
    assert ids(found) == [IDS[best]]


def test_rank_fusion_counts_ranks(encoder, reps) -> None:
    found = make(encoder, ("dense", "sparse")).search(
        QUERY, 40, fusion="rrf", weights=(1, 1, 0), fetch_k=40
    )
    dense = dense_scores(reps[0].dense_vecs, reps[1].dense_vecs)[0]
    sparse = lexical_scores(reps[0].lexical_weights, reps[1].lexical_weights)[0]
    for one in found:
        row = IDS.index(one.id)
        expected = 0.5 / (60 + 1 + int((dense > dense[row]).sum()))
        if sparse[row] > 0:
            expected += 0.5 / (60 + 1 + int((sparse > sparse[row]).sum()))
        assert one.score == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("weights", [(1, 0.3, 1), (0, 0, 1), (1, 0, 0), (0.2, 1, 0)])
def test_exhaustive_search_is_brute_force_over_all_documents(encoder, reps, weights) -> None:
    collection = make(encoder)
    collection.add(["gone"], ids=["gone"])
    collection.delete(["gone"])
    # What is stored, in float64: multi-vectors in float16. It may have been encoded in the batches
    # of other tests, and a difference in the seventh digit can round to another float16.
    queries, directly = reps
    documents = collection.encodings.documents(TEXTS)
    for ours, theirs in zip(documents.colbert_vecs, directly.colbert_vecs, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(documents.dense_vecs, directly.dense_vecs, atol=1e-6)
    late = [
        (queries.colbert_vecs[0].astype(np.float64) @ rows.astype(np.float16).T).max(1).mean()
        for rows in documents.colbert_vecs
    ]
    dense = documents.dense_vecs.astype(np.float64) @ queries.dense_vecs[0]
    sparse = lexical_scores(queries.lexical_weights, documents.lexical_weights)[0]
    expected = (weights[0] * dense + weights[1] * sparse + weights[2] * np.array(late)) / sum(
        weights
    )
    for exhaustive in (True, None):
        found = collection.search(QUERY, 40, weights=weights, exhaustive=exhaustive)
        assert ids(found) == [IDS[row] for row in np.argsort(-expected, kind="stable")]
        np.testing.assert_allclose([one.score for one in found], np.sort(expected)[::-1], atol=2e-6)
        assert set(found[0].scores) == {
            name for name, weight in zip(ALL, weights, strict=True) if weight
        }
    few = collection.search(QUERY, 3, weights=weights, exhaustive=True, where={"even": False})
    odd = [row for row in np.argsort(-expected, kind="stable") if row % 2]
    assert ids(few) == [IDS[row] for row in odd[:3]]


def test_multi_vectors_alone_take_their_candidates_from_the_other_rankings(encoder) -> None:
    collection = make(encoder)
    every = collection.search(QUERY, 40, weights=(0, 0, 1), exhaustive=True)
    assert ids(collection.search(QUERY, 40, weights=(0, 0, 1), fetch_k=40)) == ids(every)
    some = ids(collection.search(QUERY, 5, weights=(0, 0, 1), fetch_k=5))
    assert some == [one for one in ids(every) if one in some]


def test_ids_restrict_a_search_together_with_a_filter(encoder) -> None:
    collection = make(encoder)
    chosen = ["id3", "id4", "id5", "no such id"]
    for exhaustive in (False, True):
        options = {"ids": chosen, "exhaustive": exhaustive}
        assert set(ids(collection.search(QUERY, 9, **options))) == {"id3", "id4", "id5"}
        assert ids(collection.search(QUERY, 9, where={"even": True}, **options)) == ["id4"]
        assert collection.search(QUERY, 9, ids=[], exhaustive=exhaustive) == []
    assert collection.ids({"number": 7}) == ["id7"]
    assert collection.ids() == IDS
    with pytest.raises(TypeError, match="list of strings"):
        collection.search(QUERY, 9, ids="id3")


def test_a_given_vector_takes_the_place_of_the_dense_one(encoder, reps) -> None:
    other = encoder.encode_queries(["world"]).dense_vecs[0]
    dense = reps[1].dense_vecs @ other
    for exhaustive in (False, True):
        found = make(encoder).search(QUERY, 40, vector=other.tolist(), exhaustive=exhaustive)
        for one in found:
            assert one.scores["dense"] == pytest.approx(dense[IDS.index(one.id)], abs=1e-6)
        expected = make(encoder).search(QUERY, 40, exhaustive=exhaustive)
        late = {one.id: one.scores["colbert"] for one in expected}
        assert {one.id: one.scores["colbert"] for one in found} == pytest.approx(late)
    alone = make(encoder, ("dense",)).search(None, 40, vector=other)
    assert ids(alone) == [IDS[row] for row in np.argsort(-dense, kind="stable")]
    for wrong, message in (([1.0], "has 1 values"), ([[1.0]], "shape"), ([np.nan], "finite")):
        with pytest.raises(ValueError, match=message):
            make(encoder).search(QUERY, 3, vector=wrong)


def test_weights_of_what_is_not_stored_leave_nothing(encoder) -> None:
    with pytest.raises(ValueError, match="leave nothing to score by: stored are dense"):
        make(encoder, ("dense",)).search(QUERY, 3, weights=(0, 1, 1))


def test_sparse_alone_finds_only_shared_tokens(encoder, reps) -> None:
    found = make(encoder, ("sparse",)).search(QUERY, 100)
    expected = lexical_scores(reps[0].lexical_weights, reps[1].lexical_weights)[0]
    order = [IDS[row] for row in np.argsort(-expected, kind="stable") if expected[row] > 0]
    assert ids(found) == order


@pytest.mark.parametrize("parts", [("sparse",), ("dense", "sparse"), ALL])
def test_filters_delete_upsert_save_and_load(encoder, tmp_path, parts) -> None:
    collection = make(encoder, parts)
    found = collection.search(QUERY, 40, where={"even": True})
    assert found
    assert all(one.metadata["even"] for one in found)
    assert collection.search(QUERY, 5, where={"even": "yes"}) == []
    assert collection.search(QUERY, 5, where=lambda metadata: False) == []
    assert ids(collection.search(QUERY, 5, where=lambda m: m["number"] == 0)) in (["id0"], [])
    first = found[0]
    first.metadata["even"] = "changed"
    assert collection.get([first.id])[0][2]["even"] is True
    assert collection.delete(["id0", "no such id", *IDS[10:30]]) == 21
    collection.add(["panda"], [{"new": 1}], [first.id])
    assert collection.get([first.id, "id0"]) == [(first.id, "panda", {"new": 1})]
    assert len(collection) == len({*IDS[1:10], *IDS[30:], first.id})
    before = collection.search(QUERY, 40)
    collection.save(tmp_path / "saved")
    collection.save(tmp_path / "saved")
    again = DocumentCollection.load(tmp_path / "saved", CachedEncoder(encoder, parts))
    assert [(one.id, one.text, one.metadata) for one in again.search(QUERY, 40)] == [
        (one.id, one.text, one.metadata) for one in before
    ]
    assert [one.name for one in tmp_path.iterdir()] == ["saved"]


def test_wrong_input_is_refused_and_changes_nothing(encoder) -> None:
    collection = make(encoder)
    with pytest.raises(ValueError, match="id 'x' comes more than once"):
        collection.add(["a", "b"], ids=["x", "x"])
    with pytest.raises(ValueError, match="2 texts, 1 metadatas"):
        collection.add(["a", "b"], [{}])
    with pytest.raises(TypeError, match="text 1"):
        collection.add(["a", None])
    with pytest.raises(TypeError, match="ids must be strings"):
        collection.add(["a"], ids=[3])
    with pytest.raises(TypeError, match="list of strings"):
        collection.delete("id1")
    for k, error in ((0, ValueError), (-1, ValueError), (2.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="k must be"):
            collection.search(QUERY, k)
    with pytest.raises(ValueError, match="fusion"):
        collection.search(QUERY, 1, fusion="sum")
    with pytest.raises(ValueError, match="weights"):
        collection.search(QUERY, 1, weights=(0, 0, 0))
    assert len(collection) == 40
    assert collection.add([]) == []
    assert DocumentCollection(collection.encodings).search(QUERY, 3) == []


def test_damaged_foreign_and_other_models_files_are_refused(encoder, tmp_path) -> None:
    saved, view = tmp_path / "saved", CachedEncoder(encoder, ALL)
    make(encoder).save(saved)
    with pytest.raises(FileNotFoundError):
        DocumentCollection.load(tmp_path / "nothing", view)
    with pytest.raises(IndexFileError, match="is a folder"):
        DocumentCollection.load(tmp_path, view)
    with pytest.raises(IsADirectoryError, match="give the name of a file"):
        make(encoder).save(tmp_path)
    LexicalIndex().save(tmp_path / "index")
    with pytest.raises(IndexFileError, match=r"no saved collection.*its format is 'm3-lexical"):
        DocumentCollection.load(tmp_path / "index", view)
    other = CachedEncoder(encoder.with_options(max_length=99), ALL)
    with pytest.raises(IndexFileError, match="another model"):
        DocumentCollection.load(saved, other)
    with pytest.raises(IndexFileError, match="with dense, sparse, colbert"):
        DocumentCollection.load(saved, CachedEncoder(encoder, ("sparse",)))
    content = saved.read_bytes()
    saved.write_bytes(content[:-1])
    with pytest.raises(IndexFileError, match="cut or damaged"):
        DocumentCollection.load(saved, view)
    saved.write_bytes(content)
    assert len(DocumentCollection.load(saved, view)) == 40


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


def test_vectors_of_what_was_found(encoder, reps) -> None:
    collection = make(encoder)
    collection.delete(IDS[:3])
    for one in collection.search(QUERY, 9, return_vectors=True):
        expected = reps[1].dense_vecs[IDS.index(one.id)]
        assert one.vector == pytest.approx(expected, abs=1e-6)
    assert all(one.vector is None for one in collection.search(QUERY, 9))


def test_documents_without_text_are_reported(encoder, caplog) -> None:
    collection = DocumentCollection(CachedEncoder(encoder, ALL))
    collection.add(["panda", " \n", ""], ids=["a", "b", "c"])
    assert "2 of 3 documents have no text, the first is 'b'" in caplog.text
    assert len(collection) == 3


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
