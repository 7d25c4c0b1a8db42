"""Backbones other than those of the tiny checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from tests.conftest import make_text
from tests.core.reference import Reference
from transformers import RobertaConfig, RobertaModel

from m3_core import Encoder
from m3_core.testing import tiny_checkpoint


def test_roberta_equals_its_padded_forward(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, kind="dense", positions=512)
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = RobertaConfig(
        vocab_size=stored["vocab_size"],
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    texts = [make_text(i, words) for i, words in enumerate([0, 3, 5, 60, 100])] + ["a <pad> b"]
    ours = Encoder.from_pretrained(folder, device="cpu", dtype="float32").encode_documents(texts)
    expected, _, _ = Reference(folder, "cls").encode(texts, 512)
    np.testing.assert_allclose(ours.dense_vecs, expected, atol=1e-5)
