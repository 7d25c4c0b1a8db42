"""Encoded corpora in collections of memory and of Qdrant, and the commands."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.core.bulk.corpora import rows, write_lines
from typer.testing import CliRunner

from m3_core.bulk import EncodeOptions, encode_dataset, load_into_collection, load_into_qdrant
from m3_core.cli.main import app
from m3_core.collection import DocumentCollection
from m3_core.encoder import CachedEncoder
from m3_core.errors import DatasetError, IndexFileError, StoreError
from m3_core.stores.qdrant import Connection, Layout, Names, QdrantCollection, read_point
from m3_core.testing import FakeEncoder

ALL = ("dense", "sparse", "colbert")


@pytest.fixture
def corpus(tmp_path):
    source = write_lines(tmp_path / "corpus.jsonl", rows(60))
    return encode_dataset(
        source, tmp_path / "encoded", FakeEncoder(), EncodeOptions(shard_rows=25)
    ).folder


@pytest.mark.parametrize("parts", [("sparse",), ("dense", "sparse"), ALL])
def test_a_collection_is_as_if_it_was_encoded_there(tmp_path, corpus, parts):
    assert load_into_collection(corpus, tmp_path / "c", representations=parts) == 60
    encodings = CachedEncoder(FakeEncoder(), parts)
    loaded = DocumentCollection.load(tmp_path / "c", encodings)
    own = DocumentCollection(encodings)
    documents = rows(60)
    metadatas = [
        {k: v for k, v in d.items() if k not in ("id", "text") and v is not None} for d in documents
    ]
    own.add([d["text"] for d in documents], metadatas, [d["id"] for d in documents])
    for query in ("panda city", "river"):
        found = loaded.search(query, 7, where={"year": {"$gte": 1995}})
        expected = own.search(query, 7, where={"year": {"$gte": 1995}})
        assert [hit.id for hit in found] == [hit.id for hit in expected]
        assert [hit.metadata for hit in found] == [hit.metadata for hit in expected]
        assert [hit.score for hit in found] == pytest.approx([h.score for h in expected], abs=1e-5)
    # Of another model it is not opened.
    with pytest.raises(IndexFileError, match="another model"):
        DocumentCollection.load(tmp_path / "c", CachedEncoder(FakeEncoder(max_length=9), parts))


def test_qdrant_holds_what_was_encoded(tmp_path, corpus):
    for _ in range(2):
        # Twice is once.
        assert load_into_qdrant(corpus, "notes", path=str(tmp_path / "q")) == 60
    encoder = FakeEncoder()
    layout = Layout(encoder.dimension, encoder.colbert_dimension, "cosine", Names())
    connection = Connection("notes", layout, {"path": str(tmp_path / "q")}, None, None)
    store = QdrantCollection(encoder, connection)
    stored = [read_point(one, Names()) for one in store.scroll()]
    documents = {d["id"]: d for d in rows(60)}
    assert {one.id for one in stored} == documents.keys()
    assert all(one.text == documents[one.id]["text"] for one in stored)
    assert next(one for one in stored if one.id == "d7").metadata == {
        "year": 1997,
        "score": 0.875,
        "tags": ["panda"],
        "about": {"page": 7},
    }
    query = documents["d9"]["text"]
    assert read_point(store.search(query, 1)[0][0], Names()).id == "d9"
    connection.close()


def test_what_does_not_fit_is_not_loaded(tmp_path, corpus):
    other = FakeEncoder(document_instruction="other ")
    for load in (
        lambda **more: load_into_collection(corpus, tmp_path / "c", **more),
        lambda **more: load_into_qdrant(corpus, path=str(tmp_path / "q"), **more),
    ):
        with pytest.raises(DatasetError, match="another model or has other options"):
            load(encoder=other)
    assert not (tmp_path / "c").exists()
    assert not (tmp_path / "q").exists()
    with pytest.raises(DatasetError, match="is searched by one of"):
        load_into_collection(corpus, tmp_path / "c", representations=["dense"])
    with pytest.raises(ValueError, match="name a place"):
        load_into_qdrant(corpus)
    nobody = {"url": "http://127.0.0.1:9", "check_compatibility": False}
    with pytest.raises(StoreError, match=r"Qdrant at http://127\.0\.0\.1:9 cannot be reached"):
        load_into_qdrant(corpus, **nobody)
    load_into_qdrant(corpus, path=str(tmp_path / "q"))
    source = tmp_path / "corpus.jsonl"
    encode_dataset(source, tmp_path / "other", other)
    with pytest.raises(StoreError, match="holds documents encoded with"):
        load_into_qdrant(tmp_path / "other", path=str(tmp_path / "q"))
    bare = EncodeOptions(keep_text=False)
    encode_dataset(source, tmp_path / "bare", other, bare)
    with pytest.raises(DatasetError, match="without its texts"):
        load_into_collection(tmp_path / "bare", tmp_path / "c")
    next(corpus.glob("part-*")).unlink()
    with pytest.raises(DatasetError, match="lacks 1 of 3 files"):
        load_into_collection(corpus, tmp_path / "c")


def run(*arguments, **more):
    return CliRunner().invoke(app, [str(one) for one in arguments], **more)


def test_the_commands(tmp_path, tiny_m3):
    lines = (write_lines(tmp_path / "corpus.jsonl", rows(30))).read_bytes()
    out, model = tmp_path / "out", ["--model", tiny_m3]
    encode = ["encode", "-", out, *model, "--representations", "dense", "sparse"]
    found = run(*encode, "--shard-rows", "12", "--metadata-column", "year", "tags", input=lines)
    assert found.exit_code == 0, found.stderr
    said = json.loads(found.stdout)
    assert (said["documents"], said["files"], said["skipped"]) == (30, 3, 0)
    assert said["representations"] == ["dense", "sparse"]
    for to in (f"memory:{tmp_path / 'notes.m3'}", f"qdrant:{tmp_path / 'q'}"):
        found = run("load", out, "--to", to, *model)
        assert json.loads(found.stdout) == {"to": to, "documents": 30}, found.stderr
    for arguments, said in (
        (["load", out, "--to", "elsewhere:x"], "--to is 'elsewhere:x'"),
        (["load", tmp_path, "--to", "memory:x"], "holds no encoded corpus"),
        (["load", out, "--to", "memory:x", *model, "--max-length", "9"], "has other options"),
        (["encode", tmp_path / "none", out, *model], "there is no file"),
        ([*encode, "--shard-rows", "5"], "shard_rows was 12, now it is 5"),
        ([*encode, "--num-actors", "2"], "add --ray-address"),
        (["encode", "-", out], "name a model by --model"),
        (["encode", "-", out, "--base-url", "http://x", "--dtype", "int8"], "the server's own"),
        ([*encode, "--format", "xml"], "format must be one of"),
    ):
        found = run(*arguments, input=lines)
        assert (found.exit_code, found.stdout) == (2, ""), (arguments, found.stderr)
        assert said in " ".join(found.stderr.split()), arguments


def test_output_goes_into_pipes(tmp_path, tiny_m3):
    source = write_lines(tmp_path / "corpus.jsonl", rows(5))
    ends = f"{sys.executable} -m m3_core.cli.main encode - {tmp_path / 'out'} --model {tiny_m3}"
    found = subprocess.run(
        ["bash", "-c", f"set -o pipefail; cat {source} | {ends} | cat"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(found.stdout)["documents"] == 5
    assert "Traceback" not in found.stderr
    # Bars are for terminals.
    assert "%" not in found.stderr


WITHOUT = """
import sys
sys.modules["{absent}"] = None
from m3_core.cli.main import main
main({arguments})
"""


@pytest.mark.parametrize(
    ("absent", "extra", "arguments"),
    [
        ("pyarrow", "bulk", ["encode", "{source}", "{out}", "--model", "m"]),
        ("ray", "ray", ["encode", "{source}", "{out}", "--model", "m", "--ray-address", "local"]),
        ("qdrant_client", "qdrant", ["load", "{encoded}", "--to", "qdrant:{out}"]),
    ],
)
def test_an_absent_package_is_named_with_its_extra(tmp_path, corpus, absent, extra, arguments):
    places = {
        "source": tmp_path / "corpus.jsonl",
        "out": tmp_path / "out",
        "encoded": corpus,
    }
    filled = [one.format(**places) for one in arguments]
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(absent=absent, arguments=filled)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout) == (2, ""), found.stderr
    assert f"pip install 'm3-retrieval[{extra}]'" in found.stderr
    assert "Traceback" not in found.stderr


def test_a_file_of_another_kind_is_not_replaced(corpus, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("What a person wrote, longer than the eight bytes of a header.", "utf-8")
    with pytest.raises(DatasetError, match="is no collection"):
        load_into_collection(corpus, notes)
    assert notes.read_text("utf-8").startswith("What a person wrote")
    for _ in range(2):
        assert load_into_collection(corpus, tmp_path / "c") == 60
