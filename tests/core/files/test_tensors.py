from __future__ import annotations

import fcntl
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from m3_core.errors import IndexFileError
from m3_core.files import (
    TensorParts,
    open_tensors,
    packed_strings,
    remove_leftovers,
    replacing_file,
    unpacked_strings,
    write_tensors,
)

HEAD = {"format": "f", "version": "1", "note": 'a "checksum":"00000000" of its own'}
WHOLE = np.arange(12, dtype=np.float32).reshape(4, 3)


def write(path) -> None:
    tensors = {
        "bytes": np.arange(5, dtype=np.uint8),
        "whole": WHOLE,
        "parts": TensorParts(np.float16, (4, 3), iter([WHOLE[:1], WHOLE[1:1], WHOLE[1:]])),
        "empty": np.zeros((0, 7), np.int64),
        "numbers": np.arange(3, dtype=np.int32),
    }
    write_tensors(path, HEAD, tensors)


def reading(path):
    return open_tensors(path, "thing", "f", "1")


def test_what_is_written_is_read_and_safetensors_reads_it_too(tmp_path) -> None:
    write(tmp_path / "a")
    with reading(tmp_path / "a") as file:
        assert file.names == {"bytes", "whole", "parts", "empty", "numbers"}
        assert file.metadata["note"] == HEAD["note"]
        np.testing.assert_array_equal(file.read("whole", np.float32, (4, None)), WHOLE)
        parts = list(file.read_parts("parts", np.float16, (4, 3), [3, 0, 1]))
        assert [len(part) for part in parts] == [3, 0, 1]
        np.testing.assert_array_equal(np.concatenate(parts), WHOLE)
        assert file.read("empty", np.int64, (None, 7)).shape == (0, 7)
    found = load_file(tmp_path / "a")
    np.testing.assert_array_equal(found["parts"], WHOLE)
    assert found["bytes"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "rows", "error"),
    [
        ("other", np.float32, (4, 3), None, "other"),
        ("whole", np.float16, (4, 3), None, "float32"),
        ("whole", np.float32, (4,), None, "shape"),
        ("whole", np.float32, (5, None), None, "expected"),
        ("whole", np.float32, (4, 3), [1, 1], "not all"),
    ],
)
def test_what_is_not_as_expected_is_refused(tmp_path, name, dtype, shape, rows, error) -> None:
    write(tmp_path / "a")
    with (
        pytest.raises(IndexFileError, match=f"no thing, cut or damaged.*{error}"),
        reading(tmp_path / "a") as file,
    ):
        list(file.read_parts(name, dtype, shape, rows))


def read_all(path) -> None:
    with reading(path) as file:
        for name, dtype in (("bytes", np.uint8), ("whole", np.float32), ("parts", np.float16)):
            file.read(name, dtype, [None] * len(file.shape(name)))
        file.read("empty", np.int64, (None, None))
        file.read("numbers", np.int32, (None,))


def test_every_changed_byte_and_every_cut_is_found(tmp_path) -> None:
    path = tmp_path / "a"
    write(path)
    read_all(path)
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in (1, 128):
            damaged = bytearray(whole)
            damaged[position] ^= bit
            path.write_bytes(damaged)
            with pytest.raises(IndexFileError):
                read_all(path)
        path.write_bytes(whole[:position])
        with pytest.raises(IndexFileError):
            read_all(path)


def test_other_files_are_refused(tmp_path) -> None:
    path = tmp_path / "a"
    for content in (
        b"",
        b"x" * 7,
        b"\xff" * 300,
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (19).to_bytes(8, "little") + b'{"__metadata__":[]}',
        (27).to_bytes(8, "little") + b'{"__metadata__":{"a":null}}',
    ):
        path.write_bytes(content)
        with pytest.raises(IndexFileError), reading(path):
            pass
    save_file({}, path, {"format": "f", "version": "2"})
    with pytest.raises(IndexFileError, match="format '2'"), reading(path):
        pass
    with pytest.raises(IndexFileError, match="is a folder"), reading(tmp_path):
        pass
    with pytest.raises(FileNotFoundError), reading(tmp_path / "absent"):
        pass


def test_a_folder_in_the_place_of_the_file(tmp_path) -> None:
    with pytest.raises(IsADirectoryError, match="give the name of a file"):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_writers_that_are_gone_alone_are_removed(tmp_path) -> None:
    gone = tmp_path / ".a.0123456789abcdef.tmp"
    others = [
        tmp_path / name
        for name in (".b.0123456789abcdef.tmp", ".a.0123.tmp", "a.0123456789abcdef.tmp", "a")
    ]
    for one in (gone, *others):
        one.write_bytes(b"x")
    with replacing_file(tmp_path / "a") as file:
        (mine,) = set(tmp_path.iterdir()) - {gone, *others}
        assert not gone.exists()
        file.write(b"new")
        remove_leftovers(tmp_path / "a")
        assert mine.exists()
    assert set(tmp_path.iterdir()) == set(others)
    assert (tmp_path / "a").read_bytes() == b"new"
    held = tmp_path / ".a.fedcba9876543210.tmp"
    script = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX)"
    script += "; print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(held)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    remove_leftovers(tmp_path / "a")
    assert held.exists()
    holder.kill()
    holder.communicate()
    remove_leftovers(tmp_path / "a")
    assert not held.exists()


def test_a_leftover_that_is_no_file_stays_and_holds_nobody_up(tmp_path) -> None:
    os.mkfifo(tmp_path / ".a.0123456789abcdef.tmp")
    (tmp_path / "target").write_bytes(b"x")
    (tmp_path / ".a.0123456789abcde0.tmp").symlink_to(tmp_path / "target")
    write(tmp_path / "a")
    assert (tmp_path / "target").exists()


def test_who_removes_leftovers_may_come_before_the_lock(tmp_path, monkeypatch) -> None:
    flock, met = fcntl.flock, []

    def late(file, flags) -> None:
        if not met:
            met.append(True)
            remove_leftovers(tmp_path / "a")
        flock(file, flags)

    monkeypatch.setattr(fcntl, "flock", late)
    write(tmp_path / "a")
    read_all(tmp_path / "a")
    assert met


def test_strings_come_back_as_they_were() -> None:
    strings = ["", "a\n\0", "漢字", "\ud800", "\ud83d\ude00", "😀", "x" * 1000, ""]
    data, offsets = packed_strings(strings)
    assert unpacked_strings(data, offsets) == strings
    assert unpacked_strings(*packed_strings([])) == []
    for wrong in ([0, 1], [1, len(data)], [0, 5, 2, len(data)], []):
        with pytest.raises(ValueError, match="offsets"):
            unpacked_strings(data, np.array(wrong, np.int64))
    with pytest.raises(ValueError, match="decode"):
        unpacked_strings(data, np.array([0, 4, len(data)]))
