from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.lexical_index.index_data import NAMES, STEPS, TEXTS, apply, brute_force, synthetic

import m3_core
from m3_core import LexicalIndex, LexicalWeights
from m3_core.lexical_index.search import top_rows


@settings(max_examples=100)
@given(STEPS, TEXTS, st.integers(1, 40), st.sets(NAMES))
def test_equals_brute_force_after_any_changes(steps, query, k, allowed):
    index, documents = apply(steps)
    assert len(index) == len(documents)
    assert index.ids == list(documents)
    assert index.search(query, k) == brute_force(documents, query, k)
    some = {name: text for name, text in documents.items() if name in allowed}
    expected = brute_force(some, query, k)
    assert index.search(query, k, allowed=allowed) == expected
    assert index.search(query, k, allowed=lambda name: name in allowed) == expected
    filled = index.search(query, k, fill=True)
    rest = [(name, 0.0) for name in documents if name not in dict(brute_force(documents, query, k))]
    assert filled == (brute_force(documents, query, k) + rest)[:k]
    filled = index.search(query, k, allowed=allowed, fill=True)
    assert [name for name, _ in filled[len(expected) :]] == [
        name for name in some if name not in dict(expected)
    ][: max(k - len(expected), 0)]
    for name, weights in documents.items():
        assert index.get(name) == weights


@pytest.mark.parametrize("k", [1, 10, 300, 10_000])
def test_equals_brute_force_with_columns_and_blocks(large, k):
    index, documents = large
    _, queries = synthetic(8, seed=1, length=12)
    assert any(segment.columns for segment in index._snapshot.segments)
    for query, found in zip(queries, index.search_batch(queries, k), strict=True):
        assert found == brute_force(documents, query, k)
        assert found == index.search(query, k)
        allowed = [f"doc {number}" for number in range(0, 6000, 7)]
        some = {name: documents[name] for name in allowed if name in documents}
        assert index.search(query, k, allowed=allowed) == brute_force(some, query, k)


def test_deletes_and_replacements_in_a_large_index():
    ids, texts = synthetic(4000)
    index = LexicalIndex()
    index.add(ids, LexicalWeights.from_dicts(texts))
    documents = dict(zip(ids, texts, strict=True))
    _, queries = synthetic(3, seed=1, length=12)
    _, replacements = synthetic(500, seed=2)
    for start in range(0, 3000, 500):
        gone, changed = ids[start : start + 250], ids[start + 250 : start + 500]
        assert index.delete([*gone, "unknown", gone[0]]) == 250
        index.add(changed, replacements[:250])
        for name in [*gone, *changed]:
            del documents[name]
        documents |= dict(zip(changed, replacements, strict=False))
        for query in queries:
            assert index.search(query, 20) == brute_force(documents, query, 20)
    # What is dead is thrown away, not only hidden.
    assert sum(map(len, index._snapshot.segments)) <= 1.34 * len(documents)


def test_adding_one_by_one_gives_the_same_and_few_segments():
    ids, texts = synthetic(1500)
    one_by_one, at_once = LexicalIndex(), LexicalIndex()
    for name, text in zip(ids, texts, strict=True):
        one_by_one.add([name], [text])
    at_once.add(ids, texts)
    assert len(one_by_one._snapshot.segments) <= 8
    for query in synthetic(5, seed=1)[1]:
        assert one_by_one.search(query, 50) == at_once.search(query, 50)


def test_a_posting_costs_at_most_ten_bytes(large):
    index, documents = large
    num_postings = sum(map(len, documents.values()))
    # Beside the lists there are 8 bytes a document and 12 bytes a list.
    lists = sum(len(segment.tokens) + 1 for segment in index._snapshot.segments)
    assert index.nbytes - 8 * len(documents) - 12 * lists <= 10 * num_postings


def test_ties_come_in_the_order_of_adding():
    index = LexicalIndex()
    for name in "cabd":
        index.add([name], [{1: 0.1, 2: 0.2, 3: 0.3}])
    index.add(["a"], [{1: 0.1, 2: 0.2, 3: 0.3}])
    names = [name for name, _ in index.search({1: 0.7, 2: 0.3, 3: 0.9}, 4)]
    assert names == ["c", "b", "d", "a"]


def test_empty_index_queries_documents_and_calls():
    index = LexicalIndex()
    assert index.search({1: 1.0}, 5) == []
    assert index.search({1: 1.0}, 5, fill=True) == []
    index.add([], [])
    assert index.delete([]) == 0
    index.add(["nothing", "zero", "some"], [{}, {1: 0.0}, {1: 0.5}])
    assert len(index) == 3
    assert index.search({1: 1.0}, 5) == [("some", 0.5)]
    assert index.search({}, 5) == []
    assert index.search({1: 0.0}, 5) == []
    assert index.search({1: 1.0}, 2, fill=True) == [("some", 0.5), ("nothing", 0.0)]
    assert index.search({1: 1.0}, 5, allowed=[]) == []
    assert index.search_batch([], 5) == []
    assert index.get("nothing") == {}
    assert index.get("zero") == {}
    assert index.delete(["some", "zero", "nothing"]) == 3
    assert index.search({1: 1.0}, 5) == []
    assert index._snapshot.segments == ()


def test_string_keys_as_flagembedding_gives_them():
    index = LexicalIndex()
    index.add(["a"], [{"12": 0.5}])
    assert index.search({"12": 0.5}, 1) == [("a", 0.25)]


@pytest.mark.parametrize(
    ("ids", "texts", "error", "message"),
    [
        (["a", "b"], [{}], ValueError, "2 ids"),
        (["a", "b", "a"], [{}, {}, {}], ValueError, "'a' comes more than once"),
        (["a", 3], [{}, {}], TypeError, "3 of int"),
        ("ab", [{}, {}], TypeError, "ids must be"),
        (["a"], {1: 0.5}, TypeError, "list of mappings"),
        (["a", "b"], [{1: 1.0}, {7: float("nan")}], ValueError, "text 1 gives token 7"),
        (["a"], [{7: float("inf")}], ValueError, "finite"),
        (["a"], [{7: 1e300}], ValueError, "finite"),
        (["a"], [{7: -0.5}], ValueError, "not negative"),
        (["a"], [{2**31: 0.5}], ValueError, "32 bits"),
        (["a"], [{-1: 0.5}], ValueError, "must not be negative"),
        (["a"], LexicalWeights([1, 1], [0.5, 0.5], [0, 2]), ValueError, "more than once"),
        (["a"], [None], TypeError, "text 0 has None of type NoneType"),
        (["a", "b"], [{}, [1.0]], TypeError, "text 1 has .* of type list"),
        (["a"], None, TypeError, "list of mappings; got None"),
        (None, [{}], TypeError, "ids must be"),
        (["a"], [{None: 1.0}], TypeError, "those of text 0 are none"),
        (["a"], [{1: None}], TypeError, "those of text 0 are none"),
        (["a"], [{"one": 1.0}], ValueError, "those of text 0 are none"),
        (["a"], [{1: 10**400}], ValueError, "those of text 0 are none"),
    ],
)
def test_bad_documents_change_nothing(ids, texts, error, message):
    index = LexicalIndex()
    index.add(["old"], [{1: 1.0}])
    with pytest.raises(error, match=message):
        index.add(ids, texts)
    assert index.ids == ["old"]
    assert index.search({1: 1.0, 7: 1.0}, 9) == [("old", 1.0)]


def test_bad_searches_say_what_is_wrong():
    index = LexicalIndex()
    for k in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            index.search({1: 1.0}, k)
    for k in (2.0, True, None):
        with pytest.raises(TypeError, match="whole number"):
            index.search({1: 1.0}, k)
    with pytest.raises(ValueError, match="finite"):
        index.search({1: float("nan")}, 1)
    with pytest.raises(TypeError, match="ids must be"):
        index.search({1: 1.0}, 1, allowed="abc")
    for search in (index.search, lambda query, k: index.search_batch([query], k)):
        with pytest.raises(TypeError, match="the lexical weights of a text are"):
            search(None, 1)
    with pytest.raises(TypeError, match="list of mappings"):
        index.search_batch(None, 1)
    with pytest.raises(TypeError, match="the lexical weights of a text are"):
        index.score_all(None)
    with pytest.raises(KeyError, match="'missing'"):
        index.get("missing")


def test_a_filter_may_search_and_its_error_passes_through(large):
    index, documents = large
    query = {1: 0.25, 5: 0.125}
    best = index.search(query, 1)[0][0]
    found = index.search(query, 3, allowed=lambda name: name != index.search(query, 1)[0][0])
    assert found == brute_force({n: t for n, t in documents.items() if n != best}, query, 3)
    with pytest.raises(ZeroDivisionError):
        index.search(query, 3, allowed=lambda name: 1 / 0)
    assert index.search(query, 1)[0][0] == best


def test_a_filter_that_refuses_nearly_all_is_exact(large):
    index, documents = large
    query = {1: 0.25, 5: 0.125, 9: 0.375}
    found = index.search(query, 5, allowed=lambda name: name.endswith("77"))
    some = {name: text for name, text in documents.items() if name.endswith("77")}
    assert found == brute_force(some, query, 5)
    assert index.search(query, 5, allowed=lambda name: False) == []


@pytest.mark.parametrize("k", [1, 7, 500, 4096])
def test_top_rows_holds_the_k_largest(k):
    random = np.random.default_rng(k)
    for zeros in (0.0, 0.5, 0.999):
        scores = random.random(4096, np.float32)
        scores[random.random(4096) < zeros] = 0
        expected = np.sort(scores[scores > 0])[::-1][:k]
        rows = top_rows(scores, k, 1e-6)
        assert (np.diff(rows) > 0).all()
        assert (np.sort(scores[rows])[::-1][:k] == expected).all()
        assert len(expected) <= len(rows) <= len(expected) + 5


def test_searches_see_each_change_wholly_while_others_write(tmp_path):
    """Each generation replaces both documents at once: no search may mix two generations."""
    index = LexicalIndex()
    ids, texts = synthetic(2000)
    index.add(ids, texts)
    token = 9999

    def generation(number):
        return [{token: 1 + number}, {token: 0.5 + number}]

    index.add(["x", "y"], generation(0))
    stop = threading.Event()

    def write():
        for number in range(1, 80):
            index.add(["x", "y"], generation(number))
            index.add([f"other {number}"], [{1: 0.5}])
            index.delete([f"other {number - 5}", f"doc {number}"])
        stop.set()

    def read(kind):
        filters = [None, ["x", "y", "doc 1"], lambda name: name in ("x", "y")]
        num_searches = 0
        while not stop.is_set() or not num_searches:
            found = index.search({token: 1.0}, 5, allowed=filters[kind % 3])
            assert [name for name, _ in found] == ["x", "y"], found
            assert found[0][1] - found[1][1] == 0.5, found
            num_searches += 1
        return num_searches

    with ThreadPoolExecutor(7) as pool:
        readers = [pool.submit(read, kind) for kind in range(6)]
        pool.submit(write).result(timeout=120)
        assert all(reader.result(timeout=60) for reader in readers)


def test_64_threads_give_the_serial_results(large):
    index, _ = large
    queries = synthetic(64, seed=3, length=12)[1]
    serial = [index.search(query, 10) for query in queries]
    with ThreadPoolExecutor(64) as pool:
        assert list(pool.map(lambda query: index.search(query, 10), queries)) == serial


def test_the_public_name_is_lazy():
    assert m3_core.LexicalIndex is LexicalIndex
    assert "LexicalIndex" in m3_core.__all__
    code = "import sys, m3_core; m3_core.LexicalIndex; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_copies_have_their_own_documents() -> None:
    index = LexicalIndex("model")
    index.add(["a", "b", "c"], [{7: 0.25, 9: 0.5}, {9: 0.25}, {7: 1.0}])
    index.delete(["c"])
    for again in (copy.copy(index), copy.deepcopy(index), pickle.loads(pickle.dumps(index))):
        assert again.search({9: 0.5}, k=10) == [("a", 0.25), ("b", 0.125)]
        again.add(["d", "a"], [{9: 1.0}, {}])
        again.delete(["b"])
        assert again.search({9: 0.5}, k=10) == [("d", 0.5)]
        assert (again.ids, again.fingerprint) == (["d", "a"], "model")
    assert index.ids == ["a", "b"]
    assert index.search({9: 0.5}, k=10) == [("a", 0.25), ("b", 0.125)]
