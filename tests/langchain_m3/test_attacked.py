"""What users may do with the adapters besides what they are meant for."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document
from pydantic import ValidationError

from langchain_m3 import (
    BGEReranker,
    M3CascadeReranker,
    M3Embeddings,
    M3HybridRetriever,
    M3Reranker,
)
from m3_core.testing import FakeEncoder
from m3_core.testing.rerankers import tiny_reranker

QUERY = "What do pandas eat?"
TEXTS = ["Pandas eat bamboo.", "Rivers flow into the sea.", "Salt is white.", "Bears eat fish."]
METADATAS = [
    {"topic": "animals", "n": 1, "tags": ["a"]},
    {"topic": "water", "n": 2, "tags": []},
    {"topic": "mineral", "n": 3, "tags": ["b"]},
    {"topic": "animals", "n": 4, "tags": ["a", "b"]},
]


def documents() -> list[Document]:
    return [Document(text, id=str(i), metadata=dict(METADATAS[i])) for i, text in enumerate(TEXTS)]


def hybrid(**options) -> M3HybridRetriever:
    return M3HybridRetriever.from_documents(documents(), encoder=FakeEncoder(), **options)


def test_a_copy_with_another_option_computes_with_it(encoder) -> None:
    plain = M3Embeddings(encoder=encoder)
    copied = plain.model_copy(update={"query_instruction": "salt: ", "truncate_dim": 8})
    made = M3Embeddings(encoder=encoder, query_instruction="salt: ", truncate_dim=8)
    assert copied.embed_query(QUERY) == pytest.approx(made.embed_query(QUERY), abs=1e-6)
    copied.max_length = 9
    assert (copied.query_instruction, copied.truncate_dim) == ("salt: ", 8)
    assert (plain.query_instruction, plain.truncate_dim) == ("", None)
    assert plain.max_length == encoder.max_length
    assert len(plain.embed_query(QUERY)) > 8


def test_a_copy_is_checked_as_assignments_are() -> None:
    plain = hybrid()
    with pytest.raises(ValueError, match="needs colbert of its documents"):
        plain.model_copy(update={"rerank": True})
    with pytest.raises(ValidationError, match=r"make a new object, M3HybridRetriever"):
        plain.model_copy(update={"model_name": "other"})
    with pytest.raises(ValidationError, match="top_k is no field of M3HybridRetriever"):
        plain.model_copy(update={"top_k": 3})
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        plain.model_copy(update={"k": 0})
    same = plain.model_copy(update={"model_name": plain.model_name, "k": 1})
    assert [len(one.invoke(QUERY)) for one in (same, plain)] == [1, 4]


def test_copies_of_rerankers_score_with_their_options(encoder, tmp_path) -> None:
    folder = str(tiny_reranker(tmp_path / "m"))
    long = " ".join(TEXTS * 8)
    plain = BGEReranker(model_name=folder, device="cpu", dtype="float32")
    copied = plain.model_copy(update={"query_instruction": "salt "})
    made = BGEReranker(model_name=folder, device="cpu", dtype="float32", query_instruction="salt ")
    assert copied.score([(QUERY, long)]) == pytest.approx(made.score([(QUERY, long)]), abs=1e-6)
    assert copied.score([(QUERY, long)]) != pytest.approx(plain.score([(QUERY, long)]), abs=1e-6)
    own = M3Reranker(encoder=encoder, weights=(1, 0, 0))
    lexical = own.model_copy(update={"weights": (0, 1, 0)})
    assert lexical.score([(QUERY, long)]) == pytest.approx(
        M3Reranker(encoder=encoder, weights=(0, 1, 0)).score([(QUERY, long)]), abs=1e-6
    )
    both = M3CascadeReranker(encoder=encoder, reranker_name=folder, device=None, dtype="float32")
    assert len(both.model_copy(update={"first": 2}).compress_documents(documents(), QUERY)) == 2
    assert len(both.compress_documents(documents(), QUERY)) == 4
