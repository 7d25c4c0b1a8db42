"""A short name for the content of a checkpoint."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from m3_core.network.checkpoint import read_json

if TYPE_CHECKING:
    from pathlib import Path

_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin", "*_linear.pt")
_SAMPLES, _SAMPLE_BYTES = 64, 4096
# What transformers and the makers of copies write into config.json without changing the network.
_IDLE_KEYS = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")


def checkpoint_fingerprint(folder: Path) -> str:
    """Name the content of a checkpoint: equal for copies of it, wherever they lie.

    Configuration and tokenizer count wholly, weight files by their sizes and 64 samples each.

    Args:
        folder: The checkpoint.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=8)
    config = read_json(folder / "config.json") or {}
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
