"""Fields of retrievers, stores and embeddings that users assign after construction."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from tests.conftest import make_text

from langchain_m3 import M3Embeddings, M3HybridRetriever, M3SparseRetriever
from m3_core import Encoder

TEXTS = [make_text(i, 8) for i in range(6)]
QUERY = "world water der Fluss und Stadt"


def ids(retriever) -> list[str | None]:
    return [document.id for document in retriever.invoke(QUERY)]


def made(encoder: Encoder, kind: type = M3HybridRetriever, **options):
    metadatas = [{"row": i} for i in range(6)]
    numbers = [str(i) for i in range(6)]
    return kind.from_texts(TEXTS, metadatas, ids=numbers, encoder=encoder, **options)


@pytest.mark.parametrize("kind", [M3SparseRetriever, M3HybridRetriever])
def test_what_is_found_follows_assignments(encoder, kind) -> None:
    retriever = made(encoder, kind)
    retriever.k = 2
    assert ids(retriever) == ids(made(encoder, kind, k=2))
    assert len(ids(retriever)) == 2
    retriever.filter = {"row": 3}
    assert ids(retriever) == ["3"]
    retriever.filter = None
    for name, value in (("k", 0), ("k", "many"), ("max_length", "many")):
        with pytest.raises(ValidationError, match=name):
            setattr(retriever, name, value)
    with pytest.raises(ValidationError, match=f"make a new object, {kind.__name__}"):
        retriever.model_name = "other"
    assert (retriever.k, len(retriever)) == (2, 6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weights", (0.0, 1.0, 0.0)),
        ("fusion", "rrf"),
        ("fetch_k", 1),
        ("query_instruction", "panda panda: "),
    ],
)
def test_hybrid_search_follows_assignments(encoder, name, value) -> None:
    retriever, plain = made(encoder), made(encoder)
    setattr(retriever, name, value)
    expected = made(encoder, **{name: value})
    assert retriever.model_dump() == expected.model_dump()
    found = retriever.search_with_scores(QUERY)
    assert [one.id for one, _, _ in found] == [
        one.id for one, _, _ in expected.search_with_scores(QUERY)
    ]
    assert [score for _, score, _ in found] == pytest.approx(
        [score for _, score, _ in expected.search_with_scores(QUERY)], abs=1e-6
    )
    setattr(retriever, name, getattr(plain, name))
    assert ids(retriever) == ids(plain)


@pytest.mark.parametrize("name", ["max_length", "document_instruction"])
def test_what_would_need_documents_encoded_anew_is_an_error(encoder, name) -> None:
    retriever = made(encoder)
    before = retriever.model_dump(), ids(retriever)
    value = {"max_length": 9, "document_instruction": "d: "}[name]
    with pytest.raises(ValueError, match="encode the documents anew"):
        setattr(retriever, name, value)
    assert (retriever.model_dump(), ids(retriever)) == before
    with pytest.raises(ValueError, match="needs colbert of its documents"):
        retriever.rerank = True
    assert retriever.rerank is False


def test_a_cache_namespace_follows_the_options(encoder) -> None:
    embeddings = M3Embeddings(encoder=encoder)
    for name, value in (
        ("query_instruction", "q: "),
        ("max_length", 9),
        ("truncate_dim", 8),
        ("normalize", False),
    ):
        before = embeddings.cache_namespace
        setattr(embeddings, name, value)
        assert embeddings.cache_namespace != before
    core = encoder.with_options(
        query_instruction="q: ", max_length=9, truncate_dim=8, normalize=False
    )
    assert embeddings.embed_query("panda") == pytest.approx(
        core.encode_queries(["panda"]).dense_vecs[0].tolist(), abs=1e-6
    )
    made_so = M3Embeddings(
        encoder=encoder, query_instruction="q: ", max_length=9, truncate_dim=8, normalize=False
    )
    assert embeddings.cache_namespace == made_so.cache_namespace


def test_pydantics_older_copy_takes_effect_too(encoder) -> None:
    plain = M3Embeddings(encoder=encoder)
    assert len(plain.copy(update={"truncate_dim": 8}).embed_query("panda")) == 8
    assert len(plain.copy(deep=True).embed_query("panda")) == encoder.dimension
    for update in ({"truncate_dim": "many"}, {"model_name": "other"}, {"dimensions": 8}):
        with pytest.raises(ValidationError):
            plain.copy(update=update)
    with pytest.raises(TypeError, match="has all of its fields"):
        plain.copy(exclude={"normalize"})
