import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from m3_core import Encoder
from m3_core.errors import M3Error, SavingError
from m3_core.testing import tiny_checkpoint
from m3_core.training.finetune import Distillation, TrainOptions, train
from m3_core.training.modeling import FreshHeadsWarning, TrainableM3


def options(base, data, output, **changes):
    settings = {
        "model": str(base),
        "data": (str(data),),
        "output": str(output),
        "batch_size": 4,
        "epochs": 2,
        "learning_rate": 1e-3,
        "cpu": True,
        "log_steps": 1,
    }
    return TrainOptions(**settings | changes)


def weights(folder):
    return TrainableM3.from_pretrained(folder).state_dict()


def test_training_lowers_the_loss_and_the_result_loads(base, data, tmp_path):
    run = options(base, data, tmp_path / "out", evaluation=(str(data),), epochs=6)
    result = train(run)
    losses = [entry["loss"] for entry in result.history if "loss" in entry]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert any("eval_sparse_recall@1" in entry for entry in result.history)
    encoder = Encoder.from_pretrained(result.folder, device="cpu", dtype="float32")
    reps = encoder.encode_documents(["panda bear"], return_sparse=True, return_colbert_vecs=True)
    model = TrainableM3.from_pretrained(result.folder).eval()
    tokens = model.tokenizer.encode(["panda bear"], 64)
    ids = torch.from_numpy(tokens.ids.astype(np.int64))[None]
    own = model.encode(ids, torch.ones_like(ids))
    np.testing.assert_allclose(reps.dense_vecs, own.dense.detach(), atol=1e-5)
    np.testing.assert_allclose(reps.colbert_vecs[0], own.colbert[0].detach(), atol=1e-5)
    for token, weight in reps.lexical_weights[0].items():
        assert own.sparse[0, token].item() == pytest.approx(weight, abs=1e-5)


def test_resumed_training_ends_with_the_same_weights(base, data, tmp_path):
    whole = options(base, data, tmp_path / "whole", save_steps=3, keep_checkpoints=9)
    train(whole)
    part = options(base, data, tmp_path / "part", save_steps=3)
    source, target = (tmp_path / name / "checkpoints" for name in ("whole", "part"))
    target.mkdir(parents=True)
    shutil.copytree(source / "checkpoint-3", target / "checkpoint-3")
    result = train(replace(part, resume=True))
    assert result.steps == 8
    expected = weights(tmp_path / "whole")
    for name, value in weights(tmp_path / "part").items():
        assert torch.equal(value, expected[name]), name


def test_nothing_to_resume_is_an_error(base, data, tmp_path):
    with pytest.raises(M3Error, match="nothing to resume"):
        train(options(base, data, tmp_path / "out", resume=True))


@pytest.mark.parametrize(
    ("frozen", "prefix"),
    [(("network",), ("network.",)), (("network", "colbert"), ("network.", "colbert_linear."))],
)
def test_frozen_parts_keep_their_weights(base, data, tmp_path, frozen, prefix):
    train(options(base, data, tmp_path / "out", freeze=frozen))
    before, after = weights(base), weights(tmp_path / "out")
    for name in before:
        assert torch.equal(before[name], after[name]) == name.startswith(prefix), name


def test_freezing_everything_is_an_error(base):
    model = TrainableM3.from_pretrained(base)
    with pytest.raises(ValueError, match="left to train"):
        model.freeze("network", "sparse", "colbert")
    with pytest.raises(ValueError, match="cannot freeze head"):
        model.freeze("head")


def test_a_full_disk_leaves_earlier_checkpoints(base, data, tmp_path, monkeypatch):
    written = []
    real = torch.save

    def full(state, path, *args, **kwargs):
        written.append(path)
        if "checkpoint-4" in str(path) and "optimizer" in str(path):
            raise OSError(28, "No space left on device")
        return real(state, path, *args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    run = options(base, data, tmp_path / "out", save_steps=2)
    with pytest.raises(SavingError, match=r"checkpoint-4.*No space left"):
        train(run)
    folder = tmp_path / "out" / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["checkpoint-2"]
    monkeypatch.undo()
    assert train(replace(run, resume=True)).steps == 8


def test_fresh_heads_are_announced_and_seeded(base, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(base, bare)
    for name in ("sparse_linear.pt", "colbert_linear.pt"):
        (bare / name).unlink()
    with pytest.warns(FreshHeadsWarning, match="random weights"):
        one = TrainableM3.from_pretrained(bare, seed=3)
    with pytest.warns(FreshHeadsWarning):
        two = TrainableM3.from_pretrained(bare, seed=3)
    assert torch.equal(one.colbert_linear.weight, two.colbert_linear.weight)


def test_a_teacher_brings_the_student_nearer(base, data, tmp_path):
    teacher = tiny_checkpoint(tmp_path / "teacher", seed=9, positions=64, hidden_size=64)
    run = options(base, data, tmp_path / "out", epochs=8, batch_size=8, learning_rate=3e-3)
    plan = Distillation(str(teacher), temperature=0.2, dense_vectors=1.0, contrast=0.1)
    history = [e for e in train(run, plan).history if "loss_kl_dense" in e]
    for kind in ("kl_dense", "kl_sparse", "kl_colbert"):
        values = [entry[f"loss_{kind}"] for entry in history]
        assert np.mean(values[-4:]) < np.mean(values[:4]), kind


def test_token_vectors_need_one_tokenizer_and_width(base, data, tmp_path):
    other = tiny_checkpoint(tmp_path / "other", kind="m3", positions=64, hidden_size=64)
    run = options(base, data, tmp_path / "out")
    with pytest.raises(ValueError, match="32 values, the teacher's 64"):
        train(run, Distillation(str(other), token_vectors=1.0))
    config = json.loads((other / "tokenizer.json").read_text("utf-8"))
    pieces = config["model"]["vocab"]
    pieces[10], pieces[11] = pieces[11], pieces[10]
    (other / "tokenizer.json").write_text(json.dumps(config), "utf-8")
    vocabulary = [piece for piece, _ in pieces]
    assert vocabulary[10] != vocabulary[11]
    with pytest.raises(ValueError, match="other tokenizers"):
        train(run, Distillation(str(other), token_vectors=1.0))


def test_token_vectors_of_the_same_tokenizer_are_learnt(base, data, tmp_path):
    teacher = tiny_checkpoint(tmp_path / "teacher", seed=4, positions=64)
    plan = Distillation(str(teacher), weights=(0.0, 0.0, 0.0), token_vectors=1.0)
    run = options(base, data, tmp_path / "out", epochs=8, learning_rate=3e-3)
    losses = [e["loss"] for e in train(run, plan).history if "loss" in e]
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])


def test_a_teacher_without_heads_cannot_teach_them(base, data, tmp_path):
    teacher = tiny_checkpoint(tmp_path / "teacher", kind="dense", positions=64)
    with pytest.raises(ValueError, match="gives no colbert and no sparse"):
        train(options(base, data, tmp_path / "out"), Distillation(str(teacher)))
