"""Record vectors of LlamaIndex's ``HuggingFaceEmbedding`` on random checkpoints.

Needs llama-index-embeddings-huggingface 0.8.0 and sentence-transformers beside this package's
core::

    python -m tests.parity.record_huggingface
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tests.parity.record_bge import TEXTS as SHORT
from tests.parity.record_bge import write_modules

from m3_core.testing import tiny_checkpoint

HERE = Path(__file__).parent
TEXTS = [*SHORT, "the city and the river of the new world of water and a panda"]
# The names that the class knows; tiny_checkpoint's keywords, whether it normalises by itself.
CHECKPOINTS: dict[str, tuple[dict[str, Any], bool]] = {
    "BAAI/bge-small-en-v1.5": ({"kind": "bge"}, True),
    "BAAI/bge-small-zh-v1.5": ({"kind": "bge", "seed": 1}, False),
    "BAAI/bge-m3": ({"kind": "m3"}, True),
    "BAAI/mean": ({"kind": "bge", "seed": 2, "pooling": "mean"}, False),
}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("BAAI/bge-small-en-v1.5", {}),
    ("BAAI/bge-small-en-v1.5", {"query_instruction": "q: ", "text_instruction": "d: "}),
    ("BAAI/bge-small-en-v1.5", {"truncate_dim": 8}),
    ("BAAI/bge-small-en-v1.5", {"max_length": 7, "query_instruction": "what is "}),
    ("BAAI/bge-small-zh-v1.5", {}),
    ("BAAI/bge-small-zh-v1.5", {"normalize": False, "embed_batch_size": 2}),
    ("BAAI/bge-m3", {}),
    ("BAAI/bge-m3", {"text_instruction": "d:", "device": "cpu"}),
    ("BAAI/mean", {"show_progress_bar": False, "parallel_process": False}),
]
# One node a text, in a VectorStoreIndex: the metadata are embedded too.
INDEXED = ("BAAI/bge-small-en-v1.5", {"query_instruction": "q: ", "text_instruction": "d: "})


def write_checkpoints(parent: Path) -> None:
    """All checkpoints, under names that count from that folder."""
    for name, (keywords, normalizes) in CHECKPOINTS.items():
        write_modules(tiny_checkpoint(parent / name, **keywords), normalizes=normalizes)


def make_index(embed_model: Any) -> Any:
    """An index of the texts, with vectors of that model."""
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode

    nodes = [
        TextNode(text=text, id_=str(i), metadata={"row": i}) for i, text in enumerate(TEXTS) if text
    ]
    return VectorStoreIndex(nodes, embed_model=embed_model)


def retrieved(index: Any) -> list[tuple[str, float]]:
    """What the index finds for the first text, all nodes."""
    retriever = index.as_retriever(similarity_top_k=len(TEXTS))
    return [(found.node_id, found.score) for found in retriever.retrieve(TEXTS[0])]


def main() -> None:
    """Write ``huggingface.npz`` beside this file."""
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    arrays: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_checkpoints(Path(folder))
        for number, (name, keywords) in enumerate(CASES):
            theirs = HuggingFaceEmbedding(model_name=name, **({"device": "cpu"} | keywords))
            documents = theirs.get_text_embedding_batch(TEXTS)
            queries = [theirs.get_query_embedding(text) for text in TEXTS]
            arrays[f"{number}.documents"] = np.array(documents, np.float32)
            arrays[f"{number}.queries"] = np.array(queries, np.float32)
        name, keywords = INDEXED
        index = make_index(HuggingFaceEmbedding(model_name=name, device="cpu", **keywords))
        stored = index.vector_store.data.embedding_dict
        arrays["index.ids"] = np.array(list(stored))
        arrays["index.vectors"] = np.array(list(stored.values()), np.float32)
        found = retrieved(index)
        arrays["index.found"] = np.array([one for one, _ in found])
        arrays["index.scores"] = np.array([score for _, score in found], np.float32)
    np.savez_compressed(HERE / "huggingface.npz", **arrays)


if __name__ == "__main__":
    main()
