"""Corpora for bulk encoding, and how two encoded ones are compared."""

from __future__ import annotations

import json

import numpy as np
from tests.conftest import make_text

from m3_core.testing import FakeEncoder


def rows(count):
    """Documents of several languages, with metadata of every kind."""
    return [
        {
            "id": f"d{number}",
            "text": f"{make_text(number, 3 + number % 17)} no{number}",
            "year": 1990 + number % 30,
            "score": number / 8 if number % 3 else number,
            "tags": ["panda"] * (number % 3),
            "about": {"page": number} if number % 5 else None,
        }
        for number in range(count)
    ]


def write_lines(path, documents):
    text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in documents)
    path.write_text(text, "utf-8")
    return path


def assert_holds(dataset, documents, encoder=None):
    """The corpus holds these documents, encoded as the encoder does."""
    encoder = encoder or FakeEncoder()
    found = list(dataset.batches())
    assert [one for batch in found for one in batch.ids] == [str(d["id"]) for d in documents]
    assert [one for batch in found for one in batch.texts] == [d["text"] for d in documents]
    metadatas = [
        {k: v for k, v in d.items() if k not in ("id", "text") and v is not None} for d in documents
    ]
    assert [one for batch in found for one in batch.metadatas] == metadatas
    for batch in found:
        expected = encoder.encode_documents(
            batch.texts,
            return_dense="dense" in dataset.representations,
            return_sparse="sparse" in dataset.representations,
            return_colbert_vecs="colbert" in dataset.representations,
        )
        assert_close(batch.representations, expected)


def assert_same(one, other):
    """Two corpora hold the same rows in the same files, and vectors that differ by rounding."""
    assert [file.name for file in one.files] == [file.name for file in other.files]
    pairs = list(zip(one.batches(), other.batches(), strict=True))
    assert pairs
    for left, right in pairs:
        assert (left.ids, left.texts, left.metadatas) == (right.ids, right.texts, right.metadatas)
        assert_close(left.representations, right.representations)


def assert_close(found, expected):
    if expected.dense_vecs is not None:
        np.testing.assert_allclose(found.dense_vecs, expected.dense_vecs, atol=1e-5)
    if expected.lexical_weights is not None:
        for name in ("token_ids", "offsets"):
            left, right = (getattr(r.lexical_weights, name) for r in (found, expected))
            np.testing.assert_array_equal(left, right)
        np.testing.assert_allclose(
            found.lexical_weights.weights, expected.lexical_weights.weights, atol=1e-5
        )
    if expected.colbert_vecs is not None:
        left, right = found.colbert_vecs, expected.colbert_vecs
        np.testing.assert_array_equal(left.offsets, right.offsets)
        np.testing.assert_allclose(left.vectors, right.vectors, atol=1e-3)
