"""Losses and gradients against FlagEmbedding's training code, as recorded by record_m3_loss.py."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from m3_core.testing import tiny_checkpoint
from m3_core.training.loss import LossOptions, m3_loss
from m3_core.training.modeling import TrainableM3
from m3_core.training.trainer import score_batch

RECORDED = json.loads(
    (Path(__file__).parents[2] / "parity" / "m3_loss.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tiny_checkpoint(tmp_path_factory.mktemp("loss"), seed=7, positions=64)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


def signature(gradient):
    flat = gradient.double().flatten()
    probes = np.random.default_rng(3).standard_normal((3, len(flat))) / len(flat) ** 0.5
    return [float(flat.norm()), *(torch.from_numpy(probes) @ flat).tolist()]


@pytest.mark.parametrize("sub_batch_tokens", [None, 40])
@pytest.mark.parametrize("name", RECORDED["cases"])
def test_losses_and_gradients_are_flagembeddings(folder, name, sub_batch_tokens):
    case = RECORDED["cases"][name]
    asked = case["options"]
    pooling = {"mean": "mean", "last_token": "last"}.get(asked.get("sentence_pooling_method"))
    model = TrainableM3.from_pretrained(folder, pooling=pooling).train()
    model.sub_batch_tokens = sub_batch_tokens
    options = LossOptions(
        temperature=asked.get("temperature", 0.02),
        self_distill=asked.get("use_self_distill", False),
        self_distill_start_step=asked.get("self_distill_start_step", -1),
        teacher_loss=asked.get("kd_loss_type", "kl_div"),
        in_batch_negatives=not asked.get("own", False),
    )
    batch = {name: torch.tensor(values) for name, values in RECORDED["batch"].items()}
    queries, documents = model(**batch, unified=asked.get("unified_finetuning", True))
    teacher = torch.tensor(RECORDED["teacher_scores"]).view(4, 2) if asked.get("teacher") else None
    scores = score_batch(queries, documents, options)
    loss = m3_loss(scores, 2, options, teacher_scores=teacher)["loss"]
    loss.backward()

    assert loss.item() == pytest.approx(case["loss"], abs=1e-5, rel=1e-6)
    own = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert own.keys() == case["gradients"].keys()
    for parameter, gradient in own.items():
        expected = case["gradients"][parameter]
        # Relative to the gradient's norm, where that is above 1.
        tolerance = 1e-5 * max(1.0, expected[0])
        np.testing.assert_allclose(signature(gradient), expected, rtol=0, atol=tolerance)
