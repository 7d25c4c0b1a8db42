from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.schema import MetadataMode, TextNode
from pydantic import ValidationError

from llamaindex_m3 import M3Embedding
from m3_core import Encoder


@pytest.fixture
def embedding(tiny_m3: Path) -> M3Embedding:
    return M3Embedding(model_name=str(tiny_m3), query_instruction="q: ", dtype="float32")


def test_vectors_are_the_cores(embedding: M3Embedding, encoder: Encoder) -> None:
    core = encoder.with_options(query_instruction="q: ")
    texts = ["panda bear", "", "мир"] * 100
    vectors = embedding.get_text_embedding_batch(texts)
    np.testing.assert_allclose(vectors, core.encode_documents(texts).dense_vecs, atol=1e-6)
    np.testing.assert_allclose(embedding.get_text_embedding("panda bear"), vectors[0], atol=1e-6)
    np.testing.assert_allclose(
        embedding.get_query_embedding("panda"),
        core.encode_queries(["panda"]).dense_vecs[0],
        atol=1e-6,
    )
    assert type(vectors[0][0]) is float


async def test_async_equals_sync(embedding: M3Embedding) -> None:
    texts = ["panda", "bear river"]
    expected = embedding.get_text_embedding_batch(texts)
    vectors = await embedding.aget_text_embedding_batch(texts)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    vector = await embedding.aget_text_embedding("panda")
    np.testing.assert_allclose(vector, expected[0], atol=1e-6)
    query = await embedding.aget_query_embedding("panda")
    np.testing.assert_allclose(query, embedding.get_query_embedding("panda"), atol=1e-6)


def test_nodes_are_embedded_with_their_metadata(embedding: M3Embedding) -> None:
    nodes = [TextNode(text="panda", metadata={"city": "río"}), TextNode(text="bear")]
    embedded = embedding(nodes)
    expected = embedding.get_text_embedding(nodes[0].get_content(MetadataMode.EMBED))
    np.testing.assert_allclose(embedded[0].embedding, expected, atol=1e-6)


def test_what_changes_vectors_is_serialised(embedding: M3Embedding) -> None:
    stored = embedding.to_dict()
    assert stored["class_name"] == "M3Embedding"
    assert stored["query_instruction"] == "q: "
    assert stored.keys().isdisjoint({"device", "embed_batch_size", "token", "encoder"})


def test_pickling_keeps_options_and_vectors(embedding: M3Embedding) -> None:
    again = pickle.loads(pickle.dumps(embedding))
    assert again.to_dict() == embedding.to_dict()
    assert again.get_query_embedding("panda") == embedding.get_query_embedding("panda")


def test_a_loaded_encoder_is_shared(encoder: Encoder) -> None:
    embedding = M3Embedding(encoder=encoder, truncate_dim=8)
    assert len(embedding.get_query_embedding("panda")) == 8
    with pytest.raises(ValueError, match="local_files_only cannot be set"):
        M3Embedding(encoder=encoder, local_files_only=True)
    with pytest.raises(ValidationError):
        M3Embedding(encoder=encoder, embed_batch_size=0)
