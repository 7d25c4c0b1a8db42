from __future__ import annotations

import enum

import numpy as np
import pytest
from tests.conftest import make_text

from m3_core.collection.collection import DocumentCollection
from m3_core.errors import FilterError, M3Error
from m3_core.expressions import Contains, Equals, HasText, IsEmpty, Not
from m3_core.filters import parse_filter


class Language(str, enum.Enum):
    GERMAN = "de"


DOCUMENT = {
    "s": "x",
    "n": 3,
    "half": 3.5,
    "flag": True,
    "nothing": None,
    "tags": ["x", "y"],
    "numbers": [1, 10],
    "empty": [],
    "a.b": 1,
    "language": "de",
    "id": 2**60,
}
FILTERS = [
    (None, True),
    ({}, True),
    ({"s": "x"}, True),
    ({"s": "z"}, False),
    ({"s": "x", "n": 4}, False),
    ({"s": {"$eq": "x"}}, True),
    ({"s": {"$ne": "x"}}, False),
    ({"s": {"$in": ["x", "z"]}}, True),
    ({"s": {"$in": {"z"}}}, False),
    ({"s": {"$in": []}}, False),
    ({"s": {"$nin": ["z"]}}, True),
    ({"s": {"$nin": ("x",)}}, False),
    ({"s": {"$nin": []}}, True),
    # Types are strict, but a number is a number.
    ({"flag": True}, True),
    ({"flag": 1}, False),
    ({"n": 3.0}, True),
    ({"n": "3"}, False),
    ({"n": {"$in": [True, "3"]}}, False),
    ({"half": {"$gt": 3, "$lt": 4}}, True),
    ({"half": {"$gte": 3.5}}, True),
    ({"half": {"$gt": 3.5}}, False),
    ({"half": {"$lte": 3.4}}, False),
    ({"flag": {"$gt": 0}}, False),
    ({"s": {"$gt": 0}}, False),
    ({"s": {"$gte": "w", "$lte": "x"}}, True),
    ({"id": 2**60}, True),
    ({"id": 2**60 + 1}, False),
    ({"n": np.int64(3), "half": np.float32(3.5), "flag": np.True_}, True),
    ({"language": Language.GERMAN}, True),
    # Lists pass with one of their elements.
    ({"tags": "x"}, True),
    ({"tags": "xy"}, False),
    ({"tags": {"$in": ["y", "z"]}}, True),
    ({"tags": {"$nin": ["y"]}}, False),
    ({"tags": {"$ne": "z"}}, True),
    ({"numbers": {"$gt": 5}}, True),
    ({"numbers": {"$gt": 2, "$lt": 9}}, True),  # by different elements
    ({"empty": {"$in": ["x"]}}, False),
    ({"empty": {"$ne": "x"}}, True),
    # Absent is not null, and passes negations only.
    ({"nothing": None}, True),
    ({"absent": None}, False),
    ({"absent": {"$ne": "x"}}, True),
    ({"absent": {"$nin": ["x"]}}, True),
    ({"absent": {"$gt": 0}}, False),
    ({"absent": {"$not": {"$gt": 0}}}, True),
    ({"n": None}, False),
    ({"n": {"$ne": None}}, True),
    # Keys are whole names.
    ({"a.b": 1}, True),
    ({"$and": [{"s": "x"}, {"n": 3}]}, True),
    ({"$and": [{"s": "x"}, {"n": 4}]}, False),
    ({"$or": [{"s": "z"}, {"n": 3}]}, True),
    ({"$or": [{"s": "z"}, {"n": 4}]}, False),
    ({"$not": {"s": "z"}}, True),
    ({"$not": {"$or": [{"s": "x"}, {"n": {"$gt": 9}}]}, "flag": True}, False),
    ({"$or": [{"$and": [{"s": "x"}, {"n": 9}]}, {"tags": {"$in": ["y"]}}]}, True),
    ({"$or": [lambda metadata: len(metadata) > 3, {"n": 4}]}, True),
    (lambda metadata: "s" in metadata, True),
    (Not(Equals("s", "x")), False),
]


@pytest.mark.parametrize(("where", "expected"), FILTERS)
def test_what_each_operator_means(where, expected) -> None:
    assert parse_filter(where).evaluate(DOCUMENT) is expected


def test_values_of_numpy_in_metadata_are_values() -> None:
    assert parse_filter({"n": 3, "b": True}).evaluate({"n": np.int32(3), "b": np.bool_(True)})


def test_what_llamaindex_has_beyond_the_mappings() -> None:
    assert Contains("tags", "x").evaluate(DOCUMENT)
    assert not Contains("tags", "").evaluate(DOCUMENT)
    assert Contains("language", "d").evaluate(DOCUMENT)
    assert not Contains("n", 3).evaluate(DOCUMENT)
    assert not Contains("absent", None).evaluate(DOCUMENT)
    assert HasText("language", "e").evaluate(DOCUMENT)
    assert not HasText("language", "E").evaluate(DOCUMENT)
    assert HasText("language", "E", ignore_case=True).evaluate(DOCUMENT)
    assert not HasText("n", "3").evaluate(DOCUMENT)
    empty = ("nothing", "empty", "absent")
    assert [key for key in (*DOCUMENT, "absent") if IsEmpty(key).evaluate(DOCUMENT)] == list(empty)
    assert IsEmpty("s").evaluate({"s": ""})


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"s": ["x", "y"]}, r"compares 's' with \['x', 'y'\].*\$in"),
        ({"s": {"$eq": ["x"]}}, r"'s'.*\$in"),
        ({"s": object()}, "'s'.*type object"),
        ({"s": float("nan")}, "'s'.*finite"),
        ({"s": {"$in": "xy"}}, "'s'.*list of values"),
        ({"s": {"$in": [["x"]]}}, "'s'"),
        ({"s": {"$regex": "x"}}, r"'s' has no operator '\$regex'.*\$in"),
        ({"s": {"x": 1}}, "'s' has no operator 'x'"),
        ({"s": {1: 1}}, "'s' has no operator 1"),
        ({"s": {}}, "'s' has no operator"),
        ({"s": {"$gt": None}}, r"\$gt of 's'"),
        ({"s": {"$lt": True}}, r"\$lt of 's'"),
        ({"$nor": [{"s": 1}]}, r"no operator '\$nor'"),
        ({"$in": ["x"]}, r"no operator '\$in' in this place"),
        ({"$and": {"s": 1}}, r"'\$and' needs a list"),
        ({"$or": []}, r"'\$or' needs a list"),
        ({"$or": ["s"]}, r"'\$or' is over filters"),
        ({"$not": "s"}, r"'\$not' is over filters"),
        ({"s": {"$not": ["x"]}}, "'s'"),
        ({1: "x"}, "keys of a filter are strings; got 1"),
    ],
)
def test_what_is_not_of_the_language_is_named(where, message) -> None:
    with pytest.raises(FilterError, match=message) as caught:
        parse_filter(where)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, M3Error)


def test_what_is_no_filter_at_all() -> None:
    for wrong in ("s", 3, [{"s": 1}]):
        with pytest.raises(TypeError, match="a filter is a mapping or a function"):
            parse_filter(wrong)


def test_a_collection_takes_the_language(encoder) -> None:
    from m3_core.encoder.cached import CachedEncoder

    collection = DocumentCollection(CachedEncoder(encoder, parts=("sparse",)))
    metadatas = [{"s": "xyz"[i % 3], "flag": i % 2 == 0} for i in range(12)]
    collection.add([make_text(i, 5) for i in range(12)], metadatas, [str(i) for i in range(12)])
    where = {"s": {"$in": ["x", "y"]}, "flag": {"$ne": True}}
    expected = {str(i) for i in range(12) if i % 3 < 2 and i % 2}
    assert set(collection.ids(where)) == expected
    assert collection.ids({"flag": 1}) == []
    found = collection.search(make_text(1, 5), 12, where=where, exhaustive=True)
    assert found
    assert {one.id for one in found} <= expected
    with pytest.raises(FilterError, match="'s'"):
        collection.search("x", 3, where={"s": ["x", "y"]})
