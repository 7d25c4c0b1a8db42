"""Options are checked when they are made, and the command line offers them."""

from __future__ import annotations

import json

import pytest
from transformers import TrainingArguments
from typer.testing import CliRunner

from m3_core.cli.main import app
from m3_core.training import trainer
from m3_core.training.finetune import Distillation, TrainOptions, prepare, train
from m3_core.training.loss import LossOptions
from m3_core.training.mining import MiningOptions

RUN = {"model": "no such model", "data": ("none.jsonl",), "output": "none"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"precision": "fp16"}, "precision is 'fp16'; it must be one of 'float32', 'bfloat16', "),
        ({"pooling": "max"}, "pooling is 'max'; it must be one of 'cls', 'mean', 'last'"),
        ({"freeze": ("heads",)}, "freeze is 'heads'; it must be one of 'network', 'sparse', "),
        ({"freeze": ("network", "sparse", "colbert")}, "one part must be left to train"),
        ({"teacher_loss": "mse", "teacher_scores": True}, "one of 'kl_div', 'm3_kd_loss'"),
        ({"teacher_loss": "m3_kd_loss"}, "no teacher's scores are used: set teacher_scores"),
        ({"self_distill_start_step": 5, "self_distill": False}, "nothing would start"),
        ({"precision": "float16", "cpu": True}, "'float16' on the CPU"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"batch_size": 0}, "batch_size is 0; it must be 1 or more"),
        ({"document_max_length": 2}, "document_max_length is 2; it must be 3 or more"),
        ({"max_steps": 0}, "max_steps is 0"),
    ],
)
def test_options_of_a_run(changes, says):
    TrainOptions(**RUN)
    with pytest.raises(ValueError, match=says):
        TrainOptions(**RUN | changes)


def test_options_of_a_distillation():
    with pytest.raises(ValueError, match="three numbers of 0 or more"):
        Distillation("teacher", weights=(1.0, -1.0, 0.0))
    with pytest.raises(ValueError, match="are all 0"):
        Distillation("teacher", weights=(0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match=r"temperature is 0\.0"):
        Distillation("teacher", temperature=0.0)


def test_other_options():
    with pytest.raises(ValueError, match="method is 'bm25'; it must be one of 'dense', 'sparse'"):
        MiningOptions(method="bm25")
    with pytest.raises(ValueError, match="teacher_loss is 'mse'"):
        LossOptions(teacher_loss="mse")


def test_half_precision_without_a_gpu_is_an_error(base, data, tmp_path, monkeypatch):
    where = TrainingArguments(output_dir=str(tmp_path / "other"), use_cpu=True).device
    monkeypatch.setattr(TrainingArguments, "device", where)
    run = {"model": str(base), "data": (str(data),), "output": str(tmp_path / "out")}
    with pytest.raises(ValueError, match="there is no GPU"):
        prepare(TrainOptions(**run, precision="float16"))


def test_later_self_distillation_and_the_teachers_loss_have_effect(base, data, tmp_path):
    scored = tmp_path / "scored.jsonl"
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    for row in rows:
        row |= {"pos_scores": [2.0], "neg_scores": [1.0, 0.5, 0.0]}
    scored.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    run = {"model": str(base), "data": (str(scored),), "cpu": True, "max_steps": 3, "log_steps": 1}
    late = train(TrainOptions(**run, output=str(tmp_path / "late"), self_distill_start_step=1))
    steps = [entry for entry in late.history if "loss" in entry]
    assert ["loss_self_dense" in entry for entry in steps] == [False, False, True]
    losses = [
        train(
            TrainOptions(**run, output=str(tmp_path / name), teacher_scores=True, teacher_loss=name)
        ).history[0]["loss"]
        for name in ("kl_div", "m3_kd_loss")
    ]
    assert abs(losses[0] - losses[1]) > 1e-3


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (["train", "--precision", "fp16"], "float32"),
        (["train", "--pooling", "max"], "cls"),
        (["train", "--freeze", "heads"], "network"),
        (["train", "--teacher-loss", "mse"], "kl_div"),
        (["mine", "--method", "bm25"], "dense"),
    ],
)
def test_the_command_line_offers_the_choices(arguments, first):
    required = {
        "train": ["--model", "none", "--data", "none", "--output", "none"],
        "mine": ["--model", "none", "--data", "none", "--output", "none"],
    }[arguments[0]]
    found = CliRunner().invoke(app, [*arguments, *required])
    assert found.exit_code == 2
    assert f"one of '{first}'" in found.stderr


def test_the_command_line_reaches_every_option(base, data, tmp_path, monkeypatch):
    seen = []
    own = trainer.M3Trainer.__init__

    def spied(self, *args, loss_options, **options):
        seen.append(loss_options)
        own(self, *args, loss_options=loss_options, **options)

    monkeypatch.setattr(trainer.M3Trainer, "__init__", spied)
    run = ["train", "--model", str(base), "--data", str(data), "--output", str(tmp_path / "out")]
    more = ["--cpu", "--max-steps", "1", "--self-distill-start-step", "3"]
    assert CliRunner().invoke(app, [*run, *more]).exit_code == 0
    assert seen[0].self_distill_start_step == 3
    found = CliRunner().invoke(app, [*run, "--teacher-loss", "m3_kd_loss"])
    assert found.exit_code == 2
    assert "set teacher_scores" in found.stderr
