"""Encoding a corpus: every format, what is wrong with rows, and what a folder tells of its job."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import random
from functools import partial

import pyarrow as pa
import pytest
from pyarrow import parquet
from tests.core.bulk.corpora import assert_holds, assert_same, rows, write_lines

from m3_core.bulk import EncodedDataset, EncodeOptions, encode_dataset
from m3_core.errors import DatasetError, M3Error, MissingRepresentationError, NonFiniteError
from m3_core.testing import FakeEncoder

SMALL = EncodeOptions(shard_rows=32)


def without_mixed(documents):
    """Parquet's own types know no value that is sometimes there as something else."""
    return [{**d, "score": float(d["score"])} for d in documents]


@pytest.mark.parametrize("kind", ["jsonl", "gz", "csv", "tsv", "parquet", "folder", "stream"])
def test_every_format_gives_the_same_documents(tmp_path, kind):
    documents = rows(100)
    if kind in ("csv", "tsv"):
        # What a quotation mark holds is one field, lines and all; and longer than Python's limit.
        documents = [{"id": d["id"], "text": d["text"], "year": str(d["year"])} for d in documents]
        documents[7]["text"] = 'he said "panda",\nand\t' + "bamboo " * 30_000
        path = tmp_path / f"corpus.{kind}"
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(
                file, list(documents[0]), delimiter="\t" if kind == "tsv" else ","
            )
            writer.writeheader()
            writer.writerows(documents)
    elif kind == "parquet":
        documents = without_mixed(documents)
        path = tmp_path / "corpus.parquet"
        parquet.write_table(pa.Table.from_pylist(documents), path, row_group_size=27)
    elif kind == "folder":
        path = tmp_path / "corpus"
        (path / "deep").mkdir(parents=True)
        write_lines(path / "a.jsonl", documents[:45])
        write_lines(path / "deep" / "b.jsonl", documents[45:])
        (path / ".hidden.jsonl").write_text("no JSON")
    elif kind == "gz":
        path = tmp_path / "corpus.jsonl.gz"
        lines = write_lines(tmp_path / "lines", documents).read_bytes()
        path.write_bytes(gzip.compress(lines))
    else:
        path = write_lines(tmp_path / "corpus.jsonl", documents)
    source = io.BytesIO(path.read_bytes()) if kind == "stream" else path
    dataset = encode_dataset(source, tmp_path / "out", FakeEncoder(), SMALL)
    assert_holds(dataset, documents)
    assert len(dataset) == 100
    assert len(dataset.files) == 4
    # One of them anew: it is read from the middle.
    dataset.files[2].unlink()
    source = io.BytesIO(path.read_bytes()) if kind == "stream" else path
    assert_holds(encode_dataset(source, tmp_path / "out", FakeEncoder(), SMALL), documents)


def test_text_files_are_documents(tmp_path):
    source = tmp_path / "texts"
    (source / "b").mkdir(parents=True)
    (source / "a.txt").write_text("eine Stadt", "utf-8")
    (source / "b" / "c.md").write_text("ein Fluss", "utf-8")
    dataset = encode_dataset(source, tmp_path / "out", FakeEncoder())
    assert_holds(
        dataset, [{"id": "a.txt", "text": "eine Stadt"}, {"id": "b/c.md", "text": "ein Fluss"}]
    )


def test_the_files_are_arrow_with_the_model_in_their_schema(tmp_path):
    source = write_lines(tmp_path / "corpus.jsonl", rows(20))
    dataset = encode_dataset(source, tmp_path / "out", FakeEncoder(document_instruction="doc: "))
    schema = parquet.read_schema(dataset.files[0])
    assert schema.field("dense_vecs").type == pa.list_(pa.float32(), 32)
    assert schema.field("lexical_weights").type == pa.map_(pa.int32(), pa.float32())
    assert schema.field("colbert_vecs").type == pa.list_(pa.list_(pa.float16(), 32))
    assert schema.field("year").type == pa.int64()
    assert schema.field("score").type == pa.float64()
    assert schema.field("tags").type == pa.list_(pa.string())
    about = json.loads(schema.metadata[b"m3-retrieval"])
    assert about["model"] == "fake"
    assert about["fingerprint"] == dataset.model.fingerprint
    assert about["representations"] == ["dense", "sparse", "colbert"]
    assert about["document_instruction"] == "doc: "


def test_columns_are_chosen_and_joined(tmp_path):
    given = [
        {"_id": 7, "title": "Panda", "text": "eats", "id": "x", "n": 1},
        {"_id": 8, "title": "", "text": "fish", "id": "y", "n": 2},
    ]
    source = write_lines(tmp_path / "corpus.jsonl", given)
    options = EncodeOptions(
        text_columns=("title", "text"), id_column="_id", representations=["sparse"]
    )
    dataset = encode_dataset(source, tmp_path / "all", FakeEncoder(), options)
    (batch,) = dataset.batches()
    assert (batch.ids, batch.texts) == (["7", "8"], ["Panda eats", "fish"])
    # Metadata whose names are columns of ours come back under their own.
    assert batch.metadatas == [{k: v for k, v in one.items() if k != "_id"} for one in given]
    assert dataset.representations == ("sparse",)
    bare = EncodeOptions(id_column="id", metadata_columns=["n"], keep_text=False)
    (batch,) = encode_dataset(source, tmp_path / "bare", FakeEncoder(), bare).batches()
    assert (batch.ids, batch.texts, batch.metadatas) == (["x", "y"], None, [{"n": 1}, {"n": 2}])
    with pytest.raises(DatasetError, match=r"no row of .* has the column 'm'"):
        encode_dataset(
            source, tmp_path / "x", FakeEncoder(), EncodeOptions(metadata_columns=["n", "m"])
        )
    numbered = write_lines(tmp_path / "numbered.jsonl", [{"text": "a"}, {"text": "b"}])
    (batch,) = encode_dataset(numbered, tmp_path / "numbered", FakeEncoder()).batches()
    assert batch.ids == ["0", "1"]


BAD = {
    "{": "it is not JSON",
    "[1]": "it is no JSON object",
    '{"id": "x"}': "it has no column 'text'",
    '{"id": "x", "text": null}': "its text, 'text', is None",
    '{"id": "x", "text": 3}': "its text, 'text', is 3",
    '{"text": "x"}': "its id, 'id', is None",
    '{"id": 1.5, "text": "x"}': "its id, 'id', is 1.5",
    '{"id": "x", "text": "\\ud800"}': "it holds a lone surrogate",
    '{"id": "d3", "text": "x"}': "its id comes a second time",
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_row_is_named_before_anything_is_encoded_or_set_aside(tmp_path, line):
    source = write_lines(tmp_path / "corpus.jsonl", rows(50))
    with source.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.write('{"id": "last", "text": "panda"}\n')
    encoder = FakeEncoder()
    with pytest.raises(DatasetError) as caught:
        encode_dataset(source, tmp_path / "out", encoder, SMALL)
    assert BAD[line] in str(caught.value)
    assert f"{source} line 51: " in str(caught.value)
    assert encoder.calls == []
    skip = EncodeOptions(shard_rows=10, on_error="skip")
    dataset = encode_dataset(source, tmp_path / "skipped", encoder, skip)
    assert (len(dataset), dataset.skipped) == (51, 1)
    aside = json.loads((tmp_path / "skipped" / "_skipped.jsonl").read_text("utf-8"))
    assert (aside["file"], aside["line"]) == (str(source), 51)
    assert BAD[line] in aside["error"]
    ids = [one for batch in dataset.batches() for one in batch.ids]
    assert ids == [*(f"d{i}" for i in range(50)), "last"]


def test_bytes_and_fields_that_are_wrong_are_named(tmp_path):
    source = tmp_path / "corpus.csv"
    source.write_bytes(b'id,text\n1,"a\nb"\n2,\xff\n3,x,y\n4,"open')
    options = EncodeOptions(on_error="skip")
    dataset = encode_dataset(source, tmp_path / "out", FakeEncoder(), options)
    lines = (tmp_path / "out" / "_skipped.jsonl").read_text("utf-8").splitlines()
    said = [(one["line"], one["error"]) for one in map(json.loads, lines)]
    assert [line for line, _ in said] == [4, 5, 6]
    assert "not UTF-8" in said[0][1]
    assert "3 fields; the header has 2" in said[1][1]
    assert "not CSV" in said[2][1]
    assert [batch.ids for batch in dataset.batches()] == [["1"]]
    for content, what in ((b"PAR1 and no more", "no whole Parquet"), (b"", "no whole Parquet")):
        (tmp_path / "bad.parquet").write_bytes(content)
        with pytest.raises(DatasetError, match=what):
            encode_dataset(tmp_path / "bad.parquet", tmp_path / "none", FakeEncoder())
    cut = tmp_path / "cut.jsonl.gz"
    whole = "".join(json.dumps(one) + "\n" for one in rows(9)).encode()
    cut.write_bytes(gzip.compress(whole)[:-9])
    with pytest.raises(DatasetError, match="is cut"):
        encode_dataset(cut, tmp_path / "none", FakeEncoder())
    write_lines(tmp_path / "empty.jsonl", [])
    with pytest.raises(DatasetError, match="holds no document"):
        encode_dataset(tmp_path / "empty.jsonl", tmp_path / "none", FakeEncoder())


class Failing(FakeEncoder):
    """Fails at a certain text."""

    def _encode(self, role, texts, parts, max_length, *, show_progress):
        if any("stop here" in text for text in texts):
            raise NonFiniteError("a vector holds NaN")
        return super()._encode(role, texts, parts, max_length, show_progress=show_progress)


def test_what_was_written_before_an_error_is_not_encoded_again(tmp_path):
    documents = rows(100)
    documents[70]["text"] = "stop here"
    source = write_lines(tmp_path / "corpus.jsonl", documents)
    with pytest.raises(NonFiniteError):
        encode_dataset(source, tmp_path / "out", Failing(), SMALL)
    written = sorted(path.name for path in (tmp_path / "out").glob("part-*"))
    assert written == ["part-000000.parquet", "part-000001.parquet"]
    assert not [one for one in (tmp_path / "out").iterdir() if one.name.endswith(".tmp")]
    with pytest.raises(DatasetError, match="lacks 2 of 4 files"):
        EncodedDataset.open(tmp_path / "out")
    encoder = FakeEncoder()
    dataset = encode_dataset(source, tmp_path / "out", encoder, SMALL)
    assert sum(count for _, count in encoder.calls) == 36
    assert_holds(dataset, documents)
    # And once whole, nothing.
    assert_same(dataset, encode_dataset(source, tmp_path / "out", Failing(), SMALL))


def test_another_input_model_or_option_is_no_way_to_go_on(tmp_path):
    documents = rows(40)
    source, out = write_lines(tmp_path / "corpus.jsonl", documents), tmp_path / "out"
    encode_dataset(source, out, FakeEncoder(), SMALL)
    for encoder, options, said in (
        (FakeEncoder(dimension=16), SMALL, "begun with the model 'fake'"),
        (FakeEncoder(document_instruction="d "), SMALL, "begun with the model 'fake'"),
        (FakeEncoder(), EncodeOptions(shard_rows=8), "shard_rows was 32, now it is 8"),
        (FakeEncoder(), EncodeOptions(shard_rows=32, representations=["dense"]), "asked for are"),
    ):
        with pytest.raises(DatasetError, match=said):
            encode_dataset(source, out, encoder, options)
    documents[3]["text"] = documents[3]["text"][::-1]
    write_lines(source, documents)
    with pytest.raises(DatasetError, match=r"corpus.jsonl has changed"):
        encode_dataset(source, out, FakeEncoder(), SMALL)
    assert_holds(encode_dataset(source, out, FakeEncoder(), SMALL, overwrite=True), documents)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(DatasetError, match=r"holds no encoded corpus but letter.txt"):
            encode_dataset(source, tmp_path / "full", FakeEncoder(), overwrite=overwrite)
    with pytest.raises(MissingRepresentationError):
        encode_dataset(
            source,
            tmp_path / "x",
            FakeEncoder(representations=["dense"]),
            EncodeOptions(representations=["sparse"]),
        )
    with pytest.raises(ValueError, match="representations are of"):
        encode_dataset(source, tmp_path / "x", FakeEncoder(), EncodeOptions(representations=["x"]))


class Changing(FakeEncoder):
    """Changes the input once it was checked."""

    source = None

    def _encode(self, role, texts, parts, max_length, *, show_progress):
        write_lines(self.source, [{**one, "year": 1} for one in rows(100)])
        return super()._encode(role, texts, parts, max_length, show_progress=show_progress)


def test_an_input_that_changes_meanwhile_is_an_error(tmp_path):
    encoder = Changing()
    encoder.source = write_lines(tmp_path / "corpus.jsonl", rows(100))
    with pytest.raises(DatasetError, match="changed while it was encoded"):
        encode_dataset(encoder.source, tmp_path / "out", encoder, EncodeOptions(shard_rows=4))


def test_damage_is_found(tmp_path):
    source = write_lines(tmp_path / "corpus.jsonl", rows(60))
    dataset = encode_dataset(source, tmp_path / "out", FakeEncoder())
    (file,) = dataset.files
    whole = file.read_bytes()
    draw = random.Random(0)
    for _ in range(50):
        place = draw.randrange(len(whole))
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        file.write_bytes(changed)
        with contextlib.suppress(M3Error, OSError):
            assert_holds(EncodedDataset.open(tmp_path / "out"), rows(60))
    for cut in (0, 3, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(DatasetError):
            list(EncodedDataset.open(tmp_path / "out").batches())


def test_a_file_in_the_place_of_another_is_found(tmp_path):
    """As after a copy that went wrong: both are whole, of this job, and of equal length."""
    source = write_lines(tmp_path / "corpus.jsonl", rows(40))
    options = EncodeOptions(shard_rows=10)
    encode = partial(encode_dataset, source, tmp_path / "out", FakeEncoder(), options)
    first, second, *_ = encode().files
    second.write_bytes(first.read_bytes())
    for again in (encode, lambda: list(EncodedDataset.open(tmp_path / "out").batches())):
        with pytest.raises(DatasetError, match=f"belongs into {first.name}: delete it"):
            again()
    second.unlink()
    assert_holds(encode(), rows(40))
