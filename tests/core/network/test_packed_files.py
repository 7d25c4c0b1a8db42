"""Checkpoints that the packed network reads: layouts of files, damage, what is left to others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.core.network.test_packed import VOCABULARY, load, packed, padded, write
from tests.core.network.test_packed import folders as folders

from m3_core import Encoder, Reranker
from m3_core.errors import CorruptCheckpointError, UnsupportedModelError
from m3_core.network.batches import PackedBatch
from m3_core.network.checkpoint import read_checkpoint
from m3_core.network.packed import is_packable
from m3_core.network.transformers_network import TransformersBackbone
from m3_core.testing import tiny_checkpoint
from m3_core.testing.rerankers import tiny_reranker


def sharded(folder: Path, suffix: str, save: Callable[[Any, Path], object]) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names, places = sorted(state), {}
    for number in range(3):
        part = f"{stem}-0000{number + 1}-of-00003.{suffix}"
        save({name: state[name] for name in names[number::3]}, folder / part)
        places |= dict.fromkeys(names[number::3], part)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))


def as_bin(folder: Path, **how: Any) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin", **how)
    (folder / "model.safetensors").unlink()


def renamed(folder: Path, rename: Callable[[str], str]) -> None:
    state = load_file(folder / "model.safetensors")
    changed = {rename(name): tensor for name, tensor in state.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})


def legacy(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta"
    )


def half(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    kept = {name: tensor.half() for name, tensor in state.items()}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


LAYOUTS = {
    "bin": as_bin,
    "first-format bin": lambda f: as_bin(f, _use_new_zipfile_serialization=False),
    "sharded": lambda f: sharded(f, "safetensors", lambda s, p: save_file(s, p, {"format": "pt"})),
    "sharded bin": lambda f: sharded(f, "bin", torch.save),
    "prefixed": lambda f: renamed(f, lambda name: f"bert.{name}"),
    "legacy": lambda f: renamed(f, legacy),
    "prefixed legacy": lambda f: renamed(f, lambda name: f"bert.{legacy(name)}"),
    "float16": half,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_files(folders: dict[str, Path], tmp_path: Path, layout: str) -> None:
    folder = Path(shutil.copytree(folders["bert"], tmp_path / "copy"))
    batch = packed([9, 4])
    LAYOUTS[layout](folder)
    hidden, _ = load(folder).forward(batch)
    torch.testing.assert_close(hidden, torch.cat(padded(folder, batch)), atol=1e-5, rtol=0)
    if layout != "float16":
        expected, _ = load(folders["bert"]).forward(batch)
        torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=0)


def test_a_classifier_serves_as_encoder(tmp_path: Path) -> None:
    folder = write(tmp_path, "roberta", "ForSequenceClassification")
    assert any(name.startswith("roberta.") for name in load_file(folder / "model.safetensors"))
    batch = packed([9, 4])
    hidden, _ = load(folder).forward(batch)
    torch.testing.assert_close(hidden, torch.cat(padded(folder, batch)), atol=1e-5, rtol=0)


def drop(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["encoder.layer.1.output.dense.bias"], state["embeddings.LayerNorm.weight"]
    save_file(state, folder / "model.safetensors")


def reshape(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["embeddings.word_embeddings.weight"] = torch.zeros(VOCABULARY - 1, 24)
    save_file(state, folder / "model.safetensors")


def lose_a_part(folder: Path) -> None:
    LAYOUTS["sharded"](folder)
    (folder / "model-00002-of-00003.safetensors").unlink()


def run_code(folder: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (folder / "was-run",)

    torch.save({"embeddings.LayerNorm.bias": Evil()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drop, r"lack 2 tensors .* such as embeddings\.LayerNorm\.weight"),
        (reshape, r"lack 1 tensors .* other shapes, such as embeddings\.word_embeddings\.weight"),
        (lose_a_part, "cannot be loaded"),
        (run_code, "cannot be loaded"),
    ],
)
def test_damage_is_named(
    folders: dict[str, Path], tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    folder = Path(shutil.copytree(folders["bert"], tmp_path / "copy"))
    damage(folder)
    with pytest.raises(CorruptCheckpointError, match=words):
        load(folder)
    assert not (folder / "was-run").exists()


def edited(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"is_decoder": True},
        {"is_decoder": True, "add_cross_attention": True},
        {"position_embedding_type": "relative_key"},
    ],
)
def test_attention_that_nothing_computes_is_refused(tmp_path: Path, changes: dict) -> None:
    folder = edited(tiny_checkpoint(tmp_path, kind="bge"), **changes)
    with pytest.raises(UnsupportedModelError, match=f"sets {next(iter(changes))}"):
        Encoder.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize(
    ("changes", "trusted"),
    [
        ({"hidden_act": "mish"}, False),
        ({"auto_map": {"AutoModel": "own.Model"}}, True),
        ({"quantization_config": {"quant_method": "fp8"}}, False),
        ({"pruned_heads": {"0": [1]}}, False),
        ({"model_type": "nomic_bert"}, False),
    ],
)
def test_what_is_left_to_transformers(tmp_path: Path, changes: dict, trusted: bool) -> None:
    folder = tiny_checkpoint(tmp_path, kind="bge")
    assert is_packable(read_checkpoint(folder, "x"), trust_remote_code=True)
    checkpoint = read_checkpoint(edited(folder, **changes), "x")
    assert not is_packable(checkpoint, trust_remote_code=trusted)
    assert is_packable(checkpoint) == trusted


def test_adapters_are_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, kind="bge")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UnsupportedModelError, match="merge_and_unload"):
        Encoder.from_pretrained(folder, device="cpu")


def test_other_activations_are_transformers(tmp_path: Path) -> None:
    folder = edited(tiny_checkpoint(tmp_path / "e", kind="bge"), hidden_act="mish")
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype="float32")
    assert isinstance(encoder.model.network.backbone, TransformersBackbone)
    ours = encoder.encode_documents(["a panda"]).dense_vecs
    ids = encoder.model.tokenizer.encode(["a panda"], 99).ids
    batch = PackedBatch(ids, np.array([0, len(ids)]))
    expected = torch.nn.functional.normalize(padded(folder, batch)[0][:1], dim=-1)
    np.testing.assert_allclose(ours, expected.numpy(), atol=1e-5)
    folder = edited(tiny_reranker(tmp_path / "r", kind="bert"), hidden_act="mish")
    reranker = Reranker.from_pretrained(folder, device="cpu", dtype="float32")
    assert isinstance(reranker.model.network.network.backbone, TransformersBackbone)
    assert np.isfinite(reranker.compute_score([("a", "b")])).all()
