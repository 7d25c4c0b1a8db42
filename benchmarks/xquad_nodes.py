"""Nodes of XQuAD's texts for benchmarks of indices: 10,000 of them, encoded once."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core.schema import TextNode

from llamaindex_m3 import M3Index
from m3_core.representations import LexicalWeights, MultiVectors, Representations

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from m3_core import Encoder
    from m3_core.encoder import CachedEncoder

LANGUAGES = ("en", "de", "es", "zh", "ru", "hi")
NODES = 10_000


def paragraphs(folder: Path, language: str) -> list[dict[str, Any]]:
    articles = json.loads((folder / f"xquad.{language}.json").read_text(encoding="utf-8"))["data"]
    return [paragraph for article in articles for paragraph in article["paragraphs"]]


# Stripped: the tokenizer that transformers 5 rebuilds for the peer drops a space at the end.
def contexts(folder: Path, language: str) -> list[str]:
    return [paragraph["context"].strip() for paragraph in paragraphs(folder, language)]


def questions(folder: Path, language: str) -> list[str]:
    asked = [qa["question"] for one in paragraphs(folder, language) for qa in one["qas"]]
    return [question.strip() for question in asked]


def sentences(folder: Path) -> list[str]:
    """Sentences, very short ones joined with the next, then questions; all different."""
    texts: list[str] = []
    for language in LANGUAGES:
        least = 20 if language == "zh" else 60
        for context in contexts(folder, language):
            held = ""
            for sentence in re.split(r"(?<=[.!?。？！])\s*(?=\S)", context):
                held = f"{held} {sentence}".strip()
                if len(held) > least:
                    texts.append(held)
                    held = ""
            texts += [held] if held else []
    for language in ("de", "es", "zh", "ru"):
        texts += questions(folder, language)
    return list(dict.fromkeys(texts))[:NODES]


def stored_representations(index: M3Index) -> Representations:
    """What our index holds, node after node."""
    store = index._nodes._documents._store
    rows, ids = store.rows(), index._nodes.node_ids()
    order = np.argsort([int(one) for one in ids])
    found = Representations(store.dense.take(rows), None, store.multi.take(rows))[order]
    (segments,) = [store.lexical._snapshot.segments]
    weights = {}
    for segment in segments:
        weights |= {one: segment.document(row) for row, one in enumerate(segment.ids)}
    lexical = LexicalWeights.from_dicts(weights[ids[row]] for row in order)
    return Representations(found.dense_vecs, lexical, found.colbert_vecs)


class Ready:
    """Stands for an encoder's view where documents are inserted that were encoded before."""

    def __init__(self, view: CachedEncoder, reps: Representations) -> None:
        self.view, self.reps = view, reps

    def documents(self, texts: list[str], **_: Any) -> Representations:
        """Give what was encoded before."""
        assert len(texts) == len(self.reps)
        return self.reps

    def __getattr__(self, name: str) -> Any:
        return getattr(self.view, name)


def repeated(reps: Representations, times: NDArray[np.int64]) -> Representations:
    """Rows again and again, each with other noise: cosines of 0.98 to the first."""
    random = np.random.default_rng(0)
    rows = reps[times]

    def noisy(vectors: NDArray[Any]) -> NDArray[np.float32]:
        scale = np.float32(0.2 * vectors.shape[1] ** -0.5)
        moved = vectors.astype(np.float32)
        for block in np.array_split(moved, 100):
            block += scale * random.standard_normal(block.shape, np.float32)
            block /= np.linalg.norm(block, axis=1, keepdims=True)
        return moved

    assert rows.dense_vecs is not None
    assert rows.lexical_weights is not None
    assert rows.colbert_vecs is not None
    lexical, multi = rows.lexical_weights, rows.colbert_vecs
    factors = random.uniform(0.9, 1.1, len(lexical.weights)).astype(np.float32)
    return Representations(
        noisy(rows.dense_vecs),
        LexicalWeights(lexical.token_ids, lexical.weights * factors, lexical.offsets),
        MultiVectors(noisy(multi.vectors).astype(np.float16), multi.offsets),
    )


def large_index(
    folder: Path, kind: str, storage: Path, encoder: Encoder
) -> tuple[M3Index, list[str], Representations]:
    """Our index with 10,000 nodes, their texts and what it holds of them."""
    texts = sentences(folder)
    if kind == "paragraphs":
        texts = [text for language in LANGUAGES for text in contexts(folder, language)]
    if not (storage / "docstore.json").is_file():
        nodes = [TextNode(id_=str(i), text=text) for i, text in enumerate(texts)]
        index = M3Index(nodes, encoder=encoder, show_progress=True)
        index.storage_context.persist(storage)
    index = M3Index.from_persist_dir(storage, encoder=encoder)
    reps = stored_representations(index)
    if len(texts) < NODES:
        times = np.arange(NODES) % len(texts)
        texts, reps = [texts[i] for i in times.tolist()], repeated(reps, times)
        index = M3Index([], encoder=encoder)
        view: Any = Ready(index._nodes._documents.encodings, reps)
        index._nodes._documents.encodings = view
        index.insert_nodes([TextNode(id_=str(i), text=text) for i, text in enumerate(texts)])
    return index, texts, reps
