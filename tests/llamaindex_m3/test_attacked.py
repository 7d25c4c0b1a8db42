"""Uses of the index, its view and its retrievers that once went wrong without a word."""

from __future__ import annotations

import pytest
from llama_index.core import Document, StorageContext
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter

from llamaindex_m3 import M3Embedding, M3Index
from m3_core.testing.fake import FakeEncoder

TEXTS = (
    "Pandas eat bamboo all day.",
    "The river runs through the city.",
    "Bears eat fish from the river.",
    "A search engine ranks documents.",
)
QUERY = "What do pandas eat?"


@pytest.fixture
def fake() -> FakeEncoder:
    return FakeEncoder()


def documents() -> list[Document]:
    return [Document(id_=f"d{i}", text=text) for i, text in enumerate(TEXTS)]


def made(fake: FakeEncoder, **options) -> M3Index:
    return M3Index.from_documents(
        documents(), encoder=fake, transformations=[SentenceSplitter()], **options
    )


def texts(index: M3Index) -> set[str]:
    return {node.get_content() for node in index.vector_store.get_nodes()}


@pytest.mark.parametrize("by", ["index", "view"])
async def test_a_document_is_deleted_whatever_the_document_store_knows(fake, by) -> None:
    # Two over one storage context: deleting from the first empties the document store for both.
    storage = StorageContext.from_defaults()
    first, second = made(fake, storage_context=storage), made(fake, storage_context=storage)
    first.delete_ref_doc("d0", delete_from_docstore=True)
    first.docstore.delete_ref_doc("d1")
    first.docstore.delete_ref_doc("d2")
    if by == "view":
        second.vector_store.delete("d0")
        await second.vector_store.adelete("d1")
        second.vector_store.delete("d2")
    else:
        second.delete_ref_doc("d0", delete_from_docstore=True)
        await second.adelete_ref_doc("d1", delete_from_docstore=True)
        await second.adelete_ref_doc("d2")
    assert texts(second) == {TEXTS[3]}
    assert set(second.index_struct.nodes_dict) == set(second._nodes.node_ids())


@pytest.mark.parametrize(
    "strategy", [DocstoreStrategy.UPSERTS, DocstoreStrategy.UPSERTS_AND_DELETE]
)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_pipelines_over_the_indexs_own_document_store(fake, strategy, asynchronous) -> None:
    index = M3Index([], encoder=fake)
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(), M3Embedding(encoder=fake)],
        vector_store=index.vector_store,
        docstore=index.docstore,
        docstore_strategy=strategy,
    )
    changed = [Document(id_="d0", text="Pandas eat pizza."), *documents()[1:3]]
    for given in (documents(), changed):
        if asynchronous:
            await pipeline.arun(documents=given)
        else:
            pipeline.run(documents=given)
    kept = {"Pandas eat pizza.", *TEXTS[1:3]}
    if strategy == DocstoreStrategy.UPSERTS:
        kept.add(TEXTS[3])
    assert texts(index) == kept
