"""Corpora that were encoded in bulk, opened by LangChain's stores and retrievers."""

from __future__ import annotations

import pytest
from tests.core.bulk.corpora import rows, write_lines

from langchain_m3 import M3HybridRetriever, M3InMemoryVectorStore, QdrantHybridStore
from m3_core.bulk import encode_dataset, load_into_collection, load_into_qdrant
from m3_core.testing import FakeEncoder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    source = write_lines(folder / "corpus.jsonl", rows(60))
    return encode_dataset(source, folder / "encoded", FakeEncoder()).folder


def own_store(**options):
    documents = rows(60)
    metadatas = [
        {k: v for k, v in d.items() if k not in ("id", "text") and v is not None} for d in documents
    ]
    return M3InMemoryVectorStore.from_texts(
        [d["text"] for d in documents],
        metadatas=metadatas,
        ids=[d["id"] for d in documents],
        encoder=FakeEncoder(),
        **options,
    )


def shown(documents):
    return [(one.id, one.page_content, one.metadata) for one in documents]


@pytest.mark.parametrize("rerank", [False, True])
def test_stores_and_retrievers_in_memory_find_what_their_own_do(tmp_path, corpus, rerank):
    parts = None if rerank else ["dense", "sparse"]
    load_into_collection(corpus, tmp_path / "notes", representations=parts)
    options = {"encoder": FakeEncoder(), "rerank": rerank}
    store = M3InMemoryVectorStore.load(tmp_path / "notes", **options)
    retriever = M3HybridRetriever.load(tmp_path / "notes", k=1, **options)
    own = own_store(rerank=rerank)
    for query in (rows(60)[9]["text"], rows(60)[33]["text"]):
        expected = shown(own.similarity_search(query, 1))
        assert shown(store.similarity_search(query, 1)) == expected
        assert shown(retriever.invoke(query)) == expected
    store.add_texts(["a panda of our own"], ids=["new"])
    assert store.similarity_search("a panda of our own", 1)[0].id == "new"


@pytest.mark.parametrize("rerank", [False, True])
def test_qdrant_finds_what_a_store_of_its_own_does(tmp_path, corpus, rerank):
    parts = None if rerank else ["dense", "sparse"]
    load_into_qdrant(corpus, "notes", representations=parts, path=str(tmp_path / "q"))
    options = {"encoder": FakeEncoder(), "rerank": rerank}
    store = QdrantHybridStore.from_existing_collection("notes", path=str(tmp_path / "q"), **options)
    own = QdrantHybridStore(**options)
    known = own_store().get_by_ids([d["id"] for d in rows(60)])
    own.add_documents(known)
    for number in (9, 33):
        query = known[number].page_content
        found = store.similarity_search_with_score(query, 5)
        expected = own.similarity_search_with_score(query, 5)
        assert found[0][0].id == expected[0][0].id == f"d{number}"
        if rerank:
            # Ranks are not fused any more, of which equal scores have any.
            scores = [score for _, score in expected]
            assert [score for _, score in found] == pytest.approx(scores, abs=1e-3)
    found = store.similarity_search("panda", 3, filter={"year": 1997})
    assert found
    assert {one.metadata["year"] for one in found} == {1997}
    assert shown(store.get_by_ids(["d3", "d9"])) == shown(own.get_by_ids(["d3", "d9"]))
    store.close()
