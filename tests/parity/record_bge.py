"""Record vectors of langchain-community's ``HuggingFaceBgeEmbeddings`` on random checkpoints.

Needs langchain-community 0.4.2 and sentence-transformers beside this package's core::

    python tests/parity/record_bge.py
"""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from m3_core.testing import tiny_checkpoint

HERE = Path(__file__).parent
# No runs of spaces and none at the ends: transformers 5 builds its own tokenizer for XLM-R, which
# treats them otherwise than the checkpoint's tokenizer.json, which this package uses.
TEXTS = ["What do pandas eat?", "two\nlines,\nthe third", "", "大熊猫 吃 竹子", "мир"]
MODULES = [
    ("", "sentence_transformers.models.Transformer"),
    ("1_Pooling", "sentence_transformers.models.Pooling"),
    ("2_Normalize", "sentence_transformers.models.Normalize"),
]
# Folder name, tiny_checkpoint's keywords, whether it normalises; then the constructor's keywords.
CHECKPOINTS: dict[str, tuple[dict[str, Any], bool]] = {
    "bge-tiny-en-v1.5": ({"kind": "bge"}, True),
    "bge-tiny-zh": ({"kind": "bge", "seed": 1}, False),
    "bge-m3-tiny": ({"kind": "m3"}, True),
}
PROMPTED = {"encode_kwargs": {"prompt": "note: ", "batch_size": 2}}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("bge-tiny-en-v1.5", {}),
    ("bge-tiny-en-v1.5", {"query_instruction": "q: ", "embed_instruction": "d: "}),
    ("bge-tiny-en-v1.5", {"encode_kwargs": {"normalize_embeddings": False}}),
    ("bge-tiny-en-v1.5", {"model_kwargs": {"device": "cpu", "truncate_dim": 8}}),
    ("bge-tiny-en-v1.5", PROMPTED),
    ("bge-tiny-zh", {}),
    ("bge-tiny-zh", {"encode_kwargs": {"normalize_embeddings": True}}),
    ("bge-tiny-zh", {"query_instruction": "q: "}),
    ("bge-m3-tiny", {"query_instruction": ""}),
    ("bge-m3-tiny", {}),
]


def write_checkpoint(parent: Path, name: str) -> Path:
    """A random checkpoint in sentence-transformers' layout."""
    keywords, normalizes = CHECKPOINTS[name]
    return write_modules(tiny_checkpoint(parent / name, **keywords), normalizes=normalizes)


def write_modules(folder: Path, *, normalizes: bool) -> Path:
    """Add sentence-transformers' list of modules to a checkpoint."""
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (path, kind) in enumerate(MODULES[: 3 if normalizes else 2])
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "2_Normalize").mkdir(exist_ok=True)
    return folder


def main() -> None:
    """Write ``bge.npz`` beside this file."""
    warnings.simplefilter("ignore")
    from langchain_community.embeddings import HuggingFaceBgeEmbeddings

    arrays: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in CHECKPOINTS:
            write_checkpoint(Path(folder), name)
        for number, (name, keywords) in enumerate(CASES):
            theirs = HuggingFaceBgeEmbeddings(model_name=str(Path(folder) / name), **keywords)
            documents = theirs.embed_documents(TEXTS)
            queries = [theirs.embed_query(text) for text in TEXTS]
            arrays[f"{number}.documents"] = np.array(documents, np.float32)
            arrays[f"{number}.queries"] = np.array(queries, np.float32)
            arrays[f"{number}.instruction"] = np.array(theirs.query_instruction)
    np.savez_compressed(HERE / "bge.npz", **arrays)


if __name__ == "__main__":
    main()
