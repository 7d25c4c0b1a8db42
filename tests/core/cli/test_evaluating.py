import json
import shutil

import pytest
from typer.testing import CliRunner

from m3_core.cli.main import app
from m3_core.testing import tiny_checkpoint, tiny_reranker


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny", positions=128)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "bears"
    (folder / "qrels").mkdir(parents=True)
    texts = ["the panda bear", "a city at the river", "water of the world", "a panda in the city"]
    for name in ("corpus", "queries"):
        rows = ({"_id": f"{name[0]}{n}", "text": text} for n, text in enumerate(texts))
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, "utf-8")
    qrels = "".join(f"q{n}\tc{n}\t1\n" for n in range(4))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels, "utf-8")
    return folder


CPU = ("--device", "cpu", "--dtype", "float32")


def test_table_json_runs_and_picture(data, model, tmp_path):
    reranker = tiny_reranker(tmp_path / "orderly")
    ask = ["--data", data, "--model", model, *CPU, "--encodings", tmp_path / "kept"]
    also = ["--runs", tmp_path / "runs", "--plot", tmp_path / "p.svg", "--reranker", reranker]
    found = run(*ask, *also, "--weights", "0.6,0.1,0.3", "0.5,0,0.5", "--folds", "2")
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    assert lines[0].startswith("bears: 4 queries, 4 documents, ")
    assert lines[1].split()[:2] == ["nDCG@10", "R@5"]
    for name in ("dense ", "all 1/0.3/1 ", "0.6/0.1/0.3 ", "all 1/0.3/1 > orderly "):
        assert any(line.startswith(name) for line in lines)
    assert "rerankers order the 100 best of all 1/0.3/1" in lines
    assert (tmp_path / "p.svg").read_text("utf-8").startswith("<?xml")
    again = json.loads(run(*ask, "--json", "--baseline", "dense", "--measures", "RR@10").stdout)
    assert (again["texts_encoded"], again["baseline"]) == (0, "dense")
    assert set(again["significance"]) == set(again["results"]) - {"dense"}
    assert again["advice"][0]["measure"] == "RR@10"
    alone = ["--data", data, "--run", tmp_path / "runs" / "dense.trec"]
    more = run(*alone, tmp_path / "runs" / "colbert.trec", "--json", "--measures", "RR@10")
    runs = json.loads(more.stdout)
    assert runs["results"] == {name: again["results"][name] for name in ("dense", "colbert")}
    assert runs["significance"].keys() == {"colbert"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--measures", "nDCG@ten"], "measure 'nDCG@ten' is not one of ir-measures"),
        (["--weights", "1,0.3"], "--weights '1,0.3' is not three numbers"),
        (["--plot", "picture.doc"], "--plot picture.doc must end in one of .png, .svg, .pdf"),
        (["--folds", "1"], "folds is 1; it must be 2 or more, or 0"),
        (["--split", "dev"], "qrels has no judgements 'dev'; found ['test.tsv']"),
        (["--run", "none.trec"], "none.trec"),
        ([], "there is nothing to measure: give a model, or run files"),
        (["--reranker", "some"], "a reranker reorders what a model found: give --model"),
    ],
)
def test_what_is_wrong_is_told_in_a_line_before_anything_is_computed(data, options, message):
    found = run("--data", data, *options)
    assert (found.exit_code, found.stdout) == (2, "")
    assert message in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_damaged_folder_is_told(data, model):
    shutil.rmtree(data / "qrels")
    found = run("--data", data, "--model", model)
    assert (found.exit_code, "is no folder of BEIR" in found.stderr) == (2, True)
