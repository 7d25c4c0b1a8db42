import json

import pytest

from m3_core.cli.main import main
from m3_core.testing import tiny_checkpoint

EXAMPLES = [{"query": f"panda {w}", "pos": [f"the {w} bear"]} for w in ("city", "river", "world")]


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in EXAMPLES), "utf-8")
    return file


def test_train_mix_and_evaluate(tmp_path, data, capsys):
    base = str(tiny_checkpoint(tmp_path / "base", positions=64))
    out, mixed = str(tmp_path / "out"), str(tmp_path / "mixed")
    run = ["train", "--model", base, "--data", str(data), "--output", out, "--group-size", "1"]
    assert main([*run, "--cpu", "--freeze", "network", "--no-self-distill"]) == 0
    assert main(["mix", base, out, "--weights", "0.5", "0.5", "--output", mixed]) == 0
    capsys.readouterr()
    ask = ["evaluate", "--model", mixed, "--data", str(data), "--device", "cpu"]
    assert main([*ask, "--dtype", "float32"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert set(table["dense"]) == {"recall@1", "recall@10", "mrr@10"}
    assert table["colbert"]["recall@10"] == 1.0


def test_errors_are_one_line_on_standard_error(tmp_path, capsys):
    base = str(tiny_checkpoint(tmp_path / "base", positions=64))
    data = tmp_path / "bad.jsonl"
    data.write_text('{"query": "q", "pos": "d"}\n', "utf-8")
    run = ["train", "--model", base, "--data", str(data), "--output", str(tmp_path / "out")]
    assert main(run) == 1
    assert "bad.jsonl:1: 'pos' is str" in capsys.readouterr().err


def test_help_describes_options(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "Parts that keep their weights" in capsys.readouterr().out.replace("\n", " ").replace(
        "                        ", ""
    )
