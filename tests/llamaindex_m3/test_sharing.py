"""What retrievers and M3Index share with callers, other processes and tracing: little."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.schema import IndexNode, QueryBundle, TextNode
from tests.llamaindex_m3.nodes import QUERY, ids, make_nodes
from tests.table import table

from llamaindex_m3 import M3HybridRetriever, M3Index, M3SparseRetriever

PARTS = {
    "sparse": {"sparse"},
    "hybrid": {"dense", "sparse"},
    "rerank": {"dense", "sparse", "colbert"},
    "index": {"dense", "sparse", "colbert"},
}
kinds = pytest.mark.parametrize("kind", PARTS)


def make(kind: str, **options):
    nodes = options.pop("nodes", None) or make_nodes()
    if kind == "index":
        return M3Index(nodes, **options).as_retriever(similarity_top_k=30)
    own = M3SparseRetriever if kind == "sparse" else M3HybridRetriever
    extra = {"rerank": True} if kind == "rerank" else {}
    return own.from_nodes(nodes, similarity_top_k=30, **extra, **options)


@kinds
async def test_scores_stand_beside_nodes_and_not_in_them(encoder, kind) -> None:
    retriever = make(kind, encoder=encoder)
    found = retriever.search_with_scores(QUERY)
    plain = retriever.retrieve(QUERY)
    assert [node.node_id for node, _, _ in found] == ids(plain)
    assert [score for _, score, _ in found] == pytest.approx([one.score for one in plain])
    metadata = {node.node_id: node.metadata for node in make_nodes()}
    weights = {"dense": 1.0, "sparse": 1.0 if kind == "sparse" else 0.3, "colbert": 1.0}
    for node, score, scores in found:
        assert node.metadata == metadata[node.node_id]
        assert set(scores) == PARTS[kind]
        total = sum(weights[name] * one for name, one in scores.items())
        assert score == pytest.approx(total / sum(weights[name] for name in scores), abs=1e-5)
    assert [node.metadata for node in (one.node for one in plain)] == [
        metadata[one.node.node_id] for one in plain
    ]
    for same in (
        retriever.search_with_scores(QueryBundle(QUERY)),
        await retriever.asearch_with_scores(QUERY),
    ):
        assert [node for node, _, _ in same] == [node for node, _, _ in found]
        assert [x for _, x, _ in same] == pytest.approx([x for _, x, _ in found])


@kinds
def test_results_and_callers_share_nothing(encoder, kind) -> None:
    nodes = make_nodes(3)
    nodes[0].metadata["deep"] = {"list": [1]}
    retriever = make(kind, encoder=encoder, nodes=nodes)
    expected = {node.node_id: copy.deepcopy(node) for node in nodes}
    nodes[0].metadata["deep"]["list"].append("caller")
    nodes[1].metadata["tags"].append("caller")
    for _ in range(2):
        found = {one.node.node_id: one.node for one in retriever.retrieve(QUERY)}
        assert found == {one: expected[one] for one in found}
        for node in found.values():
            node.metadata["tags"].append("result")
            node.metadata.get("deep", {"list": []})["list"].append("result")
            node.relationships.clear()
    if kind == "index":
        store_nodes = M3Index(make_nodes(3), encoder=encoder).vector_store
        store_nodes.get_nodes()[0].metadata["tags"].append("result")
        assert store_nodes.get_nodes()[0].metadata["tags"] == ["all", "t0"]


@kinds
def test_copies_have_nodes_of_their_own(encoder, kind) -> None:
    retriever = make(kind, encoder=encoder)
    expected = ids(retriever.retrieve(QUERY))
    for again in (copy.deepcopy(retriever), pickle.loads(pickle.dumps(retriever))):
        assert ids(again.retrieve(QUERY)) == expected
        if kind != "index":
            again.insert_nodes([TextNode(id_="new", text=QUERY)])
            again.delete(["n1"])
            assert "new" in ids(again.retrieve(QUERY))
    assert ids(retriever.retrieve(QUERY)) == expected


def test_copies_of_an_index(encoder, tmp_path) -> None:
    index = M3Index(make_nodes(), encoder=encoder, mode="sparse", multi_vectors=False)
    expected = ids(index.as_retriever().retrieve(QUERY))
    for again in (copy.deepcopy(index), pickle.loads(pickle.dumps(index))):
        assert again.index_id == index.index_id
        assert ids(again.as_retriever().retrieve(QUERY)) == expected
        again.vector_store.add([TextNode(id_="new", text=QUERY)])
        again.delete_nodes(["n1"])
        assert len(again) == 30
        assert "new" in ids(again.as_retriever(similarity_top_k=30).retrieve(QUERY))
        again.persist(tmp_path)
        loaded = M3Index.from_persist_dir(tmp_path, encoder=encoder, multi_vectors=False)
        assert len(loaded) == 30
    assert len(index) == 30
    assert "new" not in ids(index.as_retriever(similarity_top_k=30).retrieve(QUERY))


def test_another_process_searches_what_was_pickled(tmp_path) -> None:
    index = M3Index(make_nodes(), model_name=str(table()), device="cpu", dtype="float32")
    hybrid = make("rerank", model_name=str(table()), device="cpu", dtype="float32")
    (tmp_path / "pickled").write_bytes(pickle.dumps((index, hybrid)))
    code = (
        "import pathlib, pickle, sys\n"
        "index, hybrid = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "for one in (index.as_retriever(similarity_top_k=5), hybrid):\n"
        "    print(*(found.node.node_id for found in one.retrieve(sys.argv[2])[:5]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "pickled"), QUERY],
        capture_output=True,
        text=True,
        check=True,
    )
    first = ids(index.as_retriever(similarity_top_k=5).retrieve(QUERY))
    second = ids(hybrid.retrieve(QUERY))[:5]
    assert done.stdout.split("\n")[:2] == [" ".join(first), " ".join(second)]


@kinds
async def test_tracing_shows_the_public_calls_alone(encoder, kind) -> None:
    retriever = make(kind, encoder=encoder)
    handler = SimpleSpanHandler()
    root = get_dispatcher("root")
    root.add_span_handler(handler)
    try:
        retriever.retrieve(QUERY)
        await retriever.aretrieve(QUERY)
        make(kind, encoder=encoder)
    finally:
        root.span_handlers.remove(handler)
    names = [span.id_.partition("-")[0].partition(".")[2] for span in handler.completed_spans]
    assert sorted(names) == ["_retrieve", "aretrieve", "retrieve"]


def test_index_nodes_are_given_as_they_are(encoder) -> None:
    inner = TextNode(id_="inner", text="x")
    retriever = M3SparseRetriever.from_nodes(
        [IndexNode(id_="outer", text=QUERY, index_id="one", obj=inner)], encoder=encoder
    )
    ((node, score, scores),) = retriever.search_with_scores(QUERY)
    assert node.node_id == "outer"
    assert scores == {"sparse": score}
    assert ids(retriever.retrieve(QUERY)) == ["inner"]
