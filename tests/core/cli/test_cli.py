import dataclasses
import json
import os
import subprocess
import sys

import pytest
from tests.table import table
from typer.testing import CliRunner

from m3_core import __version__
from m3_core.cli.main import app
from m3_core.testing import tiny_checkpoint
from m3_core.training.options import MiningOptions, TrainOptions

EXAMPLES = [{"query": f"panda {w}", "pos": [f"the {w} bear"]} for w in ("city", "river", "world")]


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in EXAMPLES), "utf-8")
    return file


def test_train_mix_and_evaluate(tmp_path, data):
    base = str(tiny_checkpoint(tmp_path / "base", positions=64))
    out, mixed = str(tmp_path / "out"), str(tmp_path / "mixed")
    train = ["train", "--model", base, "--data", data, "--output", out, "--group-size", "1"]
    assert run(*train, "--cpu", "--freeze", "network", "--no-self-distill").exit_code == 0
    weights = ["--weights", "0.5", "0.5"]
    assert run("mix", base, out, *weights, "--output", mixed).exit_code == 0
    ask = ["evaluate", "--model", mixed, "--data", data, "--device", "cpu", "--json"]
    table = json.loads(run(*ask, "--dtype", "float32", "--folds", "0").stdout)["results"]
    assert {"dense", "sparse", "colbert", "all 1/0.3/1"} <= set(table)
    assert table["colbert"]["R@5"] == 1.0


def test_distil_and_mine(tmp_path, data):
    base = tiny_checkpoint(tmp_path / "base", positions=64)
    teacher = tiny_checkpoint(tmp_path / "teacher", positions=64, seed=1)
    train = ["--model", base, "--data", data, "--output", tmp_path / "out", "--group-size", "1"]
    of_teacher = ["--teacher", teacher, "--score-weights", "1", "0", "0.5"]
    found = run("distill", *train, *of_teacher, "--score-temperature", "0.1", "--cpu")
    assert '"steps": 1' in found.stdout
    mined = tmp_path / "mined.jsonl"
    ask = ["mine", "--model", base, "--data", data, "--output", mined, "--negatives", "1"]
    assert json.loads(run(*ask, "--first", "0").stdout) == {"output": str(mined), "examples": 3}
    assert all(json.loads(line)["neg"] for line in mined.read_text("utf-8").splitlines())


def test_errors_are_one_line_on_standard_error(tmp_path):
    base = str(tiny_checkpoint(tmp_path / "base", positions=64))
    data = tmp_path / "bad.jsonl"
    data.write_text('{"query": "q", "pos": "d"}\n', "utf-8")
    train = ["train", "--model", base, "--data", data, "--output", tmp_path / "out"]
    found = run(*train)
    assert (found.exit_code, found.stdout) == (2, "")
    assert "bad.jsonl:1: 'pos' is str" in found.stderr
    found = run(*train, "--batch-size", "0")
    assert found.exit_code == 2
    assert found.stderr.endswith(" train: batch_size is 0; it must be 1 or more\n")
    assert found.stderr.count("\n") == 1
    found = run("train", "--model", base)
    assert found.exit_code == 2
    assert "Missing option '--data'" in found.stderr


def test_no_examples_and_no_folder_are_told_before_anything_is_computed(tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n", "utf-8")
    for command in (["evaluate"], ["mine", "--output", tmp_path / "mined.jsonl"]):
        found = run(*command, "--model", str(table()), "--data", empty)
        assert (found.exit_code, found.stdout) == (2, "")
        assert f"no examples in {empty}: all are empty" in found.stderr
    found = run("mine", "--model", str(table()), "--data", empty, "--output", tmp_path)
    assert (found.exit_code, f"output {tmp_path} is a folder" in found.stderr) == (2, True)
    (tmp_path / "file").touch()
    data = tmp_path / "data.jsonl"
    data.write_text('{"query": "q", "pos": ["d"]}\n{"query": "r", "pos": ["e"]}\n', "utf-8")
    mine = ["mine", "--model", str(table()), "--data", data, "--negatives", "1", "--first", "0"]
    found = run(*mine, "--output", tmp_path / "file" / "mined.jsonl")
    assert (found.exit_code, "Traceback" in found.stderr) == (2, False)
    assert run(*mine, "--output", tmp_path / "new" / "folder" / "mined.jsonl").exit_code == 0


def test_the_command_alone_helps_and_says_its_version():
    assert "Commands:" in run().output
    assert run("--version").output == f"m3-retrieval {__version__}\n"


def test_a_list_takes_several_values_or_its_name_several_times(tmp_path, data):
    base = tiny_checkpoint(tmp_path / "base", positions=64)
    mix = ["mix", base, base, "--output", tmp_path / "out", "--weights", "0.5"]
    for several in (["-0.5", "1"], ["--weights", "-0.5", "--weights", "1"]):
        assert "3 weights" in run(*mix, *several).stderr


@pytest.mark.parametrize("command", ["train", "distill"])
def test_help_describes_every_option(command):
    text = " ".join(run(command, "--help").stdout.split())
    assert "Parts that keep their weights: network (to train the heads alone)" in text
    for entry in dataclasses.fields(TrainOptions):
        assert f"--{entry.name.replace('_', '-')}" in text
    assert "[default: 1e-05]" in text
    assert "<cls|mean|last>" in text
    assert ("--score-weights" in text) == (command == "distill")


def test_help_of_mining_describes_every_option():
    text = run("mine", "--help").stdout
    for entry in dataclasses.fields(MiningOptions):
        assert f"--{entry.name}" in text


def test_the_command_itself_helps_without_loading_anything_heavy():
    code = (
        "import sys\n"
        "from m3_core.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    sys.stderr.write(' '.join(sys.modules))"
    )
    names = [one.name or one.callback.__name__ for one in app.registered_commands]
    for group in app.registered_groups:
        inner = group.typer_instance.registered_commands
        names += [one.name or one.callback.__name__ for one in inner]
    assert {"index", "search", "score", "rerank", "explain", "info", "train"} <= set(names)
    for arguments in ([], *([name] for name in names)):
        found = subprocess.run(
            [sys.executable, "-c", code, *arguments, "--help"], capture_output=True, text=True
        )
        assert found.returncode == 0, found.stderr
        assert "Usage: m3-retrieval" in found.stdout
        assert not {"torch", "transformers", "numpy", "datasets"} & set(found.stderr.split())
        # What is laid out by hand is not wrapped.
        assert max(map(len, found.stdout.splitlines())) <= 100


def test_help_of_commands_for_readers_shows_examples():
    for command in ("index", "search", "score", "rerank", "explain", "info"):
        text = run(command, "--help").stdout
        assert f"\n    m3-retrieval {command}" in text, text


def test_a_shell_can_complete_commands():
    found = subprocess.run(
        [sys.executable, "-m", "m3_core.cli.main"],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "_M3_RETRIEVAL_COMPLETE": "complete_bash",
            "COMP_WORDS": "m3-retrieval sea",
            "COMP_CWORD": "1",
        },
    )
    assert found.stdout.split() == ["search"]


def test_the_command_that_is_installed():
    found = subprocess.run(
        [sys.executable, "-m", "m3_core.cli.main", "evaluate", "--model", "/none", "--data", "/no"],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 2
    assert found.stderr.startswith("m3-retrieval evaluate: ")
    assert found.stderr.count("\n") == 1
