"""Files of collections that somebody made: an ``IndexFileError``, whatever is in them."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from safetensors import safe_open

from m3_core.collection import DocumentCollection
from m3_core.encoder import CachedEncoder
from m3_core.errors import IndexFileError
from m3_core.files import write_tensors
from m3_core.testing import FakeEncoder

PARTS = ("dense", "sparse", "colbert")
ENCODER = FakeEncoder(dimension=8)
TEXTS = ["panda bear", "river city", "", "panda river query", "world water"]
IDS = ["a", "b", "c", "d", "e"]


def view(parts=PARTS) -> CachedEncoder:
    return CachedEncoder(ENCODER, parts)


@pytest.fixture
def saved(tmp_path):
    """A file, its metadata and its tensors."""
    collection = DocumentCollection(view())
    # Large and small, so that two segments are kept.
    collection.add([f"panda {i}" for i in range(40)], ids=[f"x{i}" for i in range(40)])
    collection.add(TEXTS, [{"n": i} for i in range(5)], IDS)
    collection.delete(["c", "x3"])
    collection.save(tmp_path / "saved")
    with safe_open(tmp_path / "saved", "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata())
    for name in ("checksum", "checksums"):
        del metadata[name]
    return tmp_path / "saved", metadata, tensors


def strings(tensors, name) -> list[str]:
    data, offsets = tensors[name].tobytes(), tensors[f"{name}.offsets"]
    return [data[a:b].decode() for a, b in pairwise(offsets)]


def put_strings(tensors, name, values) -> None:
    encoded = [one if isinstance(one, bytes) else one.encode() for one in values]
    tensors[name] = np.frombuffer(b"".join(encoded), np.uint8)
    tensors[f"{name}.offsets"] = np.cumsum([0, *map(len, encoded)])


def test_two_segments_are_saved_and_come_back(saved) -> None:
    path, metadata, _ = saved
    assert json.loads(metadata["segments"]) == [39, 4]
    loaded = DocumentCollection.load(path, view())
    assert loaded.ids() == [*(f"x{i}" for i in range(40) if i != 3), "a", "b", "d", "e"]
    for text in TEXTS:
        if text:
            for weights in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
                (best,) = loaded.search(text, 1, weights=weights, exhaustive=True)
                assert (best.text, best.score) == (text, pytest.approx(best.score))
    loaded.delete(["a"])
    loaded.add(["panda"], ids=["x1"])
    assert len(loaded) == 42


def change(tensors, name, place, value):
    array = tensors[name].copy()
    array.reshape(-1)[place] = value
    tensors[name] = array


def drop_row(tensors, name) -> None:
    tensors[name] = tensors[name][:-1]


CRAFTED = {
    "nan in dense": lambda t, m: change(t, "dense", 5, np.nan),
    "infinite dense": lambda t, m: change(t, "dense", -1, -np.inf),
    "nan in multi": lambda t, m: change(t, "multi", 5, np.nan),
    "infinite multi": lambda t, m: change(t, "multi", 0, np.inf),
    "dense too short": lambda t, m: drop_row(t, "dense"),
    "multi too short": lambda t, m: drop_row(t, "multi"),
    "dense of another width": lambda t, m: t.update(dense=t["dense"][:, :7].copy()),
    "multi of another width": lambda t, m: t.update(multi=t["multi"][:, :7].copy()),
    "dense in one dimension": lambda t, m: t.update(dense=t["dense"].reshape(-1)),
    "dense in float16": lambda t, m: t.update(dense=t["dense"].astype(np.float16)),
    "multi in float32": lambda t, m: t.update(multi=t["multi"].astype(np.float32)),
    "multi offsets fall": lambda t, m: change(t, "multi.offsets", 2, 99),
    "multi offsets begin late": lambda t, m: change(t, "multi.offsets", 0, 1),
    "multi offsets are negative": lambda t, m: change(t, "multi.offsets", 1, -1),
    "multi offsets end early": lambda t, m: change(t, "multi.offsets", -1, 3),
    "multi offsets too few": lambda t, m: drop_row(t, "multi.offsets"),
    "no dense": lambda t, m: t.pop("dense"),
    "no texts": lambda t, m: t.pop("texts"),
    "no multi offsets": lambda t, m: t.pop("multi.offsets"),
    "no tokens": lambda t, m: t.pop("lexical.0.tokens"),
    "a tensor too many": lambda t, m: t.update(other=np.zeros(3, np.float32)),
    "a segment too many": lambda t, m: t.update({"lexical.7.tokens": np.zeros(0, np.int32)}),
    "an id twice": lambda t, m: put_strings(t, "ids", ["a"] * 43),
    "too few ids": lambda t, m: put_strings(t, "ids", strings(t, "ids")[:-1]),
    "too many texts": lambda t, m: put_strings(t, "texts", [*strings(t, "texts"), "more"]),
    "texts that are no UTF-8": lambda t, m: put_strings(t, "texts", [b"\xff\xfe"] * 43),
    "texts with surrogates": lambda t, m: put_strings(t, "texts", [b"\xed\xa0\x80"] * 43),
    "ids that are no UTF-8": lambda t, m: put_strings(t, "ids", [b"\x80%d" % i for i in range(43)]),
    "offsets of texts fall": lambda t, m: change(t, "texts.offsets", 3, 0),
    "offsets of ids begin late": lambda t, m: change(t, "ids.offsets", 0, 1),
    "metadata that are no JSON": lambda t, m: put_strings(t, "metadata", ["{"] * 43),
    "metadata that are a list": lambda t, m: put_strings(t, "metadata", ["[]"] * 43),
    "metadata that nest deeply": lambda t, m: put_strings(t, "metadata", ["[" * 99_999] * 43),
    "a long number": lambda t, m: put_strings(t, "metadata", ['{"a":' + "9" * 5000 + "}"] * 43),
    "negative weights": lambda t, m: change(t, "lexical.0.weights", 0, -1),
    "weights of 0": lambda t, m: change(t, "lexical.1.weights", 0, 0),
    "weights that are nan": lambda t, m: change(t, "lexical.0.weights", 1, np.nan),
    "infinite weights": lambda t, m: change(t, "lexical.0.weights", 1, np.inf),
    "tokens out of order": lambda t, m: change(t, "lexical.0.tokens", 0, 2**31 - 1),
    "negative tokens": lambda t, m: change(t, "lexical.1.tokens", 0, -5),
    "rows beyond the documents": lambda t, m: change(t, "lexical.0.rows", 0, 39),
    "negative rows": lambda t, m: change(t, "lexical.0.rows", 0, -1),
    "rows out of order": lambda t, m: t.update(
        {"lexical.0.rows": t["lexical.0.rows"][::-1].copy()}
    ),
    "rows twice": lambda t, m: t.update({"lexical.0.rows": t["lexical.0.rows"] * 0}),
    "posting lists too short": lambda t, m: drop_row(t, "lexical.0.weights"),
    "offsets of lists fall": lambda t, m: change(t, "lexical.0.offsets", 1, 999),
    "a column too short": lambda t, m: t.update({"lexical.0.column.5": np.zeros(3, np.float32)}),
    "a column of no token": lambda t, m: t.update({"lexical.0.column.x": np.ones(39, np.float32)}),
    "a column that is negative": lambda t, m: t.update(
        {"lexical.0.column.5": np.full(39, -1, np.float32)}
    ),
    "a column beside a list": lambda t, m: t.update(
        {f"lexical.0.column.{t['lexical.0.tokens'][0]}": np.ones(39, np.float32)}
    ),
    "a column of a token beyond 32 bits": lambda t, m: t.update(
        {f"lexical.0.column.{2**31}": np.ones(39, np.float32)}
    ),
    "an empty segment": lambda t, m: m.update(segments="[0, 43]"),
    "a negative segment": lambda t, m: m.update(segments="[44, -1]"),
    "segments of other sizes": lambda t, m: m.update(segments="[38, 5]"),
    "segments that are no numbers": lambda t, m: m.update(segments="[39.0, 4]"),
    "segments that are none": lambda t, m: m.update(segments="7"),
    "fewer documents": lambda t, m: m.update(documents="42", segments="[38, 4]"),
    "documents that are no number": lambda t, m: m.update(documents="many"),
    "no documents": lambda t, m: m.update(documents="0", segments="[]"),
    "no fingerprint": lambda t, m: m.pop("fingerprint"),
    "another fingerprint": lambda t, m: m.update(fingerprint="fake-0"),
    "other parts": lambda t, m: m.update(parts='["dense"]'),
    "parts that are none": lambda t, m: m.update(parts="null"),
    "no version": lambda t, m: m.pop("version"),
    "another version": lambda t, m: m.update(version="2"),
    "another format": lambda t, m: m.update(format="m3-lexical-index"),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_files_with_valid_checksums(saved, name) -> None:
    path, metadata, tensors = saved
    CRAFTED[name](tensors, metadata)
    write_tensors(path, metadata, tensors)
    with pytest.raises(IndexFileError):
        DocumentCollection.load(path, view())


def test_a_file_of_parts_of_two_is_refused(tmp_path) -> None:
    path, made = tmp_path / "saved", []
    for texts in (["panda bear", "river city"], ["river city", "panda bear"]):
        collection = DocumentCollection(view())
        collection.add(texts, ids=["a", "b"])
        collection.save(path)
        made.append(path.read_bytes())
    first, second = made
    assert len(first) == len(second)
    length = 8 + int.from_bytes(first[:8], "little")
    place = first.index(b"panda bear")
    for mixed in (
        first[:length] + second[length:],
        first[:place] + second[place : place + 20] + first[place + 20 :],
    ):
        assert mixed not in made
        path.write_bytes(mixed)
        with pytest.raises(IndexFileError, match="checksum"):
            DocumentCollection.load(path, view())


def test_changed_bytes_and_cuts_are_found(saved) -> None:
    path, _, _ = saved
    whole, chance = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[chance.integers(len(whole))] ^= 1 << int(chance.integers(8))
        cut = whole[: chance.integers(len(whole))]
        for content in (damaged, cut):
            path.write_bytes(content)
            with pytest.raises(IndexFileError):
                DocumentCollection.load(path, view())


class Odd(str):
    __slots__ = ()

    def __hash__(self) -> int:
        return 7


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ({1: "one"}, "the key 1 of type int"),
        ({"1": "a", 1: "b"}, "the key 1 of type int"),
        ({"a": [{"b": {None: 1}}]}, "the key None of type NoneType under 'b' under 'a'"),
        ({True: 1}, "the key True of type bool"),
        ({Odd("red"): 1, "red": 2}, "of type Odd"),
        ({"t": (1, 2)}, r"the tuple \(1, 2\) under 't'"),
        ({"a": {"b": [[], ()]}}, r"the tuple \(\) under 'b' under 'a'"),
        ({"s": {1, 2}}, "JSON has no builtins.set.*under 's'"),
        ({"b": b"x"}, "JSON has no builtins.bytes"),
        ({"n": np.int64(3)}, "JSON has no numpy.int64"),
        ({"n": 10**5000}, "digits"),
    ],
)
def test_metadata_that_would_change_are_refused_before_anything_is_written(
    saved, metadata, named
) -> None:
    path, _, _ = saved
    before = path.read_bytes()
    collection = DocumentCollection(view())
    collection.add(["panda", "bear"], [{}, metadata], ["fine", "wrong"])
    with pytest.raises(TypeError, match=f"document 'wrong' cannot be saved: .*{named}"):
        collection.save(path)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_metadata_come_back_as_they_were(tmp_path) -> None:
    kept = {
        "big": 2**200,
        "small": -(10**400),
        "float": 0.1 + 0.2,
        "zero": -0.0,
        "none": None,
        "deep": [{"": [True, False, 1, 1.0, "1"]}],
        "text": 'é漢\u2028\n"\\\ud800 \ud83d\ude00 😀',
        "infinite": [math.inf, -math.inf],
        "half": np.float64(0.5),
    }
    collection = DocumentCollection(view(("sparse",)))
    collection.add(["panda"], [{**kept, "nan": math.nan}], ["a"])
    collection.save(tmp_path / "saved")
    ((_, _, found),) = DocumentCollection.load(tmp_path / "saved", view(("sparse",))).get(["a"])
    assert math.isnan(found.pop("nan"))
    assert found == kept
    assert repr(found["zero"]) == "-0.0"
    assert [type(one) for one in found["deep"][0][""]] == [bool, bool, int, float, str]


def test_ids_of_all_kinds_and_no_documents_survive(tmp_path) -> None:
    ids = ["", "\n", "漢字", "\ud800", "null", "x" * 10_000]
    for parts in (PARTS, ("sparse",), ("dense",)):
        collection = DocumentCollection(view(parts))
        collection.save(tmp_path / "new folder" / "saved")
        assert DocumentCollection.load(tmp_path / "new folder" / "saved", view(parts)).ids() == []
        collection.add(["panda"] * len(ids), ids=ids)
        collection.save(tmp_path / "saved")
        assert DocumentCollection.load(tmp_path / "saved", view(parts)).ids() == ids
