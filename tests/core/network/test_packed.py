"""The packed network against transformers' padded forward, whatever the checkpoint's files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RawTokenizer

from m3_core import Encoder, Reranker
from m3_core.encoder.heads import pool
from m3_core.network.batches import PackedBatch
from m3_core.network.checkpoint import read_checkpoint
from m3_core.network.device import cpu_multiplies
from m3_core.network.layers import Layer
from m3_core.network.packed import ACTIVATIONS, PackedBackbone, is_packable
from m3_core.network.packing import few_counts
from m3_core.testing import tiny_checkpoint
from m3_core.testing.rerankers import tiny_reranker

CPU = torch.device("cpu")
VOCABULARY = 60
CONFIGS = {
    "xlm-roberta": ("XLMRoberta", {"type_vocab_size": 1, "pad_token_id": 1}),
    "roberta": ("Roberta", {"type_vocab_size": 2, "pad_token_id": 3}),
    "bert": ("Bert", {"type_vocab_size": 3, "pad_token_id": 0}),
}


def write(folder: Path, kind: str, head: str = "Model", **changes: Any) -> Path:
    """A random checkpoint of a class of transformers, saved by transformers."""
    name, own = CONFIGS[kind]
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "max_position_embeddings": 8196,
        "layer_norm_eps": 1e-5,
        "num_labels": 1,
    }
    config = getattr(transformers, f"{name}Config")(**shape | own | changes)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = getattr(transformers, f"{name}{head}")(config)
        for parameter in network.parameters():
            # Biases and norms that are not those of initialisation, and far from linear.
            parameter.data.add_(torch.randn(parameter.shape) * 0.3)
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("packed")
    return {kind: write(root / kind, kind) for kind in CONFIGS}


def load(
    folder: Path, device: torch.device = CPU, dtype: torch.dtype = torch.float32
) -> PackedBackbone:
    checkpoint = read_checkpoint(folder, folder.name)
    assert is_packable(checkpoint)
    return PackedBackbone.load(checkpoint, device, dtype)


def packed(lengths: list[int], seed: int = 0) -> PackedBatch:
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, sum(lengths)).astype(np.int32)
    return PackedBatch(ids, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def padded(folder: Path, batch: PackedBatch, types: np.ndarray | None = None) -> list[torch.Tensor]:
    """What transformers gives for each text, from a batch padded to the longest."""
    network = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    padding, count = network.config.pad_token_id, len(batch.lengths)
    ids = torch.full((count, int(batch.lengths.max())), padding)
    mask, segments = torch.zeros_like(ids), torch.zeros_like(ids)
    for i, length in enumerate(batch.lengths):
        text = slice(batch.offsets[i], batch.offsets[i + 1])
        ids[i, :length] = torch.from_numpy(batch.ids[text].astype(np.int64))
        mask[i, :length] = 1
        if types is not None:
            segments[i, :length] = torch.from_numpy(types[text])
    with torch.inference_mode():
        output = network(input_ids=ids, attention_mask=mask, token_type_ids=segments)
    states = output.last_hidden_state
    return [states[i, :length] for i, length in enumerate(batch.lengths)]


# Every id of the vocabulary occurs, padding ids too.
@pytest.mark.parametrize("lengths", [[1], [10], [1, 1, 1], [300, 64, 64, 7, 7, 7, 2, 1]])
@pytest.mark.parametrize("kind", CONFIGS)
def test_equal_to_the_padded_forward(
    folders: dict[str, Path], kind: str, lengths: list[int]
) -> None:
    batch, backbone = packed(lengths), load(folders[kind])
    types = None
    for _ in range(2):
        hidden, offsets = backbone.forward(batch, types)
        assert offsets.tolist() == batch.offsets.tolist()
        expected = padded(folders[kind], batch, types)
        torch.testing.assert_close(hidden, torch.cat(expected), atol=1e-5, rtol=0)
        ends = {"cls": lambda t: t[0], "last": lambda t: t[-1], "mean": lambda t: t.mean(0)}
        for pooling, of_text in ends.items():
            wanted = torch.stack([of_text(text) for text in expected])
            pooled = pool(hidden, offsets, pooling)
            torch.testing.assert_close(pooled, wanted, atol=1e-5, rtol=0)
        # Then as pairs: the second halves are another segment, where there is one.
        within = np.arange(len(batch.ids)) - np.repeat(batch.offsets[:-1], batch.lengths)
        types = (within > np.repeat(batch.lengths, batch.lengths) // 2).astype(np.int64)
        types *= CONFIGS[kind][1]["type_vocab_size"] - 1


@pytest.mark.parametrize("kind", CONFIGS)
def test_equal_at_the_longest(folders: dict[str, Path], kind: str) -> None:
    batch = packed([8192])
    hidden, _ = load(folders[kind]).forward(batch)
    expected = torch.cat(padded(folders[kind], batch))
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", CONFIGS)
@settings(max_examples=25)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_neighbours_do_not_matter(
    folders: dict[str, Path], kind: str, lengths: list[int], seed: int
) -> None:
    backbone, batch = load(folders[kind]), packed(sorted(lengths, reverse=True), seed)
    together, _ = backbone.forward(batch)
    for i in range(len(lengths)):
        lone, _ = batch.take(np.array([i]))
        alone, _ = backbone.forward(lone)
        part = together[batch.offsets[i] : batch.offsets[i + 1]]
        torch.testing.assert_close(part, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(tmp_path: Path, activation: str) -> None:
    folder, batch = write(tmp_path, "bert", hidden_act=activation), packed([9, 4])
    hidden, _ = load(folder).forward(batch)
    torch.testing.assert_close(hidden, torch.cat(padded(folder, batch)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", CONFIGS)
def test_cross_encoders_equal_transformers(tmp_path: Path, kind: str) -> None:
    reranker_kind = "bert" if kind == "bert" else "cross-encoder"
    folder = tiny_reranker(tmp_path, kind=reranker_kind)
    if kind == "roberta":
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": kind, "architectures": ["RobertaForSequenceClassification"]}
        (folder / "config.json").write_text(json.dumps(config))
    pairs = [("what is a panda", "a bear"), ("x", ""), ("river", "city " * 60), ("мир", "世界")]
    reranker = Reranker.from_pretrained(folder, device="cpu", dtype="float32")
    assert isinstance(reranker.model.network.network.backbone, PackedBackbone)
    ours = reranker.compute_score(pairs)
    raw = RawTokenizer.from_file(str(folder / "tokenizer.json"))
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = [raw.encode(query, document).ids for query, document in pairs]
    inputs = torch.full((len(ids), max(map(len, ids))), network.config.pad_token_id)
    mask, segments = torch.zeros_like(inputs), torch.zeros_like(inputs)
    for i, row in enumerate(ids):
        inputs[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
        if kind == "bert":
            segments[i, len(raw.encode(pairs[i][0]).ids) : len(row)] = 1
    with torch.inference_mode():
        output = network(input_ids=inputs, attention_mask=mask, token_type_ids=segments)
    theirs = output.logits.squeeze(-1)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


def test_bfloat16_stays_near_float32(folders: dict[str, Path]) -> None:
    if not cpu_multiplies(torch.bfloat16):
        pytest.skip("this CPU has no bfloat16 instructions")
    batch = packed([200, 10, 10, 1])
    for folder in folders.values():
        exact, _ = load(folder).forward(batch)
        near, _ = load(folder, dtype=torch.bfloat16).forward(batch)
        assert near.dtype == torch.bfloat16
        cosine = torch.nn.functional.cosine_similarity(near.float(), exact, dim=-1)
        assert cosine.min() > 0.99


def test_shapes_and_types_without_content(folders: dict[str, Path]) -> None:
    batch = packed([20, 5, 5, 1])
    for folder in folders.values():
        backbone = load(folder, torch.device("meta"), torch.float16)
        hidden, offsets = backbone.forward(batch)
        assert (hidden.shape, hidden.dtype, hidden.device.type) == ((31, 24), torch.float16, "meta")
        assert (offsets.shape, offsets.dtype) == ((5,), torch.int64)


def test_transformers_is_not_imported(tiny_m3: Path, tmp_path: Path) -> None:
    reranker = tiny_reranker(tmp_path)
    code = f"""
import sys
from m3_core import Encoder, Reranker
Encoder.from_pretrained({str(tiny_m3)!r}).encode_documents(["a"], return_sparse=True)
Reranker.from_pretrained({str(reranker)!r}).compute_score([("a", "b")])
for name in ("transformers", "huggingface_hub", "httpx"):
    assert name not in sys.modules, name
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_texts_of_many_lengths_are_computed_in_few_numbers_of_rows(tmp_path, monkeypatch):
    """oneDNN keeps a compiled product for each number of rows that it met."""
    seen = set()
    called = Layer.__call__

    def noted(self, states, packing):
        seen.add(len(states))
        return called(self, states, packing)

    monkeypatch.setattr(Layer, "__call__", noted)
    encoder = Encoder.from_pretrained(tiny_checkpoint(tmp_path), device="cpu", dtype="float32")
    for length in range(1, 129):
        encoder.encode_documents(["a " * length])
    assert len(seen) <= 128 // 2
    needed = np.arange(1, 8193)
    rows = np.array([few_counts(int(count)) for count in needed])
    assert (rows >= needed).all()
    assert len(np.unique(rows)) <= 200
    assert (rows - needed).sum() <= 0.1 * needed.sum()
