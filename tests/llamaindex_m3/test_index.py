from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from llama_index.core import Document
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import IndexNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores.types import (
    ExactMatchFilter,
    MetadataFilters,
)
from tests.conftest import make_text
from tests.llamaindex_m3.nodes import make_nodes as shared_nodes
from tests.table import CORPUS, table

from llamaindex_m3 import M3Index
from m3_core import Encoder
from m3_core.errors import MissingRepresentationError
from m3_core.scoring import hybrid_scores

QUERY = "world water der Fluss und Stadt"
WEIGHTS = {
    "dense": (1, 0, 0),
    "sparse": (0, 1, 0),
    "colbert": (0, 0, 1),
    "hybrid": (1, 0.3, 1),
}
modes = pytest.mark.parametrize("mode", WEIGHTS)


def make_documents(number: int = 20) -> list[Document]:
    return [
        Document(id_=f"d{i}", text=make_text(i, 3 + i % 6), metadata={"number": i})
        for i in range(number)
    ]


def make_nodes(number: int = 20) -> list[TextNode]:
    return [TextNode(id_=f"n{i}", text=make_text(i, 3 + i % 6)) for i in range(number)]


def ids(found: list[NodeWithScore]) -> list[str]:
    return [one.node.node_id for one in found]


def documents_of(found: list[NodeWithScore]) -> list[str | None]:
    return [one.node.ref_doc_id for one in found]


@pytest.fixture
def index(encoder: Encoder) -> M3Index:
    return M3Index.from_documents(make_documents(), encoder=encoder)


@modes
def test_each_mode_is_the_weighted_mean_over_all_nodes(encoder, mode) -> None:
    nodes = make_nodes()
    index = M3Index(nodes, encoder=encoder)
    wanted = {"return_sparse": True, "return_colbert_vecs": True}
    expected = hybrid_scores(
        encoder.encode_queries([QUERY], **wanted),
        encoder.encode_documents(
            [node.get_content(MetadataMode.EMBED) for node in nodes], **wanted
        ),
        WEIGHTS[mode],
    )[0]
    order = [i for i in np.argsort(-expected, kind="stable") if mode != "sparse" or expected[i] > 0]
    found = index.as_retriever(mode=mode, similarity_top_k=20).retrieve(QUERY)
    assert len(found) == len(order)
    for one in found:
        # Multi-vectors are stored in float16.
        assert one.score == pytest.approx(expected[nodes.index(one.node)], abs=2e-3)
    exact = index.as_retriever(mode=mode, similarity_top_k=20, exhaustive=True).retrieve(QUERY)
    assert exact == found
    some = index.as_retriever(mode=mode, similarity_top_k=3, fetch_k=20).retrieve(QUERY)
    assert ids(some) == ids(found)[:3]


def test_more_nodes_than_are_scored_at_once_by_default(encoder, monkeypatch) -> None:
    from m3_core.collection import collection

    monkeypatch.setattr(collection, "EXHAUSTIVE_UP_TO", 10)
    monkeypatch.setattr(collection, "FETCH_LEAST", 2)
    index = M3Index(make_nodes(), encoder=encoder, mode="colbert")
    every = ids(index.as_retriever(similarity_top_k=20, exhaustive=True).retrieve(QUERY))
    few = ids(index.as_retriever(similarity_top_k=1).retrieve(QUERY))
    candidates = ids(index.as_retriever(similarity_top_k=4, fetch_k=4).retrieve(QUERY))
    assert few == [one for one in every if one in candidates][:1]
    for mode in ("dense", "sparse"):
        found = index.as_retriever(mode=mode, similarity_top_k=20).retrieve(QUERY)
        exact = index.as_retriever(mode=mode, similarity_top_k=20, exhaustive=True).retrieve(QUERY)
        assert found == exact


def test_documents_are_split_inserted_deleted_and_refreshed(encoder, index) -> None:
    assert len(index) == 20
    assert sorted(index.ref_doc_info) == sorted(f"d{i}" for i in range(20))
    new = Document(id_="new", text=QUERY)
    index.insert(new)
    retriever = index.as_retriever(mode="sparse", similarity_top_k=1)
    assert documents_of(retriever.retrieve(QUERY)) == ["new"]
    assert "new" in index.ref_doc_info
    index.delete_ref_doc("new", delete_from_docstore=True)
    assert len(index) == 20
    assert "new" not in index.ref_doc_info
    assert documents_of(retriever.retrieve(QUERY)) != ["new"]
    assert index.refresh_ref_docs([*make_documents(2), new]) == [False, False, True]
    index.update_ref_doc(Document(id_="d0", text="панда мир"))
    assert len(index) == 21
    (node_id,) = index.ref_doc_info["d0"].node_ids
    index.delete_nodes([node_id])
    assert len(index) == 20
    assert "d0" not in index.ref_doc_info
    long = Document(id_="long", text=" ".join(make_text(i, 20) + "." for i in range(30)))
    split = M3Index.from_documents(
        [long],
        encoder=encoder,
        transformations=[SentenceSplitter(chunk_size=60, chunk_overlap=0)],
    )
    assert len(split) == len(split.ref_doc_info["long"].node_ids) > 3


@pytest.mark.parametrize("is_async", [False, True])
async def test_all_nodes_of_a_document_are_deleted(encoder, is_async) -> None:
    # LlamaIndex deletes by the document store's own list, which shortens meanwhile.
    index = M3Index(shared_nodes(), encoder=encoder)
    if is_async:
        await index.adelete_ref_doc("doc0", delete_from_docstore=True)
    else:
        index.delete_ref_doc("doc0", delete_from_docstore=True)
    assert len(index) == 20
    found = index.as_retriever(mode="dense", similarity_top_k=30).retrieve(QUERY)
    assert "doc0" not in documents_of(found)


async def test_async_changes_and_queries(encoder, index) -> None:
    await index.ainsert(Document(id_="new", text=QUERY))
    retriever = index.as_retriever(mode="sparse", similarity_top_k=1)
    assert documents_of(await retriever.aretrieve(QUERY)) == ["new"]
    await index.adelete_ref_doc("new", delete_from_docstore=True)
    assert len(index) == 20
    retriever = index.as_retriever(similarity_top_k=5)
    queries = [make_text(i, 2) for i in range(30)]
    expected = [ids(retriever.retrieve(query)) for query in queries]
    found = await asyncio.gather(*map(retriever.aretrieve, queries))
    assert [ids(one) for one in found] == expected
    with ThreadPoolExecutor(64) as pool:
        assert [ids(one) for one in pool.map(retriever.retrieve, queries)] == expected


def test_changes_while_searching(encoder) -> None:
    index = M3Index(make_nodes(), encoder=encoder)
    retriever = index.as_retriever(similarity_top_k=40)
    extra = [TextNode(id_=f"x{i}", text=make_text(i, 4)) for i in range(20)]

    def change() -> None:
        index.insert_nodes(extra)
        index.delete_nodes([node.node_id for node in extra])

    with ThreadPoolExecutor(8) as pool:
        changing = pool.submit(change)
        searches = [pool.submit(retriever.retrieve, QUERY) for _ in range(60)]
        found = [search.result() for search in searches]
        changing.result()
    for one in found:
        assert {f"n{i}" for i in range(20)} <= set(ids(one))
        assert len(set(ids(one))) == len(one)
    assert len(index) == 20


def test_restrictions_and_embedding(encoder, index) -> None:
    filters = MetadataFilters(filters=[ExactMatchFilter(key="number", value=7)])
    assert documents_of(index.as_retriever(filters=filters).retrieve(QUERY)) == ["d7"]
    found = index.as_retriever(doc_ids=["d3", "d4"], similarity_top_k=9).retrieve(QUERY)
    assert sorted(documents_of(found)) == ["d3", "d4"]
    one = ids(found)[:1]
    assert ids(index.as_retriever(node_ids=one).retrieve(QUERY)) == one
    vector = encoder.encode_queries(["panda bear"]).dense_vecs[0].tolist()
    given = index.as_retriever(mode="dense").retrieve(QueryBundle(QUERY, embedding=vector))
    expected = index.as_retriever(mode="dense").retrieve("panda bear")
    assert ids(given) == ids(expected)
    scores = [one.score for one in expected]
    assert [one.score for one in given] == pytest.approx(scores, abs=1e-6)


async def test_a_query_engine_on_the_embedded_model() -> None:
    documents = [
        Document(id_=item["id"], text=item["text"], metadata={"topic": item["topic"]})
        for item in CORPUS["documents"]
    ]
    index = M3Index.from_documents(documents, model_name=str(table()))
    engine = index.as_query_engine(llm=MockLLM(), mode="hybrid", similarity_top_k=2)
    query = "What do giant pandas eat in the mountain forests?"
    for response in (engine.query(query), await engine.aquery(query)):
        assert response.source_nodes[0].node.metadata["topic"] == "panda"
        assert query in str(response)


def test_wrong_input(encoder, tiny_dense) -> None:
    for empty in (M3Index([], encoder=encoder), M3Index.from_documents([], encoder=encoder)):
        assert len(empty) == 0
        for mode in WEIGHTS:
            assert empty.as_retriever(mode=mode).retrieve(QUERY) == []
    index = M3Index([*make_nodes(4), TextNode(id_="empty", text="")], encoder=encoder)
    assert len(index) == 4
    assert len(index.as_retriever(mode="dense", similarity_top_k=99).retrieve(QUERY)) == 4
    with pytest.raises(ValueError, match="id 'n0' comes more than once"):
        index.insert_nodes([*make_nodes(1), *make_nodes(1)])
    with pytest.raises(ValueError, match="id 'n0' comes more than once"):
        M3Index([*make_nodes(1), *make_nodes(1)], encoder=encoder)
    with pytest.raises(TypeError, match="must be LlamaIndex nodes; got str"):
        index.insert_nodes(["text"])
    assert len(index) == 4
    for options, message in (
        ({"mode": "both"}, "mode must be one of dense, sparse, colbert, hybrid"),
        ({"weights": (0, 0, 0)}, "weights must be"),
        ({"similarity_top_k": 0}, "similarity_top_k must be at least 1"),
        ({"fetch_k": -1}, "fetch_k must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            index.as_retriever(**options)
    with pytest.raises(ValueError, match="mode must be"):
        M3Index([], encoder=encoder, mode="both")
    with pytest.raises(TypeError, match="text 0"):
        index.as_retriever().retrieve(QueryBundle(None))
    with pytest.raises(ValueError, match="M3Index has no option 'colour'"):
        M3Index([], encoder=encoder, colour="red")
    with pytest.raises(MissingRepresentationError, match="colbert and sparse is needed"):
        M3Index([], model_name=str(tiny_dense), device="cpu")
    light = M3Index(make_nodes(4), encoder=encoder, multi_vectors=False)
    assert len(light.as_retriever(similarity_top_k=4).retrieve(QUERY)) == 4
    with pytest.raises(ValueError, match="leave nothing to score by: stored are dense, sparse"):
        light.as_retriever(mode="colbert").retrieve(QUERY)


def test_objects_of_index_nodes(encoder) -> None:
    inner = M3Index([TextNode(id_="inner", text=QUERY)], encoder=encoder).as_retriever()
    outer = M3Index(
        objects=[IndexNode(id_="outer", text=QUERY, index_id="inner", obj=inner)], encoder=encoder
    )
    assert ids(outer.as_retriever().retrieve(QUERY)) == ["inner"]
