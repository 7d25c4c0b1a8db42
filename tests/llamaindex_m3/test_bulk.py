"""Corpora that were encoded in bulk, opened by LlamaIndex's index and store."""

from __future__ import annotations

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters
from tests.core.bulk.corpora import rows, write_lines

import langchain_m3
from llamaindex_m3 import M3Index, QdrantHybridStore
from m3_core.bulk import EncodeOptions, encode_dataset, load_into_qdrant
from m3_core.errors import DatasetError
from m3_core.testing import FakeEncoder

NAMES = {
    "dense_vector_name": "dense",
    "sparse_vector_name": "sparse",
    "multi_vector_name": "multi",
    "text_key": "page_content",
    "metadata_key": "metadata",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    documents = [*rows(59), {"id": "blank", "text": " ", "year": 1}]
    source = write_lines(folder / "corpus.jsonl", documents)
    return encode_dataset(source, folder / "encoded", FakeEncoder()).folder


def shown(found):
    return [(one.node.node_id, one.node.text, one.node.metadata) for one in found]


def test_an_index_is_made_without_encoding(tmp_path, corpus):
    encoder = FakeEncoder()
    index = M3Index.from_encoded(corpus, encoder=encoder)
    assert encoder.calls == []
    documents = rows(59)
    nodes = [
        TextNode(
            id_=d["id"],
            text=d["text"],
            metadata={k: v for k, v in d.items() if k not in ("id", "text") and v is not None},
            excluded_embed_metadata_keys=["year", "score", "tags", "about"],
        )
        for d in documents
    ]
    own = M3Index(nodes, encoder=FakeEncoder())
    for mode in ("dense", "sparse", "colbert", "hybrid"):
        asked = {"mode": mode, "similarity_top_k": 5}
        found = index.as_retriever(**asked).retrieve("panda city")
        expected = own.as_retriever(**asked).retrieve("panda city")
        assert [one.score for one in found] == pytest.approx([e.score for e in expected], abs=1e-3)
    query = documents[9]["text"]
    (found,), (expected,) = (
        shown(one.as_retriever(similarity_top_k=1).retrieve(query)) for one in (index, own)
    )
    assert found == expected
    index.persist(tmp_path / "index")
    again = M3Index.from_persist_dir(tmp_path / "index", encoder=FakeEncoder())
    assert shown(again.as_retriever(similarity_top_k=1).retrieve(query)) == [found]
    small = M3Index.from_encoded(corpus, encoder=FakeEncoder(), multi_vectors=False)
    assert small.as_retriever(similarity_top_k=3).retrieve("panda")
    with pytest.raises(DatasetError, match="another model"):
        M3Index.from_encoded(corpus, encoder=FakeEncoder(max_length=7))
    source = corpus.parent / "corpus.jsonl"
    bare = encode_dataset(source, tmp_path / "bare", FakeEncoder(), EncodeOptions(keep_text=False))
    with pytest.raises(DatasetError, match="without its texts"):
        M3Index.from_encoded(bare.folder, encoder=FakeEncoder())


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local")
def test_both_frameworks_search_one_collection(tmp_path, corpus):
    place = str(tmp_path / "q")
    load_into_qdrant(corpus, "notes", path=place)
    store = QdrantHybridStore("notes", path=place, rerank=True, encoder=FakeEncoder(), **NAMES)
    index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)
    asked = {"similarity_top_k": 4, "vector_store_query_mode": "hybrid"}
    found = index.as_retriever(**asked).retrieve("panda city")
    documents = {d["id"]: d for d in rows(59)}
    for _, (one, text, metadata) in zip(range(4), shown(found), strict=True):
        assert text == documents[one]["text"]
        assert metadata["year"] == documents[one]["year"]
    filters = MetadataFilters(filters=[MetadataFilter(key="year", value=1997)])
    filtered = index.as_retriever(filters=filters, **asked).retrieve("panda")
    assert {one.node.metadata["year"] for one in filtered} == {1997}
    # What is added here, the other finds, filters and reads; and the reverse.
    context = StorageContext.from_defaults(vector_store=store)
    added = TextNode(id_="added", text="pandas of the zoo", metadata={"year": 2077})
    VectorStoreIndex([added], storage_context=context, embed_model=store.embed_model)
    store.close()
    other = langchain_m3.QdrantHybridStore.from_existing_collection(
        "notes", path=place, rerank=True, encoder=FakeEncoder()
    )
    (seen,) = other.similarity_search("panda", 4, filter={"year": 2077})
    assert (seen.id, seen.page_content, seen.metadata) == (
        "added",
        "pandas of the zoo",
        {"year": 2077},
    )
    scored = other.similarity_search_with_score("panda city", 4)
    assert [s for _, s in scored] == pytest.approx([one.score for one in found], abs=1e-5)
    other.close()
