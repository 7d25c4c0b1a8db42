import errno
import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from m3_core.errors import FilterError, IndexFileError
from m3_core.folder_index import FolderIndex, ReadingOptions, SavedSettings, updating
from m3_core.testing import FakeEncoder

TEXTS = {
    "faq.md": "# Questions\n\nHow to cook rice?\n\n## Tea\n\nHow to brew green tea.\n",
    "notes/river.txt": "Rivers flow into the sea.\n\nSalt is white.\n",
    "notes/page.html": "<title>Bears</title><script>no</script><p>Pandas eat <b>bamboo</b>.</p>",
    "data.jsonl": '{"text": "Stars shine.", "year": 2020, "path": "own"}\n{"title": "Moon", '
    '"text": "The moon is bright.", "year": 2021}\n',
}


@pytest.fixture
def folder(tmp_path):
    docs = tmp_path / "docs"
    for name, text in TEXTS.items():
        (docs / name).parent.mkdir(parents=True, exist_ok=True)
        (docs / name).write_text(text, "utf-8")
    return docs


def make(path, encoder=None, **settings):
    return FolderIndex.create(
        path, SavedSettings(model="fake", **settings), encoder or FakeEncoder()
    )


def contents(index):
    records = index.collection.get(index.collection.ids())
    return {one: (text, metadata) for one, text, metadata in records}


def encoded(encoder):
    return sum(count for role, count in encoder.calls if role == "document")


def reasons(report, folder):
    return {os.path.relpath(one.path, folder): one.reason for one in report.skipped}


def test_all_formats_are_found_with_headings_lines_and_metadata(tmp_path, folder):
    index = make(tmp_path / "index")
    report = index.update([str(folder)])
    assert (report.added, report.files, report.passages, report.skipped) == (4, 4, 6, [])
    (tea,) = index.search("green tea", 1)
    assert tea.metadata["heading"] == "Questions > Tea"
    assert (tea.metadata["path"], tea.metadata["line"]) == ("faq.md", 7)
    (panda,) = index.search("bamboo", 1, representation="sparse")
    assert (panda.text, panda.metadata["format"]) == ("Bears\n\nPandas eat bamboo.", "html")
    (moon,) = index.search("stars and moon", 5, where={"year": {"$gt": 2020}})
    assert (moon.metadata["heading"], moon.metadata["line"]) == ("Moon", 2)
    (star,) = index.search("stars", 5, where={"jsonl.path": "own"})
    assert star.metadata["path"] == "data.jsonl"
    with pytest.raises(FilterError):
        index.search("stars", 5, where={"year": {"$near": 1}})


def test_an_update_encodes_only_what_has_changed(tmp_path, folder):
    encoder = FakeEncoder()
    index = make(tmp_path / "index", encoder)
    index.update([str(folder)])
    before = encoded(encoder)
    report = index.update()
    assert (report.unchanged, report.encoded, encoded(encoder)) == (4, 0, before)
    (folder / "notes" / "river.txt").write_text("Rivers flow to the ocean.", "utf-8")
    (folder / "data.jsonl").unlink()
    (folder / "new.md").write_text("New.", "utf-8")
    report = FolderIndex(tmp_path / "index", encoder).update([str(folder)])
    assert (report.added, report.changed, report.removed, report.unchanged) == (1, 1, 1, 2)
    assert encoded(encoder) == before + 2
    fresh = make(tmp_path / "fresh")
    fresh.update([str(folder)])
    assert contents(FolderIndex(tmp_path / "index", encoder)) == contents(fresh)


def test_files_outside_what_is_asked_for_stay(tmp_path, folder):
    index = make(tmp_path / "index")
    index.update([str(folder)])
    (folder / "faq.md").unlink()
    report = index.update([str(folder / "notes")])
    assert (report.unchanged, report.removed, report.passages) == (2, 0, 6)
    report = index.update([str(folder / "notes"), str(folder)])
    assert (report.files, report.removed, report.passages) == (3, 1, 4)


@pytest.mark.parametrize("at", [1, 3, 6])
def test_what_was_interrupted_goes_on_and_comes_out_the_same(tmp_path, folder, monkeypatch, at):
    monkeypatch.setattr(updating, "CHUNK_CHARACTERS", 20)
    monkeypatch.setattr(updating, "LARGEST_CHUNK", 20)
    (folder / "long.txt").write_text("\n\n".join(f"Line {i} " * 60 for i in range(8)), "utf-8")
    encoder = FakeEncoder()
    index = make(tmp_path / "index", encoder, tokens=64)
    add, calls = index.collection.add, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == at:
            raise KeyboardInterrupt
        return add(*arguments)

    monkeypatch.setattr(index.collection, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index.update([str(folder)])
    first = encoded(encoder)
    again = FolderIndex(tmp_path / "index", encoder)
    assert len(again) == first
    report = again.update([str(folder)])
    assert report.encoded == len(again) - first
    fresh = make(tmp_path / "fresh", tokens=64)
    fresh.update([str(folder)])
    assert contents(again) == contents(fresh)


def test_a_changed_file_interrupted_between_adding_and_removing_is_put_right(
    tmp_path, folder, monkeypatch
):
    index = make(tmp_path / "index")
    index.update([str(folder)])
    (folder / "faq.md").write_text("Short.", "utf-8")

    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(index.collection, "delete", stop)
    with pytest.raises(KeyboardInterrupt):
        index.update([str(folder)])
    again = FolderIndex(tmp_path / "index", FakeEncoder())
    assert len(again) == 6
    report = again.update()
    assert (len(again), report.encoded) == (5, 0)


def test_what_cannot_be_read_is_told_by_name(tmp_path, folder):
    data = {
        "binary.txt": b"\x00\x01\x02",
        "latin.txt": "déjà vu".encode("latin-1"),
        "utf16.txt": "Wide letters.".encode("utf-16"),
        "empty.md": b"",
        "blank.txt": b" \n\n\t\n",
        "paper.pdf": b"%PDF-1.4",
        "bad.jsonl": b'{"text": "Good line."}\nnot json\n["text"]\n{"text": "\\ud800"}\n{"a": 1}\n',
        "bad.html": b"<![foo[x",
        "large.txt": b"x" * 3000,
        ".hidden.txt": b"secret",
        "code.py": b"print()",
        os.fsdecode(b"name-\xff.txt"): b"name",
    }
    for name, content in data.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.txt")
    (folder / "loop.txt").symlink_to("loop.txt")
    (folder / "up").symlink_to(folder)
    (folder / "gone.txt").symlink_to("nowhere")
    # Regular, but reading it fails whoever one is.
    (folder / "memory.txt").symlink_to("/proc/self/mem")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / "socket.txt"))
    index = make(tmp_path / "index")
    report = index.update([str(folder)], reading=ReadingOptions(max_bytes=2000))
    server.close()
    found = reasons(report, folder)
    assert found == {
        ".hidden.txt": "hidden",
        "bad.html": found["bad.html"],
        "bad.jsonl": found["bad.jsonl"],
        "binary.txt": "binary",
        "blank.txt": "no text in it",
        "code.py": ".py files are not read without --include",
        "empty.md": "no text in it",
        "gone.txt": f"cannot be read: {os.strerror(errno.ENOENT)}",
        "large.txt": "3,000 bytes are more than --max-bytes 2,000",
        "latin.txt": "not UTF-8 (byte 0xe9 in line 1): use --encoding",
        "loop.txt": f"cannot be read: {os.strerror(errno.ELOOP)}",
        "memory.txt": f"cannot be read: {os.strerror(errno.EIO)}",
        "name-\\udcff.txt": "its name is not UTF-8",
        "paper.pdf": ".pdf files are not read without --include",
        "pipe.txt": "a pipe, no regular file",
        "socket.txt": "a socket, no regular file",
        "up": "a link to a folder, which is not followed",
    }
    assert "it is no HTML that can be read" in found["bad.html"]
    assert found["bad.jsonl"].startswith("line 2: not JSON")
    assert "line 4: half of a surrogate pair" in found["bad.jsonl"]
    assert found["bad.jsonl"].endswith("and 1 more lines")
    assert {"utf16.txt", "bad.jsonl"} <= {one["path"] for _, one in contents(index).values()}
    options = ReadingOptions(encoding="latin-1", include=("*.py",), hidden=True, exclude=("notes",))
    report = index.update(reading=options)
    told = reasons(report, folder)
    assert told["notes"] == "excluded"
    assert not {"latin.txt", "code.py", ".hidden.txt", "large.txt"} & told.keys()
    assert report.removed == 2


def test_a_huge_line_and_every_long_text_are_cut_below_the_limit(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "line.txt").write_text("x" * 100_000 + " end", "utf-8")
    (tmp_path / "docs" / "words.md").write_text("# Head\n\n" + "Some words. " * 3000, "utf-8")
    (tmp_path / "docs" / "chinese.txt").write_text("大熊猫吃竹子。" * 2000, "utf-8")
    index = make(tmp_path / "index", tokens=64)
    index.update([str(tmp_path / "docs")])
    stored = contents(index).values()
    sizes = {"line.txt": 100_004, "words.md": 36_000, "chinese.txt": 14_000}
    for name, size in sizes.items():
        own = [text for text, metadata in stored if metadata["path"] == name]
        bodies = [text.removeprefix("Head\n\n") for text in own]
        # Nothing is lost but white space between passages.
        assert size - len(own) - 1 <= sum(map(len, bodies)) <= size
        assert max(map(len, own)) < 64 * 5


def test_files_that_cannot_be_read_now_keep_what_they_said(tmp_path, folder):
    index = make(tmp_path / "index")
    index.update([str(folder)])
    (folder / "faq.md").unlink()
    (folder / "faq.md").symlink_to("/proc/self/mem")
    report = index.update()
    assert (report.removed, report.passages) == (0, 6)
    assert "cannot be read" in reasons(report, folder)["faq.md"]


def test_the_index_inside_its_folder_is_no_source_of_itself(tmp_path, folder):
    index = make(folder / "index")
    assert index.update([str(folder)]).files == 4
    assert index.update().unchanged == 4


def test_another_model_and_other_folders_are_refused(tmp_path, folder):
    make(tmp_path / "index").update([str(folder)])
    with pytest.raises(IndexFileError, match="was made with the model 'fake'"):
        FolderIndex(tmp_path / "index", FakeEncoder(dimension=16))
    with pytest.raises(FileExistsError, match="is there already"):
        make(folder)
    with pytest.raises(IndexFileError, match="is no index"):
        FolderIndex(folder, FakeEncoder())
    with pytest.raises(FileNotFoundError, match="there is no index"):
        FolderIndex(tmp_path / "none", FakeEncoder())
    with pytest.raises(ValueError, match="they can have 16 to 28"):
        make(tmp_path / "short", FakeEncoder(max_length=32))
    index = FolderIndex(tmp_path / "index", FakeEncoder())
    with pytest.raises(ValueError, match="no colbert"):
        index.search("x", representation="colbert")
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        index.update([str(tmp_path / "nowhere")])
    assert len(index) == 6
    for damage in ("{", "[]", json.dumps({"format": "other", "version": 1, "reading": {}})):
        (tmp_path / "index" / "index.json").write_text(damage)
        with pytest.raises(IndexFileError, match="is not readable as an index"):
            SavedSettings.load(tmp_path / "index")


def test_two_updates_at_once_are_refused_and_none_undoes_the_other(tmp_path, folder):
    index = make(tmp_path / "index")
    other = FolderIndex(tmp_path / "index", FakeEncoder())
    refused = []

    def also(_):
        with pytest.raises(BlockingIOError, match="another process is at work"):
            other.update([str(folder)])
        refused.append(True)

    index.update([str(folder / "notes")], on_progress=also)
    assert refused
    # It was opened before the others were there.
    assert other.update([str(folder / "faq.md")]).passages == 4


def test_multi_vectors_are_stored_where_they_are_asked_for(tmp_path, folder):
    index = make(tmp_path / "index", parts=("dense", "sparse", "colbert"))
    index.update([str(folder)])
    for representation in ("dense", "sparse", "colbert", "hybrid"):
        (best,) = index.search("Pandas eat bamboo", 1, representation=representation)
        assert best.metadata["path"] == "notes/page.html"
    assert set(best.scores) == {"dense", "sparse", "colbert"}


def test_standard_input_is_one_document_that_is_replaced(tmp_path):
    index = make(tmp_path / "index")
    reading = ReadingOptions(format="markdown")
    for text in ("# A\n\nFirst.", "# B\n\nSecond."):
        index.update(["-"], reading=reading, stdin=text.encode)
    ((text, metadata),) = contents(index).values()
    assert (text, metadata["root"]) == ("B\n\nSecond.", "")


def test_what_a_first_run_left_that_was_killed_at_once_is_no_hindrance(tmp_path, folder):
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / f".index.json.{'0' * 16}.tmp").touch()
    index = make(tmp_path / "index")
    assert index.update([str(folder)]).files == 4
    assert {one.name for one in index.folder.iterdir()} == {"documents.m3", "index.json"}


def test_an_empty_folder_makes_an_index_without_passages(tmp_path):
    (tmp_path / "docs").mkdir()
    index = make(tmp_path / "index")
    assert index.update([str(tmp_path / "docs")]).passages == 0
    assert FolderIndex(tmp_path / "index", FakeEncoder()).search("x") == []
    shutil.rmtree(tmp_path / "docs")


def test_a_file_has_one_path_whatever_it_was_found_from(tmp_path, folder):
    encoder = FakeEncoder()
    index = make(tmp_path / "index", encoder)
    index.update([str(folder / "notes" / "river.txt")])
    index.update([str(folder)])
    (river,) = index.search("rivers", 1, where={"path": "notes/river.txt"})
    assert river.metadata["root"] == folder.as_posix()
    before, known = encoded(encoder), contents(index)
    for sources in ((), [str(folder / "notes")], [str(folder / "notes" / "river.txt")]):
        index.update(sources)
        assert (encoded(encoder), contents(index)) == (before, known)


def test_options_that_a_file_is_not_read_by_do_not_encode_it_anew(tmp_path, folder):
    (folder / "old.txt").write_bytes("Größe\n".encode("latin-1"))
    index = make(tmp_path / "index")
    index.update([str(folder)])
    report = index.update(reading=ReadingOptions(encoding="latin-1"))
    assert (report.added, report.changed, report.unchanged) == (1, 0, 4)
    report = index.update(reading=ReadingOptions(encoding="latin-1", text_field="title"))
    assert (report.added, report.changed, report.unchanged) == (0, 1, 4)
    report = index.update(reading=ReadingOptions(encoding="cp1252"))
    assert (report.changed, report.unchanged) == (2, 3)


def test_files_nobody_may_look_at_now_keep_what_they_said(tmp_path, folder, monkeypatch):
    index = make(tmp_path / "index")
    index.update([str(folder)])
    before, inner = contents(index), Path.stat

    def denied(self, **options):
        # As in a folder that may be listed and not entered; the tests may run as root.
        if self.parent.name == "notes":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return inner(self, **options)

    monkeypatch.setattr(Path, "stat", denied)
    report = index.update()
    assert (report.removed, contents(index)) == (0, before)
    assert reasons(report, folder)["notes/river.txt"] == "cannot be read: Permission denied"


def test_what_was_read_in_part_is_told_as_that(tmp_path, folder):
    with (folder / "data.jsonl").open("a") as file:
        file.write("no JSON\n")
    (folder / "other.jsonl").write_text("no JSON\n")
    report = make(tmp_path / "index").update([str(folder)])
    assert {Path(one.path).name: one.in_part for one in report.skipped} == {
        "data.jsonl": True,
        "other.jsonl": False,
    }


def test_what_another_process_made_meanwhile_is_kept(tmp_path, folder):
    make(tmp_path / "index")
    with pytest.raises(FileExistsError, match="just been made by another process: run it again"):
        make(tmp_path / "index")
    first = FolderIndex(tmp_path / "index", FakeEncoder())
    first.update([str(folder / "faq.md")])
    second = FolderIndex(tmp_path / "index", FakeEncoder())
    (folder / "empty").mkdir()
    # It changes the settings, and no passage.
    second.update([str(folder / "empty")])
    first.update([str(folder / "notes")])
    known = SavedSettings.load(tmp_path / "index").sources
    assert {Path(one).name for one in known} == {"faq.md", "empty", "notes"}


@pytest.mark.parametrize(
    ("name", "value"), [("sources", [5]), ("tokens", "x"), ("version", 2), ("reading", {})]
)
def test_settings_of_another_kind_are_refused(tmp_path, name, value):
    make(tmp_path / "index")
    path = tmp_path / "index" / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(IndexFileError, match="not readable as an index's settings"):
        SavedSettings.load(tmp_path / "index")


def test_a_full_disk_is_named(tmp_path, folder, monkeypatch):
    index = make(tmp_path / "index")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        index.update([str(folder)])
    assert caught.value.filename == str(tmp_path / "index" / "index.json")
