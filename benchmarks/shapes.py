"""Random checkpoints of real shapes and texts of known length, for measuring speed.

Speed does not depend on the weights' values, so a random network of the real shape with the real
tokenizer measures what the real model would.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import XLMRobertaConfig, XLMRobertaModel

ROOT = Path(__file__).resolve().parent.parent
SHAPES = {
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
}


def write_checkpoint(folder: Path, shape: str, tokenizer: Path) -> Path:
    """Write a random M3 checkpoint of XLM-R's base or large shape with a real tokenizer.

    Args:
        folder: Where to.
        shape: ``"base"`` or ``"large"``.
        tokenizer: A folder with bge-m3's ``tokenizer.json`` and its companions.

    Returns:
        The folder.
    """
    if (folder / "model.safetensors").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (tokenizer / name).is_file():
            shutil.copy(tokenizer / name, folder / name)
    width = SHAPES[shape]["hidden_size"]
    config = XLMRobertaConfig(
        **SHAPES[shape],
        vocab_size=250002,
        intermediate_size=4 * width,
        max_position_embeddings=8194,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        layer_norm_eps=1e-5,
    )
    torch.manual_seed(0)
    network = XLMRobertaModel(config, add_pooling_layer=False)
    save_file(network.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = ["XLMRobertaModel"]
    config.save_pretrained(folder)
    for name, outputs in (("sparse", 1), ("colbert", width)):
        head = torch.nn.Linear(width, outputs)
        torch.save(head.state_dict(), folder / f"{name}_linear.pt")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": width, "pooling_mode_cls_token": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def sample_texts(tokenizer: Path, mean: int, spread: float, count: int, seed: int) -> list[str]:
    """Texts of several languages whose lengths in tokens are log-normal around a mean.

    Args:
        tokenizer: A folder with ``tokenizer.json``.
        mean: Mean length in tokens.
        spread: Standard deviation of the length's logarithm.
        count: How many texts.
        seed: Of the choice.

    Returns:
        The texts.
    """
    lines = (ROOT / "core/m3_core/cli/demo.jsonl").read_text(encoding="utf-8").splitlines()
    raw = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    sentences = [json.loads(line)["text"] for line in lines]
    lengths = [len(raw.encode(sentence, add_special_tokens=False).ids) for sentence in sentences]
    generator = random.Random(seed)
    texts = []
    for _ in range(count):
        target = generator.lognormvariate(0, spread) * mean * 2.718281828 ** (-(spread**2) / 2)
        parts, total = [], 0
        while total < target:
            choice = generator.randrange(len(sentences))
            words = sentences[choice]
            room = (target - total) / lengths[choice]
            if room < 1:
                words = words[: max(int(len(words) * room), 1)]
            parts.append(words)
            total += lengths[choice]
        texts.append(" ".join(parts))
    return texts
