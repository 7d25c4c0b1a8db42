"""Write the table and the heads as a checkpoint in the layout of M3.

    python assemble.py --work material --vocabulary vocab36k --teacher m3-e5 --out m3-tiny

The one layer is the identity: its attention and its feed-forward part put out zeros, which keeps
every tool happy that expects a layer, and leaves room for training one.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from common import FAINT, HIDDEN, MEANING
from safetensors.torch import save_file
from transformers import XLMRobertaConfig, XLMRobertaModel


def build_network(rows: torch.Tensor) -> XLMRobertaModel:
    """The network whose hidden states are the layer norm of the rows, ballast made faint."""
    config = XLMRobertaConfig(
        vocab_size=len(rows),
        hidden_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=HIDDEN,
        max_position_embeddings=514,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.05,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    network = XLMRobertaModel(config, add_pooling_layer=False)
    layer = network.encoder.layer[0]
    with torch.no_grad():
        network.embeddings.word_embeddings.weight.copy_(rows)
        network.embeddings.position_embeddings.weight.zero_()
        network.embeddings.token_type_embeddings.weight.zero_()
        layer.attention.output.dense.weight.zero_()
        layer.output.dense.weight.zero_()
        layer.output.LayerNorm.weight[MEANING:] = FAINT
    return network


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("work", "vocabulary", "teacher", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    arguments = parser.parse_args()
    out: Path = arguments.out
    (out / "1_Pooling").mkdir(parents=True, exist_ok=True)
    table = {k: torch.from_numpy(v) for k, v in np.load(arguments.work / "table.npz").items()}
    network = build_network(table["rows"])
    # The layer norm does not mind the length of a row, so eight bits lose about 3 % of each value.
    eight = ("embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight")
    save_file(
        {
            name: value.to(torch.float8_e4m3fn if name in eight else torch.float16)
            for name, value in network.state_dict().items()
        },
        out / "model.safetensors",
        metadata={"format": "pt"},
    )
    heads = {
        "sparse_linear.pt": {"weight": table["sparse"][None], "bias": table["bias"]},
        "colbert_linear.pt": {
            "weight": table["colbert"].half(),
            "bias": torch.zeros(HIDDEN).half(),
        },
    }
    for name, state in heads.items():
        torch.save(state, out / name)
    config = network.config.to_dict() | {"architectures": ["XLMRobertaModel"], "dtype": "float32"}
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True}
    for path, content in (("config.json", config), ("1_Pooling/config.json", pooling)):
        (out / path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(arguments.vocabulary / "tokenizer.json", out / "tokenizer.json")
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        shutil.copyfile(arguments.teacher / name, out / name)


if __name__ == "__main__":
    main()
