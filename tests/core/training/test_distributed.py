"""Training in two processes, as ``torchrun`` starts them, on the CPU."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.core.training.conftest import write_examples

from m3_core import Encoder
from m3_core.training.modeling import TrainableM3

GATHERING = """
import sys

import torch
import torch.distributed as dist

from m3_core.training.loss import LossOptions
from m3_core.training.padded import Encoded
from m3_core.training.trainer import score_batch

dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
stored = torch.load(sys.argv[1])
q, d = (stored[name].chunk(size)[rank].requires_grad_() for name in "qd")
own = [Encoded(dense=values, sparse=None, colbert=None, mask=None) for values in (q, d)]
scores = score_batch(*own, LossOptions(cross_device=True))
scores.dense.logsumexp(1).sum().backward()
result = {"dense": scores.dense.detach(), "first": scores.first_query, "q": q.grad, "d": d.grad}
torch.save(result, f"{sys.argv[1]}.{rank}")
"""


def in_two_processes(*command: str) -> None:
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*run, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_dense_scores_reach_across_processes(tmp_path):
    stored = {"q": torch.randn(4, 8), "d": torch.randn(8, 8)}
    torch.save(stored, tmp_path / "batch")
    (tmp_path / "gathering.py").write_text(GATHERING)
    in_two_processes(str(tmp_path / "gathering.py"), str(tmp_path / "batch"))
    q, d = (stored[name].clone().requires_grad_() for name in "qd")
    temperature = 0.02
    expected = q @ d.T / temperature
    expected.logsumexp(1).sum().backward()
    found = [torch.load(tmp_path / f"batch.{rank}") for rank in (0, 1)]
    for rank, one in enumerate(found):
        torch.testing.assert_close(one["dense"], expected.detach())
        assert one["first"] == 2 * rank
    # Each process holds the gradients of its own texts: together those of the whole batch.
    torch.testing.assert_close(torch.cat([one["q"] for one in found]), q.grad)
    torch.testing.assert_close(torch.cat([one["d"] for one in found]), d.grad)


@pytest.mark.parametrize("cross_device", [True, False])
def test_both_processes_train_one_model(base, tmp_path, cross_device):
    data = write_examples(tmp_path / "data.jsonl")
    output = tmp_path / "out"
    in_two_processes(
        *("-m", "m3_core.cli.main", "train", "--model", str(base), "--data", str(data)),
        *("--output", str(output), "--batch-size", "4", "--max-steps", "3", "--cpu"),
        *("--learning-rate", "1e-3", "--save-steps", "2"),
        "--cross-device" if cross_device else "--no-cross-device",
    )
    assert (output / "checkpoints" / "checkpoint-2").is_dir()
    before = TrainableM3.from_pretrained(base).state_dict()
    after = TrainableM3.from_pretrained(output).state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    reps = Encoder.from_pretrained(output, device="cpu").encode_documents(["panda"])
    assert np.isfinite(reps.dense_vecs).all()
