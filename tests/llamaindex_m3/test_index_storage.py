from __future__ import annotations

import re
import threading

import fsspec
import pytest
from llama_index.core import Document, MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.graph_stores import EntityNode, SimplePropertyGraphStore
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
    own = sorted(saved.glob("m3_*"))
    assert [re.sub("-[0-9a-f]{16}", "", path.name) for path in own] == [
        "m3_index.safetensors",
        "m3_nodes.safetensors",
    ]
    for file in own:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises(IndexFileError, match="damaged"):
            M3Index.from_persist_dir(saved, encoder=encoder)
        file.unlink()
        with pytest.raises(IndexFileError, match=r"holds M3Index \[\]|copy the whole folder"):
            M3Index.from_persist_dir(saved, encoder=encoder)
        file.write_bytes(content)
    VectorStoreIndex(make_nodes(2), embed_model=MockEmbedding(embed_dim=3)).storage_context.persist(
        tmp_path / "foreign"
    )
    with pytest.raises(IndexFileError, match=r"holds M3Index \[\]"):
        M3Index.from_persist_dir(tmp_path / "foreign", encoder=encoder)


def test_the_last_whole_state_is_loaded_whatever_became_of_others(
    encoder, index, tmp_path, monkeypatch, caplog
) -> None:
    saved = tmp_path / "s"
    caplog.set_level("INFO", logger="llamaindex_m3")
    index.storage_context.persist(saved)
    assert len(M3Index.from_persist_dir(saved, encoder=encoder)) == 20
    assert "loading state 1, saved at 20" in caplog.text
    # Whatever of LlamaIndex's own files a save that was interrupted has written.
    for name in ("docstore.json", "index_store.json", "graph_store.json"):
        (saved / name).write_text("{")
    again = M3Index.from_persist_dir(saved, encoder=encoder)
    assert "loading the last whole state, state 1" in caplog.text
    assert "docstore.json and index_store.json there is of another one" in caplog.text
    assert sorted(again.ref_doc_info) == sorted(index.ref_doc_info)
    assert again.docstore.docs.keys() == index.docstore.docs.keys()
    again.insert(Document(id_="new", text=QUERY))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("llamaindex_m3.index_files.write_tensors", full)
        with pytest.raises(OSError, match="No space"):
            again.persist(saved)
    assert len(list(saved.glob("m3_nodes-*"))) == 1
    assert len(M3Index.from_persist_dir(saved, encoder=encoder)) == 20
    again.persist(saved)
    assert len(M3Index.from_persist_dir(saved, encoder=encoder)) == 21
    assert len(list(saved.glob("m3_nodes-*"))) == 1
    caplog.clear()
    assert len(M3Index.from_persist_dir(saved, encoder=encoder)) == 21
    assert "loading state 2, saved at 20" in caplog.text


def test_everything_of_a_storage_context_comes_back(encoder, tmp_path) -> None:
    storage = StorageContext.from_defaults(property_graph_store=SimplePropertyGraphStore())
    storage.property_graph_store.upsert_nodes([EntityNode(name="panda", label="animal")])
    storage.graph_store.upsert_triplet("panda", "eats", "bamboo")
    nodes = make_nodes(6)
    storage.docstore.add_documents(nodes)
    index = M3Index(nodes[:3], encoder=encoder, storage_context=storage)
    other = VectorStoreIndex(
        nodes[3:], embed_model=MockEmbedding(embed_dim=3), storage_context=storage
    )
    storage.persist(tmp_path)
    again = M3Index.from_persist_dir(tmp_path, encoder=encoder).storage_context
    assert again.docstore.docs == storage.docstore.docs
    assert again.graph_store.get("panda") == [["eats", "bamboo"]]
    assert [one.name for one in again.property_graph_store.get()] == ["panda"]
    vectors = [one.vector_store.to_dict() for one in (again, storage)]
    assert vectors[0] == vectors[1]
    assert len(vectors[0]["embedding_dict"]) == 3
    assert {one.index_id for one in again.index_store.index_structs()} == {
        index.index_id,
        other.index_id,
    }


def test_writers_that_take_turns_leave_one_state(encoder, tmp_path) -> None:
    indices = [M3Index(make_nodes(4 + i), encoder=encoder) for i in range(4)]
    failed: list[BaseException] = []

    def save(index: M3Index) -> None:
        try:
            for _ in range(4):
                index.persist(tmp_path)
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=save, args=(index,)) for index in indices]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if (tmp_path / "m3_index.safetensors").exists():
            again = M3Index.from_persist_dir(tmp_path, encoder=encoder)
            (index,) = (one for one in indices if one.index_id == again.index_id)
            assert len(again) == len(index)
    assert failed == []
    assert len(list(tmp_path.glob("m3_*"))) == 2


def test_other_file_systems_are_refused(index, tmp_path) -> None:
    with pytest.raises(ValueError, match="on local disks only"):
        index.storage_context.persist("memory://x", fs=fsspec.filesystem("memory"))
    index.storage_context.persist(str(tmp_path / "s"), fs=fsspec.filesystem("file"))
    assert len(list(tmp_path.glob("s/m3_nodes-*"))) == 1


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
