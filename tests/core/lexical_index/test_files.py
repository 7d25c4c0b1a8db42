from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from safetensors import safe_open
from tests.core.lexical_index.index_data import STEPS, TEXTS, apply, brute_force, synthetic

from m3_core import LexicalIndex
from m3_core.errors import IndexFileError
from m3_core.files import write_tensors


def test_saves_and_loads_everything(large, tmp_path):
    index, _ = large
    index.save(tmp_path / "index")
    loaded = LexicalIndex.load(tmp_path / "index", fingerprint="model a")
    assert loaded.ids == index.ids
    assert loaded.fingerprint == "model a"
    for query in synthetic(5, seed=1)[1]:
        assert loaded.search(query, 50) == index.search(query, 50)
    loaded.delete(["doc 3"])
    loaded.add(["doc 4", "new"], [{1: 0.5}, {1: 1.0}])
    assert len(loaded) == 5000
    assert "doc 3" not in loaded
    assert loaded.ids[-2:] == ["doc 4", "new"]


@settings(max_examples=30)
@given(STEPS, TEXTS)
def test_a_loaded_index_is_the_saved_one(tmp_path_factory, steps, query):
    index, documents = apply(steps)
    path = tmp_path_factory.mktemp("index") / "index"
    index.save(path)
    loaded = LexicalIndex.load(path)
    assert loaded.fingerprint is None
    assert loaded.ids == list(documents)
    assert loaded.search(query, 40) == brute_force(documents, query, 40)
    assert [entry.name for entry in path.parent.iterdir()] == ["index"]


def test_ids_of_all_kinds_survive(tmp_path):
    ids = ["", "\n", "a\u2028b\r\n", "漢字", "\ud800", '"', "null", "x" * 10_000]
    index = LexicalIndex()
    index.add([*ids, "dead"], [{1: 0.5}] * (len(ids) + 1))
    index.delete(["dead"])
    index.save(tmp_path / "index")
    assert LexicalIndex.load(tmp_path / "index").ids == ids


def test_the_file_is_a_safetensors_file(large, tmp_path):
    from safetensors.numpy import load_file

    index, documents = large
    index.save(tmp_path / "index")
    tensors = load_file(tmp_path / "index")
    lists = sum(len(array) for name, array in tensors.items() if name.endswith("rows"))
    columns = sum(
        int(np.count_nonzero(array)) for name, array in tensors.items() if ".column." in name
    )
    assert lists + columns == sum(map(len, documents.values()))


def test_another_fingerprint_is_refused(tmp_path):
    LexicalIndex("model a").save(tmp_path / "a")
    LexicalIndex().save(tmp_path / "none")
    assert LexicalIndex.load(tmp_path / "a").fingerprint == "model a"
    with pytest.raises(IndexFileError, match="'model a', expected was 'model b'"):
        LexicalIndex.load(tmp_path / "a", "model b")
    with pytest.raises(IndexFileError, match="None, expected was 'model b'"):
        LexicalIndex.load(tmp_path / "none", "model b")


def test_a_file_cut_anywhere_is_refused(tmp_path):
    index = LexicalIndex()
    index.add(["a", "b"], [{1: 0.5}, {2: 0.5, 3: 0.25}])
    index.save(tmp_path / "index")
    whole = (tmp_path / "index").read_bytes()
    cut = tmp_path / "cut"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(IndexFileError, match="cut or damaged"):
            LexicalIndex.load(cut)
    cut.write_bytes(whole + b"x")
    with pytest.raises(IndexFileError, match="damaged"):
        LexicalIndex.load(cut)


def test_a_changed_byte_of_the_data_is_found(tmp_path):
    index = LexicalIndex()
    index.add(["a", "b"], [{1: 0.5}, {2: 0.5, 3: 0.25}])
    index.save(tmp_path / "index")
    whole = (tmp_path / "index").read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for position in range(start, len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 16
        (tmp_path / "index").write_bytes(damaged)
        with pytest.raises(IndexFileError, match="checksum"):
            LexicalIndex.load(tmp_path / "index")


def test_foreign_files_are_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, tmp_path / "tensors")
    (tmp_path / "text").write_text("some text that is no index at all" * 10)
    header = json.dumps([1, 2]).encode()
    (tmp_path / "list").write_bytes(len(header).to_bytes(8, "little") + header)
    for name in ("tensors", "text", "list"):
        with pytest.raises(IndexFileError, match="no lexical index"):
            LexicalIndex.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        LexicalIndex.load(tmp_path / "absent")


def test_a_later_format_is_refused_by_its_version(tmp_path):
    from safetensors.numpy import save_file

    save_file({}, tmp_path / "index", {"format": "m3-lexical-index", "version": "9"})
    with pytest.raises(IndexFileError, match="format '9'"):
        LexicalIndex.load(tmp_path / "index")


def test_a_full_disk_leaves_the_old_index_and_no_debris(tmp_path):
    index = LexicalIndex()
    index.add(["old"], [{1: 0.5}])
    index.save(tmp_path / "index")
    script = """
import resource, sys
from m3_core import LexicalIndex
index = LexicalIndex()
index.add([str(n) for n in range(5000)], [{n: 0.5} for n in range(5000)])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    index.save(sys.argv[1])
except OSError as error:
    sys.exit(7)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "index")], check=False)
    assert done.returncode == 7
    assert [entry.name for entry in tmp_path.iterdir()] == ["index"]
    assert LexicalIndex.load(tmp_path / "index").ids == ["old"]


def test_saving_through_a_link_replaces_what_it_points_to(tmp_path):
    (tmp_path / "real").mkdir()
    LexicalIndex("one").save(tmp_path / "real" / "index")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "index")
    LexicalIndex("two").save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert LexicalIndex.load(tmp_path / "real" / "index").fingerprint == "two"


def test_any_changed_byte_is_found_or_changes_nothing(tmp_path):
    index = LexicalIndex("a model")
    index.add(["a", "b"], [{1: 0.5}, {2: 0.5, 3: 0.25}])
    index.save(tmp_path / "index")
    whole = (tmp_path / "index").read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for _ in range(3000):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        (tmp_path / "index").write_bytes(damaged)
        try:
            loaded = LexicalIndex.load(tmp_path / "index", "a model")
        except IndexFileError:
            refused += 1
        else:
            assert loaded.search({1: 1.0, 2: 0.5}, 9) == index.search({1: 1.0, 2: 0.5}, 9)
    assert refused > 2500


def test_the_file_has_the_mode_of_any_other_file(tmp_path):
    (tmp_path / "other").touch()
    LexicalIndex().save(tmp_path / "index")
    assert (tmp_path / "index").stat().st_mode == (tmp_path / "other").stat().st_mode


CRAFTED = {
    "negative weights": ("0.weights", lambda one: -one),
    "weights that are nan": ("0.weights", lambda one: one * np.float32("nan")),
    "weights too few": ("0.weights", lambda one: one[:-1]),
    "weights of another type": ("0.weights", lambda one: one.astype(np.float16)),
    "rows beyond the documents": ("0.rows", lambda one: one + 5000),
    "rows out of order": ("0.rows", lambda one: one[::-1].copy()),
    "tokens out of order": ("0.tokens", lambda one: one[::-1].copy()),
    "negative tokens": ("0.tokens", lambda one: one - 9999),
    "offsets fall": ("0.offsets", lambda one: np.append(one[:-2], [0, one[-1]])),
    "offsets begin late": ("0.offsets", lambda one: np.append([1], one[1:])),
    "an id twice": ("0.ids", lambda one: one * 0 + 65),
    "ids that are no UTF-8": ("0.ids", lambda one: one * 0 + 255),
    "offsets of ids fall": ("0.ids.offsets", lambda one: one[::-1].copy()),
    "more ids than rows": ("0.ids.offsets", lambda one: np.append(one, one[-1])),
    "a tensor too many": ("other", None),
    "another segment": ("1.tokens", None),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_files_with_valid_checksums(large, tmp_path, name):
    index, _ = large
    path = tmp_path / "index"
    index.save(path)
    with safe_open(path, "numpy") as file:
        tensors = {one: file.get_tensor(one) for one in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata())
    for one in ("checksum", "checksums"):
        del metadata[one]
    assert any(".column." in one for one in tensors)
    where, change = CRAFTED[name]
    tensors[where] = np.zeros(3, np.float32) if change is None else change(tensors[where])
    write_tensors(path, metadata, tensors)
    with pytest.raises(IndexFileError, match="no lexical index, cut or damaged"):
        LexicalIndex.load(path)


def test_wrong_columns_are_refused(large, tmp_path):
    index, _ = large
    index.save(tmp_path / "index")
    with safe_open(tmp_path / "index", "numpy") as file:
        tensors = {one: file.get_tensor(one) for one in file.keys()}  # noqa: SIM118
        metadata = {one: file.metadata()[one] for one in ("format", "version", "segments")}
    name = next(one for one in tensors if ".column." in one)
    prefix = name.split("column.")[0]
    listed = f"{prefix}column.{tensors[f'{prefix}tokens'][0]}"
    whole = tensors[name]
    for other, column in (
        (name, whole[:-1]),
        (name, -whole),
        (name, np.full_like(whole, np.inf)),
        (f"{prefix}column.x", whole),
        (f"{prefix}column.{2**31}", whole),
        (listed, whole),
    ):
        write_tensors(tmp_path / "index", metadata, {**tensors, other: column})
        with pytest.raises(IndexFileError):
            LexicalIndex.load(tmp_path / "index")


def test_what_killed_savers_left_goes_with_the_next_save_or_load(tmp_path):
    index = LexicalIndex()
    for act in (
        lambda: index.save(tmp_path / "index"),
        lambda: LexicalIndex.load(tmp_path / "index"),
    ):
        (tmp_path / ".index.0123456789abcdef.tmp").write_bytes(b"cut")
        act()
        assert [one.name for one in tmp_path.iterdir()] == ["index"]
