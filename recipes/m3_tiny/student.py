"""Build the untrained student: a small XLM-R with the cut vocabulary, from the teacher's rows."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import torch

from m3_core.tokens import Tokenizer
from m3_core.training.distillation import shrink_embeddings
from m3_core.training.modeling import TrainableM3, fresh_heads
from m3_core.training.saving import save_checkpoint

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the student's shape to the command line."""
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--intermediate", type=int, default=768)
    parser.add_argument("--positions", type=int, default=512)
    parser.add_argument("--embedding-scale", type=float, default=0.1)


def kept_ids(old_to_new: Path) -> np.ndarray:
    """The teacher's id of each of the student's, from the mapping that vocabulary.py writes."""
    mapping = np.load(old_to_new)
    kept = np.flatnonzero(mapping >= 0)
    return kept[np.argsort(mapping[kept])].astype(np.int64)


def build_student(
    teacher: TrainableM3, vocabulary: Path, folder: Path, shape: argparse.Namespace
) -> TrainableM3:
    """Write the student's folder and load it.

    Args:
        teacher: Its embeddings are where the student's begin.
        vocabulary: Folder with tokenizer.json and old_to_new.npy.
        folder: Where to write the student.
        shape: As of ``add_arguments``.

    Returns:
        The student, in training mode.
    """
    from transformers import AutoModel, XLMRobertaConfig

    kept = kept_ids(vocabulary / "old_to_new.npy")
    config = XLMRobertaConfig(
        vocab_size=len(kept),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=shape.positions + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        initializer_range=0.04,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    network = AutoModel.from_config(config, add_pooling_layer=False, attn_implementation="sdpa")
    wide = teacher.network.embeddings
    rows, projection = shrink_embeddings(
        wide.word_embeddings.weight.detach().cpu(), kept, shape.hidden
    )
    places = wide.position_embeddings.weight.detach().cpu().float()[: shape.positions + 2]
    scale = shape.embedding_scale / rows.square().mean().sqrt()
    with torch.no_grad():
        network.embeddings.word_embeddings.weight.copy_(rows * scale)
        own = network.embeddings.position_embeddings.weight
        own[: len(places)] = (places - places.mean(0)) @ projection.matrix * scale
        network.embeddings.token_type_embeddings.weight.zero_()
    sparse, colbert = fresh_heads(shape.hidden, 0)
    torch.nn.init.constant_(sparse.bias, 0.15)
    source = tokenizer_files(teacher.source, vocabulary, folder.with_name(folder.name + ".source"))
    student = TrainableM3(
        network,
        sparse,
        colbert,
        tokenizer=Tokenizer.from_folder(source),
        pooling="mean",
        source=source,
    )
    save_checkpoint(student, folder, prompts={})
    shutil.rmtree(source)
    return TrainableM3.from_pretrained(folder)


def tokenizer_files(teacher: Path, vocabulary: Path, folder: Path) -> Path:
    """Put the cut tokenizer and the teacher's names of special tokens into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(vocabulary / "tokenizer.json", folder / "tokenizer.json")
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        shutil.copyfile(teacher / name, folder / name)
    return folder


def round_mantissas(model: torch.nn.Module, bits: int) -> None:
    """Round weights to float16 with fewer bits, so that an archive holds them in less room."""
    with torch.no_grad():
        for weight in model.parameters():
            half = (
                weight.detach().cpu().numpy().astype(np.float16).view(np.uint16).astype(np.uint32)
            )
            drop = 10 - bits
            if drop > 0:
                half = (half + (1 << (drop - 1))) >> drop << drop
            value = half.astype(np.uint16).view(np.float16).astype(np.float32)
            weight.copy_(torch.from_numpy(value))


def wheel_bytes(folder: Path) -> dict[str, int]:
    """Bytes of a checkpoint's files as they are, and as a wheel compresses them."""
    import zlib

    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        "files": sum(path.stat().st_size for path in files),
        "compressed": sum(len(zlib.compress(path.read_bytes(), 9)) for path in files),
    }


def write_shape(folder: Path, values: dict) -> None:
    """Note beside a checkpoint how it was made."""
    (folder / "recipe.json").write_text(json.dumps(values, indent=1, default=str) + "\n", "utf-8")
