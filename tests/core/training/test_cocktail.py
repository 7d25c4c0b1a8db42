import shutil

import pytest
import torch

from m3_core import Encoder
from m3_core.errors import CorruptCheckpointError
from m3_core.testing import tiny_checkpoint
from m3_core.training.cocktail import mix_checkpoints, mix_states
from m3_core.training.modeling import TrainableM3


def test_every_weight_is_the_weighted_sum(base, tmp_path):
    other = tiny_checkpoint(tmp_path / "other", seed=2, positions=64)
    mixed = mix_checkpoints([base, other], [0.25, 0.75], tmp_path / "mixed")
    states = [TrainableM3.from_pretrained(folder).state_dict() for folder in (base, other, mixed)]
    for name, value in states[2].items():
        expected = 0.25 * states[0][name].double() + 0.75 * states[1][name].double()
        torch.testing.assert_close(value.double(), expected, atol=1e-6, rtol=1e-6)
    assert "sparse" in Encoder.from_pretrained(mixed, device="cpu").representations


def test_one_checkpoint_of_weight_1_is_itself(base, tmp_path):
    mixed = mix_checkpoints([base], [1.0], tmp_path / "mixed")
    one, two = (TrainableM3.from_pretrained(folder).state_dict() for folder in (base, mixed))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("weights", "says"), [([0.5, 0.6], "add up to 1.1"), ([1.0], "2 checkpoints and 1 weights")]
)
def test_weights_must_fit(weights, says):
    with pytest.raises(ValueError, match=says):
        mix_states([{"w": torch.ones(1)}] * 2, weights)


def test_other_architectures_and_tokenizers_are_errors(base, tmp_path):
    wide = tiny_checkpoint(tmp_path / "wide", hidden_size=64, positions=64)
    with pytest.raises(ValueError, match="another architecture"):
        mix_checkpoints([base, wide], [0.5, 0.5], tmp_path / "mixed")
    changed = shutil.copytree(base, tmp_path / "changed")
    text = (changed / "tokenizer.json").read_text("utf-8")
    (changed / "tokenizer.json").write_text(text + " ", "utf-8")
    with pytest.raises(CorruptCheckpointError, match=r"another tokenizer\.json"):
        mix_checkpoints([base, changed], [0.5, 0.5], tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()
