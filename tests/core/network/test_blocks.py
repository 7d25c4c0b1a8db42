"""Checkpoints whose matrices are stored in blocks of 4 bits: expanded, exported, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from m3_core import Encoder
from m3_core.cli.main import main
from m3_core.errors import CorruptCheckpointError
from m3_core.testing import tiny_checkpoint

TEXTS = ["a panda eats bamboo", "der Fluss", "大熊猫", "query: river city water"]
BLOCKS = "model.blocks.safetensors"
ALL = {"return_sparse": True, "return_colbert_vecs": True}


def quantised(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Nibbles, scales and the values that they stand for, one value after the other."""
    rows, columns = weight.shape
    nibbles = np.zeros((rows, columns // 2), np.uint8)
    scales = np.zeros((rows, columns // 32), np.float16)
    values = np.zeros((rows, columns), np.float32)
    for row in range(rows):
        for block in range(columns // 32):
            own = weight[row, block * 32 : block * 32 + 32].double().numpy()
            scale = scales[row, block] = np.float16(np.abs(own).max() / 7)
            for place, value in enumerate(own):
                level = int(np.clip(round(value / float(scale)) + 8, 0, 15))
                values[row, block * 32 + place] = (level - 8) * np.float32(scale)
                nibbles[row, block * 16 + place % 16] |= level << (4 if place >= 16 else 0)
    return tuple(torch.from_numpy(one) for one in (nibbles, scales, values))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint in blocks and one with the values that they stand for."""
    root = tmp_path_factory.mktemp("blocks")
    plain = tiny_checkpoint(root / "plain", pooling="mean", hidden_size=32)
    blocked = root / "blocked"
    shutil.copytree(plain, blocked)
    state = load_file(plain / "model.safetensors")
    stored: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        if value.ndim == 2 and value.shape[1] % 32 == 0 and "position" not in name:
            nibbles, scales, state[name] = quantised(value)
            stored |= {f"{name}.nibbles": nibbles, f"{name}.scales": scales}
        else:
            stored[name] = value
    assert len(stored) > len(state)
    save_file(state, plain / "model.safetensors", metadata={"format": "pt"})
    (blocked / "model.safetensors").unlink()
    save_file(stored, blocked / BLOCKS, metadata={"format": "pt"})
    return blocked, plain


def assert_equal(one: Path, other: Path) -> None:
    a, b = (
        Encoder.from_pretrained(folder, device="cpu", dtype="float32").encode_documents(
            TEXTS, **ALL
        )
        for folder in (one, other)
    )
    np.testing.assert_allclose(a.dense_vecs, b.dense_vecs, atol=1e-6)
    np.testing.assert_array_equal(a.lexical_weights.token_ids, b.lexical_weights.token_ids)
    np.testing.assert_allclose(a.lexical_weights.weights, b.lexical_weights.weights, atol=1e-6)
    np.testing.assert_allclose(a.colbert_vecs.vectors, b.colbert_vecs.vectors, atol=1e-6)


def test_blocks_give_what_their_values_give(folders):
    assert_equal(*folders)


def test_an_exported_folder_is_plain_and_gives_the_same(folders, tmp_path, capsys):
    blocked, plain = folders
    with pytest.raises(SystemExit) as end:
        main(["export", str(blocked), str(tmp_path / "out")])
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out) == {"model": str(tmp_path / "out")}
    assert not (tmp_path / "out" / BLOCKS).exists()
    modules = json.loads((tmp_path / "out" / "modules.json").read_text("utf-8"))
    kinds = [(one["path"], one["type"].rsplit(".", 1)[1]) for one in modules]
    assert kinds == [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    exported = load_file(tmp_path / "out" / "model.safetensors")
    for name, value in load_file(plain / "model.safetensors").items():
        torch.testing.assert_close(exported[name], value, rtol=0, atol=0)
    AutoModel.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert_equal(tmp_path / "out", plain)


def test_plain_transformers_refuses_blocks_instead_of_starting_from_random_weights(folders):
    with pytest.raises(OSError, match="no file named"):
        AutoModel.from_pretrained(folders[0])


def test_blocks_without_their_scales_are_missing_weights(folders, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folders[0], broken)
    state = load_file(broken / BLOCKS)
    del state["embeddings.word_embeddings.weight.scales"]
    save_file(state, broken / BLOCKS, metadata={"format": "pt"})
    with pytest.raises(CorruptCheckpointError, match=r"lack 1 tensors .*word_embeddings"):
        Encoder.from_pretrained(broken, device="cpu")


def test_a_type_that_cannot_be_exported_is_an_error(folders, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["export", str(folders[0]), str(tmp_path / "out"), "--dtype", "int8"])
    assert end.value.code == 2
    assert "--dtype is 'int8'; it must be one of float32" in capsys.readouterr().err
