"""Record vectors of ``langchain_huggingface.HuggingFaceEmbeddings`` on random checkpoints.

Needs langchain-huggingface 1.2.3 and sentence-transformers 6.2 beside this package's core::

    python -m tests.parity.record_langchain_huggingface
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tests.parity.record_huggingface import TEXTS, write_checkpoints

HERE = Path(__file__).parent
RAW = {"encode_kwargs": {"normalize_embeddings": False}}
SCALED = {"encode_kwargs": {"normalize_embeddings": True}}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("BAAI/bge-small-en-v1.5", {}),
    ("BAAI/bge-small-en-v1.5", RAW),
    ("BAAI/bge-small-en-v1.5", {"encode_kwargs": {"prompt": "d: ", "batch_size": 2}}),
    ("BAAI/bge-small-en-v1.5", {**SCALED, "query_encode_kwargs": {"prompt": "q: "}}),
    ("BAAI/bge-small-en-v1.5", {**SCALED, "model_kwargs": {"truncate_dim": 8}}),
    ("BAAI/bge-small-zh-v1.5", RAW),
    ("BAAI/bge-small-zh-v1.5", SCALED),
    ("BAAI/bge-m3", {}),
    ("BAAI/bge-m3", {"model_kwargs": {"model_kwargs": {"torch_dtype": "float32"}}}),
    ("BAAI/mean", {**SCALED, "show_progress": False, "multi_process": False}),
]


def main() -> None:
    """Write ``langchain_huggingface.npz`` beside this file."""
    from langchain_huggingface import HuggingFaceEmbeddings

    arrays: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_checkpoints(Path(folder))
        for number, (name, keywords) in enumerate(CASES):
            model_kwargs = {"device": "cpu", **keywords.get("model_kwargs", {})}
            theirs = HuggingFaceEmbeddings(model=name, **keywords | {"model_kwargs": model_kwargs})
            documents = theirs.embed_documents(TEXTS)
            queries = [theirs.embed_query(text) for text in TEXTS]
            arrays[f"{number}.documents"] = np.array(documents, np.float32)
            arrays[f"{number}.queries"] = np.array(queries, np.float32)
    np.savez_compressed(HERE / "langchain_huggingface.npz", **arrays)


if __name__ == "__main__":
    main()
