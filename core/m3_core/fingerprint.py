"""A short name for a model and those options that change its vectors."""

from __future__ import annotations

import hashlib
import json
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from m3_core.encoder import Encoder
    from m3_core.model import Model

# Of loaded models: their files are read once.
_known: weakref.WeakKeyDictionary[Model, str] = weakref.WeakKeyDictionary()
_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin", "*_linear.pt")
_SAMPLES, _SAMPLE_BYTES = 64, 4096
# What transformers and the makers of copies write into config.json without changing the network.
_IDLE_KEYS = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")


def model_fingerprint(folder: Path) -> str:
    """Name the content of a checkpoint: equal for copies of it, wherever they lie.

    Configuration and tokenizer count wholly, weight files by their sizes and 64 samples each.

    Args:
        folder: The checkpoint.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=8)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key not in _IDLE_KEYS}
    digest.update(json.dumps(kept, sort_keys=True).encode())
    tokenizer = folder / "tokenizer.json"
    if tokenizer.is_file():
        digest.update(tokenizer.read_bytes())
    for pattern in _WEIGHT_FILES:
        for path in sorted(folder.glob(pattern)):
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode())
            with path.open("rb") as file:
                for sample in range(_SAMPLES):
                    file.seek(sample * max(size - _SAMPLE_BYTES, 0) // (_SAMPLES - 1))
                    digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def encoder_fingerprint(
    encoder: Encoder, parts: Collection[str] = ("dense",), *, queries: bool = False
) -> str:
    """Name an encoder: equal exactly where the representations of the same documents are.

    Device and data type do not count: they change vectors only by rounding.

    Args:
        encoder: The encoder.
        parts: Of ``"dense"``, ``"sparse"`` and ``"colbert"``, those that matter.
        queries: The instruction of queries counts too.

    Returns:
        ``"m3-"`` and 16 hexadecimal digits.
    """
    options = encoder.options
    model = _known.get(encoder.model)
    if model is None:
        model = _known[encoder.model] = model_fingerprint(encoder.model.checkpoint.folder)
    counted: dict[str, Any] = {
        "model": model,
        "max_length": options.max_length,
        "document_instruction": options.document_instruction,
    }
    if queries:
        counted["query_instruction"] = options.query_instruction
    if {"dense", "colbert"} & set(parts):
        counted |= {"truncate_dim": options.truncate_dim, "normalize": options.normalize}
    if "dense" in parts:
        counted["pooling"] = options.pooling
    digest = hashlib.blake2b(json.dumps(counted, sort_keys=True).encode(), digest_size=8)
    return f"m3-{digest.hexdigest()}"
