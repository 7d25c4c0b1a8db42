from __future__ import annotations

import fsspec
import pytest
from llama_index.core import Document, MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from tests.conftest import make_text

from llamaindex_m3 import M3Index
from m3_core import Encoder
from m3_core.errors import IndexFileError

QUERY = "world water der Fluss und Stadt"


def make_documents(number: int = 20) -> list[Document]:
    return [
        Document(id_=f"d{i}", text=make_text(i, 3 + i % 6), metadata={"number": i})
        for i in range(number)
    ]


def make_nodes(number: int = 20) -> list[TextNode]:
    return [TextNode(id_=f"n{i}", text=make_text(i, 3 + i % 6)) for i in range(number)]


def documents_of(found: list[NodeWithScore]) -> list[str | None]:
    return [one.node.ref_doc_id for one in found]


def ids(found: list[NodeWithScore]) -> list[str]:
    return [one.node.node_id for one in found]


@pytest.fixture
def index(encoder: Encoder) -> M3Index:
    return M3Index.from_documents(make_documents(), encoder=encoder)


def test_saved_with_the_storage_context(encoder, index, tmp_path) -> None:
    index.delete_ref_doc("d5", delete_from_docstore=True)
    index.storage_context.persist(tmp_path / "s")
    again = M3Index.from_persist_dir(tmp_path / "s", encoder=encoder, mode="colbert")
    assert again.index_id == index.index_id
    assert sorted(again.ref_doc_info) == sorted(index.ref_doc_info)
    for mode in ("dense", "sparse", "colbert", "hybrid"):
        retrievers = [one.as_retriever(mode=mode, similarity_top_k=9) for one in (index, again)]
        before, after = (retriever.retrieve(QUERY) for retriever in retrievers)
        assert ids(before) == ids(after)
        assert [x.score for x in before] == pytest.approx([x.score for x in after], abs=1e-6)
    again.insert(Document(id_="new", text=QUERY))
    again.storage_context.persist(str(tmp_path / "s"))
    assert len(M3Index.from_persist_dir(str(tmp_path / "s"), encoder=encoder)) == 20
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".pkl", ".pickle")]


def test_several_indices_in_one_storage_context(encoder, tmp_path) -> None:
    storage = StorageContext.from_defaults()
    first = M3Index(make_nodes(3), encoder=encoder, storage_context=storage)
    second = M3Index(make_nodes(5), encoder=encoder, storage_context=storage, multi_vectors=False)
    other = VectorStoreIndex(
        make_nodes(4), embed_model=MockEmbedding(embed_dim=3), storage_context=storage
    )
    first.set_index_id("first")
    second.set_index_id("second")
    storage.persist(tmp_path)
    assert len(M3Index.from_persist_dir(tmp_path, "first", encoder=encoder)) == 3
    loaded = M3Index.from_persist_dir(tmp_path, "second", encoder=encoder, multi_vectors=False)
    assert len(loaded) == 5
    for wrong in (None, "third", other.index_id):
        with pytest.raises(IndexFileError, match=r"holds M3Index \['first', 'second'\]"):
            M3Index.from_persist_dir(tmp_path, wrong, encoder=encoder)
    held = M3Index(index_struct=first.index_struct, storage_context=storage)
    assert len(held) == 3
    with pytest.raises(ValueError, match="holds no nodes of the M3Index"):
        M3Index(index_struct=other.index_struct, storage_context=storage, encoder=encoder)


def test_damaged_foreign_and_other_models_folders(encoder, index, tmp_path) -> None:
    saved = tmp_path / "s"
    index.storage_context.persist(saved)
    with pytest.raises(FileNotFoundError):
        M3Index.from_persist_dir(tmp_path / "nothing", encoder=encoder)
    with pytest.raises(IndexFileError, match="another model"):
        M3Index.from_persist_dir(saved, encoder=encoder.with_options(max_length=77))
    with pytest.raises(IndexFileError, match="other representations"):
        M3Index.from_persist_dir(saved, encoder=encoder, multi_vectors=False)
    files = [path for path in saved.rglob("*") if path.is_file()]
    damaging = {"docstore.json", "index_store.json", f"m3-{index.index_id}__vector_store"}
    assert damaging <= {path.name for path in files}
    for file in files:
        if file.name not in damaging:
            continue
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises(IndexFileError, match="damaged"):
            M3Index.from_persist_dir(saved, encoder=encoder)
        file.write_bytes(content)
    # Written by LlamaIndex in an order of its own: a crash may leave two states.
    index.insert(Document(id_="new", text=QUERY))
    index.storage_context.index_store.persist(str(saved / "index_store.json"))
    with pytest.raises(IndexFileError, match="do not belong together"):
        M3Index.from_persist_dir(saved, encoder=encoder)
    VectorStoreIndex(make_nodes(2), embed_model=MockEmbedding(embed_dim=3)).storage_context.persist(
        tmp_path / "foreign"
    )
    with pytest.raises(IndexFileError, match=r"holds M3Index \[\]"):
        M3Index.from_persist_dir(tmp_path / "foreign", encoder=encoder)


def test_other_file_systems_are_refused(index, tmp_path) -> None:
    with pytest.raises(ValueError, match="on local disks only"):
        index.storage_context.persist("memory://x", fs=fsspec.filesystem("memory"))
    index.storage_context.persist(str(tmp_path / "s"), fs=fsspec.filesystem("file"))
    assert len(list(tmp_path.glob("s/m3-*"))) == 1


def test_the_storage_contexts_store_answers_queries(encoder, index) -> None:
    (store,) = (
        one for name, one in index.storage_context.vector_stores.items() if name.startswith("m3-")
    )
    for mode, name in (("default", "dense"), ("sparse", "sparse"), ("hybrid", "hybrid")):
        query = VectorStoreQuery(
            query_str=QUERY, similarity_top_k=4, mode=VectorStoreQueryMode(mode)
        )
        result = store.query(query)
        expected = index.as_retriever(mode=name, similarity_top_k=4).retrieve(QUERY)
        assert result.ids == ids(expected)
        assert result.similarities == [one.score for one in expected]
        assert result.nodes == [one.node for one in expected]
    with pytest.raises(ValueError, match="mode must be one of default"):
        store.query(VectorStoreQuery(query_str=QUERY, mode=VectorStoreQueryMode.MMR))
