"""A model for tests that search: a table of token vectors, quick, and its results mean something.

A random checkpoint finds nothing, and m3-small has twelve layers to compute. This one has the
token vectors of m3-small's more frequent pieces, and no more: a layer that adds nothing, and whose
normalisation keeps what rows say and how much each counts. A text's dense vector is the mean of
its tokens, rare ones counting most; lexical weights are the tokens' rarity.
"""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import XLMRobertaConfig, XLMRobertaModel

from m3_core.network import BLOCKS_FILE, NIBBLES, SCALES, locate
from m3_core.network.blocks import expand

_DEMO = Path(__file__).parent.parent / "core" / "m3_core" / "cli"


def _read(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (_DEMO / name).read_text(encoding="utf-8").splitlines()]


# The demo's passages, and a question in each of its languages.
CORPUS = {"documents": _read("demo.jsonl"), "queries": _read("demo_questions.jsonl")[:7]}
PIECES = 8_000
MEANING, RARITY, HIDDEN = 96, 2, 128


@functools.cache
def table() -> Path:
    """The checkpoint, written when it is first asked for and deleted when Python ends."""
    parent = Path(tempfile.mkdtemp(prefix="m3-table-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    return write_table(parent / "table")


def write_table(folder: Path) -> Path:
    """Write the checkpoint.

    Args:
        folder: Where to.

    Returns:
        The folder.
    """
    small = locate("m3-small")
    (folder / "1_Pooling").mkdir(parents=True)
    kept = _choose_pieces(small)
    tokenizer = json.loads((small / "tokenizer.json").read_text("utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = [vocabulary[i] for i in kept]
    for token in tokenizer["added_tokens"]:
        token["id"] = kept.index(token["id"])
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    for name in ("special_tokens_map.json", "tokenizer_config.json", "1_Pooling/config.json"):
        shutil.copyfile(small / name, folder / name)
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling), encoding="utf-8")
    # Pieces come in order of frequency.
    rarity = torch.tensor(kept).float().add(1).log()
    network = _network(_rows(small, kept), (rarity / rarity.max()).clamp(min=0.05))
    save_file(network.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(network.config.to_json_string(), encoding="utf-8")
    weigh = torch.zeros(1, HIDDEN)
    weigh[0, MEANING : MEANING + RARITY] = torch.tensor([0.25, -0.25])
    torch.save({"weight": weigh, "bias": torch.zeros(1)}, folder / "sparse_linear.pt")
    same = {"weight": torch.eye(HIDDEN), "bias": torch.zeros(HIDDEN)}
    torch.save(same, folder / "colbert_linear.pt")
    return folder


def _choose_pieces(small: Path) -> list[int]:
    """The most frequent, and what the corpus and characters of its scripts need."""
    tokenizer = Tokenizer.from_file(str(small / "tokenizer.json"))
    texts = [one["text"] for part in CORPUS.values() for one in part]
    used = {i for encoded in tokenizer.encode_batch(texts) for i in encoded.ids}
    return sorted({*range(PIECES), *used, tokenizer.token_to_id("<mask>")})


def _rows(small: Path, kept: list[int]) -> torch.Tensor:
    """Token vectors in the directions in which they differ most, of length 1."""
    name = "embeddings.word_embeddings.weight"
    stored = load_file(small / BLOCKS_FILE)
    rows = expand(stored[name + NIBBLES][kept], stored[name + SCALES][kept])
    rows -= rows.mean(0)
    directions = torch.linalg.eigh(rows.T @ rows).eigenvectors[:, -MEANING:]
    return torch.nn.functional.normalize(rows @ directions, dim=-1)


def _network(rows: torch.Tensor, rarity: torch.Tensor) -> XLMRobertaModel:
    """The network whose hidden states are the rows, each as long as its token is rare."""
    config = XLMRobertaConfig(
        vocab_size=len(rows),
        hidden_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=HIDDEN,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        architectures=["XLMRobertaModel"],
    )
    torch.manual_seed(0)
    network = XLMRobertaModel(config, add_pooling_layer=False)
    meaning = rows * (0.7 * rarity)[:, None]
    said = torch.stack([0.3 * rarity, -0.3 * rarity], 1)
    # Normalisation makes all rows alike in mean and length, so ballast makes them so before.
    rest = HIDDEN - MEANING - RARITY
    left = (1 - meaning.square().sum(1) - said.square().sum(1)).clamp(min=0)
    sign = torch.tensor(np.resize([1.0, -1.0], rest), dtype=torch.float32)
    ballast = (left / rest).sqrt()[:, None] * sign
    layer = network.encoder.layer[0]
    with torch.no_grad():
        network.embeddings.word_embeddings.weight.copy_(torch.cat([meaning, said, ballast], 1))
        network.embeddings.position_embeddings.weight.zero_()
        network.embeddings.token_type_embeddings.weight.zero_()
        layer.attention.output.dense.weight.zero_()
        layer.output.dense.weight.zero_()
        layer.output.LayerNorm.weight[MEANING + RARITY :] = 0
    return network
