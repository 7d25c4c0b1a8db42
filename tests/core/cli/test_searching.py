import io
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from m3_core import Encoder
from m3_core.cli import console
from m3_core.cli.main import app
from m3_core.folder_index import FolderIndex
from m3_core.testing import tiny_checkpoint

# The command, in small steps; the step of this number ends with a signal.
STEPS = """
import os, signal, sys
from m3_core.collection import DocumentCollection
from m3_core.folder_index import updating
from m3_core.cli.main import script

# A shell lets what it starts in the background ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
updating.CHUNK_CHARACTERS = updating.LARGEST_CHUNK = 4000
step, number, calls, method = int(sys.argv[1]), int(sys.argv[2]), [], sys.argv[3]
inner = getattr(DocumentCollection, method)

def counted(*arguments):
    calls.append(1)
    if len(calls) == step:
        os.kill(os.getpid(), number)
    return inner(*arguments)

setattr(DocumentCollection, method, counted)
sys.argv[1:] = sys.argv[4:]
script()
"""


def run(*arguments, **options):
    return CliRunner().invoke(app, [str(one) for one in arguments], **options)


def in_steps(step, number, method, *arguments):
    return subprocess.run(
        [sys.executable, "-c", STEPS, str(step), str(int(number)), method, *map(str, arguments)],
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny", positions=130)


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "panda.md").write_text("# Food\n\nPandas eat bamboo.\n", "utf-8")
    (folder / "river.txt").write_text("Rivers flow into the sea.\n", "utf-8")
    return folder


def contents(path, model):
    collection = FolderIndex(path, Encoder.from_pretrained(model)).collection
    return {one: (text, data) for one, text, data in collection.get(collection.ids())}


def test_two_thousand_files_killed_interrupted_resumed_and_searched(tmp_path, model):
    docs, index = tmp_path / "docs", tmp_path / "index"
    for number in range(2000):
        path = docs / f"{number // 100:02}" / f"{number:04}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Document {number} is about the number {number * 7}.\n", "utf-8")
    ask = ["index", docs, "--to", index, "--model", model, "--tokens", "64", "--save-every", "0"]
    ask += ["--device", "cpu", "--dtype", "float32", "--json"]
    sizes = []
    for step, number, method in (
        (1, signal.SIGKILL, "save"),
        (6, signal.SIGKILL, "add"),
        (4, signal.SIGINT, "add"),
        (3, signal.SIGTERM, "add"),
    ):
        found = in_steps(step, number, method, *ask)
        ends = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130, signal.SIGTERM: 143}
        assert (found.returncode, found.stdout) == (ends[number], ""), found.stderr
        assert "Traceback" not in found.stderr
        sizes.append(len(contents(index, model)) if (index / "documents.m3").exists() else 0)
        assert number != signal.SIGINT or f"saved {sizes[-1]:,} passages" in found.stderr
    assert sizes == sorted(sizes)
    assert 0 == sizes[0] < sizes[1] < sizes[2] < sizes[3] < 2000
    report = json.loads(run(*ask).stdout)
    assert (report["files"], report["unchanged"]) == (2000, sizes[-1])
    assert report["encoded"] == 2000 - sizes[-1]
    assert [one.name for one in index.iterdir() if one.name.startswith(".")] == []
    again = json.loads(run("index", "--to", index, "--json").stdout)
    assert (again["unchanged"], again["encoded"]) == (2000, 0)

    whole = tmp_path / "whole"
    ask[3] = whole
    assert run(*ask).exit_code == 0
    assert contents(index, model) == contents(whole, model)
    queries = "the number 7007\nDocument 1999\n"
    for representation in ("hybrid", "dense", "sparse"):
        one, other = (
            [
                json.loads(line)
                for line in run(
                    *("search", path, "-", "--json", "-r", representation, "-k", 20),
                    *("--dtype", "float32"),
                    input=queries,
                ).stdout.splitlines()
            ]
            for path in (index, whole)
        )
        assert len(one) == len(other) > 0
        # Batches differ, and so does rounding: equal scores may stand in another order.
        for query in queries.splitlines():
            scores = [
                [hit["score"] for hit in hits if hit["query"] == query] for hits in (one, other)
            ]
            assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_a_pipe_gets_plain_lines_and_programs_json(tmp_path, docs, model):
    index = tmp_path / "index"
    found = run("index", docs, "--to", index, "--model", model, "--tokens", "64")
    assert found.stdout == (
        f"{index}: 2 files (2 new, 0 changed, 0 removed, 0 as they were), 2 passages "
        f"(2 encoded now), model {model}\n"
    )
    lines = run("search", index, "pandas").stdout.splitlines()
    cells = next(line for line in lines if "bamboo" in line).split("\t")
    assert cells[1:] == [f"{docs}/panda.md:3", "Food", "Pandas eat bamboo."]
    (hit,) = map(json.loads, run("search", index, "pandas", "-k", 1, "--json").stdout.splitlines())
    assert list(hit)[:4] == ["query", "rank", "score", "scores"]
    found = run("search", index, "pandas", "--json", "--where", '{"path": "river.txt"}')
    assert [json.loads(line)["path"] for line in found.stdout.splitlines()] == ["river.txt"]
    hit = json.loads(found.stdout)
    assert (hit["file"], hit["line"], hit["heading"]) == (f"{docs}/river.txt", 1, "")
    none = run("search", index, "pandas", "--where", '{"path": "none"}')
    assert (none.exit_code, none.stdout) == (1, "")
    assert "nothing found among 2 passages" in none.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "/none", "--to", "{new}"], "there is no file or folder '/none'"),
        (["index", "--to", "{new}"], "name a folder to index"),
        (["index", "{docs}", "--to", "{docs}"], "is there already and is no index"),
        (["index", "{docs}", "--to", "qdrant:/x"], "an index is a folder"),
        (["index", "{docs}", "--to", "{new}", "--model", "./none"], "looks like a path"),
        (["index", "{docs}", "--to", "{index}", "--model", "m3-small"], "was made with the model"),
        (["index", "{docs}", "--to", "{index}", "--tokens", "32"], "has passages of 64 tokens"),
        (["index", "{docs}", "--to", "{index}", "--colbert"], "stores dense, sparse"),
        (["index", "{docs}", "--to", "{new}", "--format", "pdf"], "format is 'pdf'"),
        (["search", "{docs}", "x"], "is no index"),
        (["search", "{new}", "x"], "there is no index"),
        (["search", "{index}", " "], "the query is empty"),
        (["search", "{index}", "x", "--where", "path=x"], "is not JSON"),
        (["search", "{index}", "x", "--where", '{"path": {"$near": 1}}'], "no operator '$near'"),
        (["search", "{index}", "x", "-r", "bm25"], "representation is 'bm25'"),
        (["search", "{index}", "x", "-r", "colbert"], "no colbert"),
        (["score", "x", "y", "--model", "m3-small", "--normalize"], "--normalize is for rerankers"),
        (["info", "./none"], "looks like a path"),
    ],
)
def test_errors_are_one_line_and_say_what_to_do(tmp_path, docs, model, arguments, message):
    places = {"docs": docs, "index": tmp_path / "index", "new": tmp_path / "new"}
    if "{index}" in arguments:
        ask = ["--to", places["index"], "--model", model, "--tokens", "64"]
        assert run("index", docs, *ask).exit_code == 0
    before = sorted(tmp_path.rglob("*"))
    found = run(*(one.format(**places) if "$" not in one else one for one in arguments))
    assert (found.exit_code, found.stdout, found.stderr.count("\n")) == (2, "", 1)
    assert found.stderr.startswith(f"m3-retrieval {arguments[0]}: ") or "root" in found.stderr
    assert message in found.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_scores_rankings_and_explanations_agree(model):
    documents = ["Rivers flow.", "Pandas eat bamboo."]
    ask = ["--model", model, "--device", "cpu", "--dtype", "float32", "--json"]
    scored = [
        json.loads(one) for one in run("score", "pandas eat", *documents, *ask).stdout.splitlines()
    ]
    assert [one["document"] for one in scored] == documents
    expected = Encoder.from_pretrained(model, device="cpu", dtype="float32").compute_score(
        [("pandas eat", one) for one in documents], weights=(1.0, 0.3, 1.0)
    )
    assert [one["score"] for one in scored] == pytest.approx(
        expected["colbert+sparse+dense"], abs=1e-5
    )
    lines = "".join(json.dumps({"text": one, "own": 1, "rank": 9}) + "\n" for one in documents)
    ranked = [
        json.loads(one)
        for one in run("rerank", "pandas eat", "-", *ask, input=lines).stdout.splitlines()
    ]
    assert [one["rank"] for one in ranked] == [1, 2]
    assert [one["own"] for one in ranked] == [1, 1]
    assert {one["index"]: one["score"] for one in ranked} == pytest.approx(
        {place: one["score"] for place, one in enumerate(scored)}, abs=1e-5
    )
    explained = json.loads(run("explain", "pandas eat", "-", *ask, input=documents[1]).stdout)
    assert explained["score"] == pytest.approx(scored[1]["score"], abs=1e-5)
    bad = run("rerank", "x", "-", *ask, input='{"text": "a"}\nplain\n')
    assert (bad.exit_code, bad.stdout) == (2, "")
    assert "line 2 of standard input is no JSON object with a text" in bad.stderr


def test_a_page_of_an_explanation_is_written_whole(tmp_path, model):
    page = tmp_path / "why.html"
    found = run("explain", "pandas", "<b>Pandas</b>", "--model", model, "--html", page)
    assert (found.exit_code, found.stdout, found.stderr) == (0, "", f"wrote {page}\n")
    assert "<b>Pandas" not in page.read_text("utf-8")


def test_info_says_what_a_model_and_an_index_are(tmp_path, docs, model):
    found = json.loads(run("info", "m3-small", "--json").stdout)
    assert found["representations"] == ["dense", "sparse", "colbert"]
    assert (found["licence"], found["max_length"], found["query_instruction"]) == (
        "mit",
        512,
        "query: ",
    )
    assert found["fingerprint"].startswith("m3-")
    assert found["bytes"] == sum(found["files"].values()) > 10_000_000
    index = tmp_path / "index"
    run("index", docs, "--to", index, "--model", model, "--tokens", "64")
    lines = dict(line.split("\t") for line in run("info", index).stdout.splitlines())
    assert (lines["passages"], lines["sources"], lines["stored"]) == (
        "2",
        str(docs),
        "dense, sparse",
    )


def test_texts_and_names_cannot_steer_a_terminal(tmp_path, model):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a\x1b[31m.txt").write_text("red \x1b]0;title\x07 panda \u202e[bold]x[/bold]", "utf-8")
    run("index", docs, "--to", tmp_path / "index", "--model", model, "--tokens", "64")
    for options in ([], ["--full"]):
        found = run("search", tmp_path / "index", "panda", *options)
        assert "[bold]x[/bold]" in found.stdout
        assert not {"\x1b", "\x07", "\u202e"} & set(found.stdout + found.stderr)


def test_a_reader_that_goes_away_ends_it_silently(tmp_path, docs, model):
    index = tmp_path / "index"
    run("index", docs, "--to", index, "--model", model, "--tokens", "64")
    read, written = os.pipe()
    os.close(read)
    try:
        found = subprocess.run(
            [sys.executable, "-m", "m3_core.cli.main", "search", index, "pandas", "--json"],
            stdout=written,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert (found.returncode, found.stderr) == (141, "")
    finally:
        os.close(written)


def test_an_output_of_another_encoding_is_written_as_far_as_it_can_be(tmp_path, docs, model):
    (docs / "panda.md").write_text("大熊猫 panda", "utf-8")
    index = tmp_path / "index"
    run("index", docs, "--to", index, "--model", model, "--tokens", "64")
    for options in ([], ["--json"]):
        found = subprocess.run(
            [sys.executable, "-m", "m3_core.cli.main", "search", index, "panda", *options],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )
        assert (found.returncode, found.stderr) == (0, b"")
        assert rb"\u5927\u718a\u732b panda" in found.stdout


def test_a_folder_of_the_current_one_is_remembered_as_it_is(tmp_path, docs, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("index", "docs", "--to", "index", "--model", os.path.relpath(model), "--tokens", "64")
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    found = json.loads(run("index", "--to", "../index", "--json").stdout)
    assert (found["unchanged"], Path(found["model"])) == (2, model)


@pytest.mark.skipif(os.name != "posix", reason="a shell closes streams")
@pytest.mark.parametrize(
    ("closed", "arguments", "status", "told"),
    [
        (">&-", "info {index}", 2, "m3-retrieval info: standard output is closed\n"),
        (">&-", "--version", 2, "m3-retrieval: standard output is closed\n"),
        ("<&-", "search {index} -", 2, "m3-retrieval search: standard input says nothing, and"),
        ("2>&-", "info {index}", 0, ""),
    ],
)
def test_streams_that_are_closed_are_no_trace(
    tmp_path, docs, model, closed, arguments, status, told
):
    index = tmp_path / "index"
    assert run("index", docs, "--to", index, "--model", model, "--tokens", "64").exit_code == 0
    given = arguments.format(index=shlex.quote(str(index)))
    ended = subprocess.run(
        ["sh", "-c", f'"$0" -m m3_core.cli.main {given} {closed}', sys.executable],
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stderr[: len(told)]) == (status, told)
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) == (1 if told else 0)


def test_a_narrow_terminal_cuts_no_figure(monkeypatch):
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self):
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "xterm")
    console.write_table([["0.5354", "0.8461", "a"]], ["score", "dense", "document"], ["score"])
    console.write_pairs([("query_instruction", "none")])
    for whole in ("0.5354", "0.8461", "document", "query_instruction", "none"):
        assert whole in shown.getvalue()


def test_a_folder_that_is_gone_keeps_its_passages_until_it_is_forgotten(tmp_path, docs, model):
    index, other = tmp_path / "index", tmp_path / "other"
    other.mkdir()
    (other / "bear.txt").write_text("Bears eat fish.\n")
    made = run("index", docs, other, "--to", index, "--model", model, "--tokens", "64")
    assert made.exit_code == 0
    (other / "bear.txt").unlink()
    other.rmdir()
    (docs / "new.txt").write_text("Rice grows in water.\n")
    again = run("index", "--to", index)
    assert again.exit_code == 0
    assert f"not read: {other}: no longer there; what it said stays" in again.stderr
    assert len(contents(index, model)) == 4
    wrong = run("index", "--to", index, "--forget", tmp_path / "never")
    assert (wrong.exit_code, "is none of what" in wrong.stderr) == (2, True)
    forgotten = run("index", "--to", index, "--forget", other)
    assert "dropped 1 passages" in forgotten.stderr
    assert "no longer there" not in forgotten.stderr
    assert len(contents(index, model)) == 3


def test_no_tokens_are_not_taken_for_the_default(tmp_path, docs, model):
    refused = run("index", docs, "--to", tmp_path / "index", "--model", model, "--tokens", "0")
    assert (refused.exit_code, "passages of 0 tokens" in refused.stderr) == (2, True)
