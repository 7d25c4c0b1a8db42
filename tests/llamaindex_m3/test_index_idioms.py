"""M3Index as code for VectorStoreIndex and for the bge-m3 managed index calls it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from llama_index.core import Document, StorageContext, load_index_from_storage
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from tests.conftest import make_text
from tests.llamaindex_m3.nodes import QUERY, ids
from tests.table import table

from llamaindex_m3 import M3Index, M3SparseRetriever
from m3_core import Encoder
from m3_core.errors import IndexFileError


@pytest.fixture
def index(encoder: Encoder) -> M3Index:
    documents = [Document(id_=f"d{i}", text=make_text(i, 3 + i % 6)) for i in range(12)]
    return M3Index.from_documents(documents, encoder=encoder)


def scored(found: list[NodeWithScore]) -> dict[str, float]:
    return {one.node.node_id: pytest.approx(one.score, abs=1e-6) for one in found}


def plain(found: list[NodeWithScore]) -> dict[str, float]:
    return {one.node.node_id: one.score for one in found}


def test_llama_index_loads_an_index_in_memory_and_refuses_a_folder(index, tmp_path) -> None:
    index.set_index_id("mine")
    held = load_index_from_storage(index.storage_context)
    assert type(held) is M3Index
    assert ids(held.as_retriever().retrieve(QUERY)) == ids(index.as_retriever().retrieve(QUERY))
    index.insert(Document(id_="one", text=QUERY))
    held.insert(Document(id_="two", text=QUERY))
    index.persist(tmp_path)
    assert len(M3Index.from_persist_dir(tmp_path, encoder=index._nodes.encoder)) == 14
    storage = StorageContext.from_defaults(persist_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"load a saved one with M3Index\.from_persist_dir"):
        load_index_from_storage(storage)
    with pytest.raises(ValueError, match=r"load a saved one with M3Index\.from_persist_dir"):
        load_index_from_storage(storage, index_id="mine", model_name=str(table()))
    with pytest.raises(ValueError, match="max_length cannot be set"):
        load_index_from_storage(index.storage_context, max_length=16)


def test_a_held_index_keeps_mode_and_weights(encoder) -> None:
    index = M3Index(
        [TextNode(id_=f"n{i}", text=make_text(i, 5)) for i in range(9)],
        encoder=encoder,
        mode="sparse",
        weights=(1, 2, 3),
    )
    held = load_index_from_storage(index.storage_context)
    for options in ({}, {"mode": "hybrid"}):
        expected = index.as_retriever(**options).retrieve(QUERY)
        assert scored(held.as_retriever(**options).retrieve(QUERY)) == plain(expected)


def test_without_this_package_llama_index_does_not_load_it_as_another(index, tmp_path) -> None:
    index.persist(tmp_path)
    code = (
        "import sys\n"
        "from llama_index.core import StorageContext, load_index_from_storage\n"
        "storage = StorageContext.from_defaults(persist_dir=sys.argv[1])\n"
        "load_index_from_storage(storage)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "KeyError: 'llamaindex_m3.M3Index'" in done.stderr


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"vector_store_query_mode": "default"}, {"mode": "dense"}),
        ({"vector_store_query_mode": VectorStoreQueryMode.SPARSE}, {"mode": "sparse"}),
        ({"vector_store_query_mode": "text_search"}, {"mode": "sparse"}),
        ({"vector_store_query_mode": "hybrid"}, {"mode": "hybrid"}),
        ({"vector_store_query_mode": "semantic_hybrid"}, {"mode": "hybrid"}),
        ({"vector_store_query_mode": "hybrid", "alpha": 0.25}, {"weights": (0.25, 0.75, 0)}),
        ({"alpha": 1}, {"mode": "dense"}),
        ({"alpha": 0.0}, {"mode": "sparse"}),
        ({"hybrid_top_k": 5}, {"similarity_top_k": 5}),
        ({"sparse_top_k": 3}, {"fetch_k": 3}),
        ({"mode": "sparse", "sparse_top_k": 4}, {"mode": "sparse", "similarity_top_k": 4}),
        ({"weights_for_different_modes": [1, 1, 1]}, {"weights": (1, 1, 1)}),
        ({"embed_model": None, "vector_store_kwargs": {}}, {}),
    ],
)
def test_names_of_llama_index(index, theirs, ours) -> None:
    ours = {"similarity_top_k": 3, **ours}
    expected = index.as_retriever(**ours).retrieve(QUERY)
    assert len(expected) == ours["similarity_top_k"]
    found = index.as_retriever(**{"similarity_top_k": 3, **theirs}).retrieve(QUERY)
    assert scored(found) == plain(expected)
    engine = index.as_query_engine(llm=MockLLM(), **{"similarity_top_k": 3, **theirs})
    assert ids(engine.retrieve(QueryBundle(QUERY))) == ids(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similarity_topk": 3}, r"no option 'similarity_topk' \(is 'similarity_top_k' meant\?\)"),
        ({"similarity_topk": 3}, r"it takes mode, weights, .*query and chat engines take"),
        ({"respons_mode": "compact"}, "is 'response_mode' meant"),
        ({"vector_store_query_mode": "mmr"}, "must be one of default, sparse, .*got 'mmr'"),
        ({"vector_store_query_mode": "colbert"}, "mode 'colbert' of M3Index.as_retriever"),
        ({"mode": "dense", "vector_store_query_mode": "sparse"}, "two names of one option"),
        ({"alpha": 1.5}, "alpha must be from 0"),
        ({"alpha": 0.5, "weights": (1, 1, 1)}, "two names of one option"),
        ({"alpha": 0.5, "mode": "dense"}, "alpha=0.5 is of the hybrid mode"),
        ({"hybrid_top_k": 5, "mode": "sparse"}, "hybrid_top_k=5 is of the hybrid mode"),
        ({"sparse_top_k": 5, "mode": "colbert"}, "of the modes sparse and hybrid"),
        ({"sparse_top_k": 0}, "sparse_top_k must be at least 1"),
        ({"sparse_top_k": 5, "fetch_k": 5}, "two names of one option"),
        ({"embed_model": "local"}, "embed_model='local' cannot be honoured: queries are encoded"),
        ({"vector_store_kwargs": {"x": 1}}, "pass fetch_k= and exhaustive="),
        ({"bge_m3_kwargs": {"top_k": 1}}, "pass similarity_top_k="),
    ],
)
def test_what_retrievers_cannot_honour_is_an_error(index, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        index.as_retriever(**options)
    with pytest.raises(ValueError, match=message):
        index.as_query_engine(llm=MockLLM(), **options)
    with pytest.raises(ValueError, match=message):
        index.as_chat_engine(llm=MockLLM(), **options)


def test_what_engines_take_goes_through(index) -> None:
    engine = index.as_query_engine(
        llm=MockLLM(), response_mode="refine", similarity_top_k=4, streaming=False, verbose=False
    )
    assert type(engine) is RetrieverQueryEngine
    assert len(engine.query(QUERY).source_nodes) == 4
    for mode in (ChatMode.CONDENSE_PLUS_CONTEXT, ChatMode.CONTEXT, ChatMode.BEST):
        chat = index.as_chat_engine(
            chat_mode=mode,
            llm=MockLLM(),
            memory=ChatMemoryBuffer.from_defaults(token_limit=1000),
            system_prompt="Be brief.",
            similarity_top_k=3,
        )
        assert len(chat.chat(QUERY).source_nodes) == 3


def test_names_of_the_managed_index(encoder, tmp_path) -> None:
    nodes = [TextNode(id_=f"n{i}", text=make_text(i, 3 + i % 6)) for i in range(12)]
    index = M3Index(
        nodes,
        encoder=encoder,
        index_name="mine",
        weights_for_different_modes=[0.4, 0.2, 0.4],
        pooling_method="cls",
        normalize_embeddings=True,
    )
    expected = M3Index(nodes, encoder=encoder, weights=(0.4, 0.2, 0.4)).as_retriever(
        similarity_top_k=10
    )
    assert scored(index.query(QUERY)) == plain(expected.retrieve(QUERY))
    assert len(index.query(QUERY, top_k=3)) == 3
    assert index.index_id == "mine"
    index.persist(str(tmp_path / "s"))
    again = M3Index.load_from_disk(
        str(tmp_path / "s"),
        index_name="mine",
        weights_for_different_modes=[0.4, 0.2, 0.4],
        encoder=encoder,
    )
    assert ids(again.query(QUERY)) == ids(index.query(QUERY))
    assert len(M3Index.load_from_disk(tmp_path / "s", encoder=encoder)) == 12
    with pytest.raises(IndexFileError, match=r"holds M3Index \['mine'\]"):
        M3Index.load_from_disk(tmp_path / "s", index_name="other", encoder=encoder)
    index.insert_nodes([TextNode(id_="new", text=QUERY)])
    index.persist(tmp_path / "s")
    assert len(M3Index.load_from_disk(tmp_path / "s", encoder=encoder)) == 13


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_fp16": True}, "use_fp16=True cannot be honoured: pass dtype='float16'"),
        ({"batch_size": 4}, "batches are filled by tokens"),
        ({"doc_maxlen": 512}, "pass max_length="),
        ({"query_maxlen": 512}, "pass max_length="),
        ({"pooling_method": "mean"}, "pooled as the checkpoint says"),
        ({"normalize_embeddings": False}, "length 1"),
        ({"embed_model": "local"}, "name the model by model_name="),
        ({"weights": (1, 1, 1), "weights_for_different_modes": [1, 1, 1]}, "two names"),
        ({"colour": "red"}, "M3Index has no option 'colour': it takes .*weights"),
        ({"max_length": "many"}, "M3Index cannot take max_length='many'"),
    ],
)
def test_what_the_index_cannot_honour_is_an_error(encoder, index, tmp_path, options, message):
    documents = [Document(text=QUERY)]
    with pytest.raises(ValueError, match=message) as error:
        M3Index.from_documents(documents, encoder=encoder, **options)
    assert "NodeCollection" not in str(error.value)
    index.persist(tmp_path)
    for load in (M3Index.from_persist_dir, M3Index.load_from_disk):
        if load == M3Index.load_from_disk and "weights" in options:
            continue
        with pytest.raises(ValueError, match=message):
            load(tmp_path, encoder=encoder, **options)


def test_a_folder_of_the_managed_index(tmp_path) -> None:
    storage = StorageContext.from_defaults()
    storage.docstore.add_documents([TextNode(id_="a", text=QUERY)])
    storage.persist(tmp_path)
    (tmp_path / "multi_embed_store.pkl").write_bytes(b"never read")
    with pytest.raises(IndexFileError, match="saved by BGEM3Index, whose pickle is not read"):
        M3Index.load_from_disk(tmp_path, model_name=str(table()))
    nodes = StorageContext.from_defaults(persist_dir=str(tmp_path)).docstore.docs.values()
    assert len(M3Index(list(nodes), model_name=str(table()))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": []}, "make the retriever by from_nodes"),
        ({"stemmer": "x"}, "stemmer='x' cannot be honoured"),
        ({"max_length": "many"}, "M3SparseRetriever cannot take max_length='many'"),
        ({"similarity_topk": 1}, "M3SparseRetriever has no option 'similarity_topk'"),
    ],
)
def test_errors_of_retrievers_name_their_class(encoder, options, message) -> None:
    with pytest.raises(ValueError, match=message) as error:
        M3SparseRetriever(encoder=encoder, **options)
    assert "NodeCollection" not in str(error.value)
