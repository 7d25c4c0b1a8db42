from __future__ import annotations

import asyncio
import datetime
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import (
    Document,
    ImageNode,
    IndexNode,
    MetadataMode,
    NodeRelationship,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from tests.conftest import make_text
from tests.llamaindex_m3.nodes import QUERY, ids, make_nodes, only

from llamaindex_m3 import M3Embedding, M3HybridRetriever, M3SparseRetriever
from m3_core import Encoder
from m3_core.encoder.cached import CachedEncoder
from m3_core.errors import IndexFileError, MissingRepresentationError
from m3_core.testing import tiny_checkpoint

KINDS = [
    (M3SparseRetriever, {}),
    (M3HybridRetriever, {}),
    (M3HybridRetriever, {"rerank": True}),
    (M3HybridRetriever, {"fusion": "rrf"}),
]
kinds = pytest.mark.parametrize(("kind", "options"), KINDS)


@pytest.fixture(scope="module")
def reps(encoder: Encoder):
    texts = [node.get_content(MetadataMode.EMBED) for node in make_nodes()]
    wanted = {"return_sparse": True, "return_colbert_vecs": True}
    return encoder.encode_queries([QUERY], **wanted), encoder.encode_documents(texts, **wanted)


def brute_force(reps, weights) -> dict[str, float]:
    """Weighted means in float64; multi-vectors as they are stored."""
    query, documents = reps
    dense = documents.dense_vecs.astype(np.float64) @ query.dense_vecs[0]
    asked = query.lexical_weights[0]
    rows = documents.lexical_weights
    sparse = np.array([sum(w * asked.get(t, 0.0) for t, w in row.items()) for row in rows])
    late = [
        (query.colbert_vecs[0].astype(np.float64) @ rows.astype(np.float16).T).max(1).mean()
        for rows in documents.colbert_vecs
    ]
    total = weights[0] * dense + weights[1] * sparse + weights[2] * np.array(late)
    total = total / sum(weights)
    return {f"n{i}": score for i, score in enumerate(total.tolist())}


@pytest.mark.parametrize(
    ("kind", "options", "weights"),
    [
        (M3SparseRetriever, {}, (0, 1, 0)),
        (M3HybridRetriever, {}, (1, 0.3, 0)),
        (M3HybridRetriever, {"weights": (0.2, 1, 0)}, (0.2, 1, 0)),
        (M3HybridRetriever, {"rerank": True}, (1, 0.3, 1)),
        (M3HybridRetriever, {"rerank": True, "weights": (0, 0, 1)}, (0, 0, 1)),
    ],
)
def test_scores_and_order_are_brute_force(encoder, reps, kind, options, weights) -> None:
    retriever = kind.from_nodes(make_nodes(), encoder=encoder, similarity_top_k=30, **options)
    # What is stored: other tests' batches may have made it, and float16 rounds the difference up.
    stored = CachedEncoder(encoder, ("dense", "sparse", "colbert")).documents(
        [node.get_content(MetadataMode.EMBED) for node in make_nodes()]
    )
    for ours, theirs in zip(stored.colbert_vecs, reps[1].colbert_vecs, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    expected = brute_force((reps[0], stored), weights)
    if kind is M3SparseRetriever:
        expected = {one: score for one, score in expected.items() if score > 0}
    found = retriever.retrieve(QUERY)
    assert len(found) == len(expected)
    for one in found:
        assert one.score == pytest.approx(expected[one.node.node_id], abs=2e-6)
    scores = [expected[one] for one in ids(found)]
    assert scores == pytest.approx(sorted(scores, reverse=True), abs=2e-6)


@kinds
def test_insert_delete_and_replace(encoder, kind, options) -> None:
    nodes = make_nodes()
    retriever = kind.from_nodes(nodes[:20], encoder=encoder, similarity_top_k=50, **options)
    assert retriever.insert_nodes(nodes[20:]) == [f"n{i}" for i in range(20, 30)]
    assert len(retriever) == 30
    whole = kind.from_nodes(nodes, encoder=encoder, similarity_top_k=50, **options)
    found, expected = retriever.retrieve(QUERY), whole.retrieve(QUERY)
    assert {one.node.node_id: one.score for one in found} == pytest.approx(
        {one.node.node_id: one.score for one in expected}, abs=1e-6
    )
    assert retriever.delete(["n3", "unknown"]) == 1
    assert retriever.delete_ref_doc("doc2") == 10
    assert retriever.delete_ref_doc("doc2") == 0
    assert retriever.delete_ref_doc("no such document") == 0
    assert len(retriever) == 19
    assert not {"n3", *(f"n{i}" for i in range(20, 30))} & set(ids(retriever.retrieve(QUERY)))
    first = ids(retriever.retrieve(QUERY))[0]
    assert retriever.insert_nodes([TextNode(id_=first, text="Fluss Stadt", metadata={})]) == [first]
    assert len(retriever) == 19
    texts = {one.node.node_id: one.node.get_content() for one in retriever.retrieve(QUERY)}
    assert texts.get(first, "Fluss Stadt") == "Fluss Stadt"


@kinds
def test_nodes_come_back_whole_and_as_copies(encoder, kind, options) -> None:
    node = TextNode(
        id_="a",
        text=QUERY,
        metadata={"city": "río", "when": datetime.date(2020, 5, 1), "secret": "x"},
        excluded_embed_metadata_keys=["secret"],
        excluded_llm_metadata_keys=["city"],
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="d", metadata={"p": 1})},
        start_char_idx=3,
        end_char_idx=9,
        embedding=[1.0, 2.0],
    )
    nodes = [node, *make_nodes(3)]
    retriever = kind.from_nodes(nodes, encoder=encoder, similarity_top_k=4, **options)
    found = {one.node.node_id: one.node for one in retriever.retrieve(QUERY)}["a"]
    expected = node.model_copy(
        update={"embedding": None, "metadata": {**node.metadata, "when": "2020-05-01"}}
    )
    assert found == expected
    assert type(found) is TextNode
    found.metadata["city"] = "changed"
    again = {one.node.node_id: one.node for one in retriever.retrieve(QUERY)}["a"]
    assert again == expected
    assert node.embedding == [1.0, 2.0]


@kinds
def test_persist_and_load(encoder, tmp_path, kind, options) -> None:
    retriever = kind.from_nodes(make_nodes(), encoder=encoder, similarity_top_k=7, **options)
    retriever.delete(["n4"])
    retriever.persist(tmp_path / "saved")
    options = {"encoder": encoder, "similarity_top_k": 7, **options}
    again = kind.from_persist_dir(tmp_path / "saved", **options)
    assert again.retrieve(QUERY) == retriever.retrieve(QUERY)
    assert again.delete_ref_doc("doc0") == 9
    again.persist(tmp_path / "saved")
    assert len(kind.from_persist_dir(tmp_path / "saved", **options)) == 20
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".pkl", ".pickle")]

    with pytest.raises(FileNotFoundError):
        kind.from_persist_dir(tmp_path / "nothing", **options)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "manifest.json").write_text('{"format": "other"}', encoding="utf-8")
    with pytest.raises(IndexFileError, match="no saved collection"):
        kind.from_persist_dir(tmp_path / "foreign", **options)
    with pytest.raises(IndexFileError, match="another model"):
        kind.from_persist_dir(
            tmp_path / "saved", **{**options, "encoder": encoder.with_options(max_length=77)}
        )
    (file,) = (tmp_path / "saved").iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(IndexFileError, match="cut or damaged"):
        kind.from_persist_dir(tmp_path / "saved", **options)


def test_another_kind_or_checkpoint_does_not_load_it(encoder, tmp_path) -> None:
    M3SparseRetriever.from_nodes(make_nodes(), encoder=encoder).persist(tmp_path / "saved")
    with pytest.raises(IndexFileError, match="other representations"):
        M3HybridRetriever.from_persist_dir(tmp_path / "saved", encoder=encoder)
    other = tiny_checkpoint(tmp_path / "other", seed=5)
    with pytest.raises(IndexFileError, match="another model"):
        M3SparseRetriever.from_persist_dir(tmp_path / "saved", model_name=str(other), device="cpu")


@kinds
def test_node_ids_and_doc_ids_restrict(encoder, kind, options) -> None:
    retriever = kind.from_nodes(make_nodes(), encoder=encoder, similarity_top_k=99, **options)
    every = ids(retriever.retrieve(QUERY))
    few = [f"n{i}" for i in range(8, 13)] + ["unknown"]
    retriever.node_ids = few
    assert set(ids(retriever.retrieve(QUERY))) == set(few) & set(every)
    retriever.doc_ids = ["doc1", "unknown"]
    assert set(ids(retriever.retrieve(QUERY))) == {"n10", "n11", "n12"} & set(every)
    retriever.filters = only("number", 11)
    assert set(ids(retriever.retrieve(QUERY))) == {"n11"} & set(every)
    for name, value in (("node_ids", []), ("doc_ids", []), ("filters", only("number", -1))):
        empty = kind.from_nodes(make_nodes(), encoder=encoder, **{name: value}, **options)
        assert empty.retrieve(QUERY) == []
    for name in ("node_ids", "doc_ids"):
        wrong = kind.from_nodes(make_nodes(2), encoder=encoder, **{name: "n0"}, **options)
        with pytest.raises(TypeError, match="list of strings"):
            wrong.retrieve(QUERY)


def test_a_given_embedding_is_the_dense_vector(encoder, reps) -> None:
    retriever = M3HybridRetriever.from_nodes(
        make_nodes(), encoder=encoder, similarity_top_k=30, weights=(1, 0, 0)
    )
    vectors = encoder.encode_queries(["panda bear", "мир город"]).dense_vecs
    dense = reps[1].dense_vecs @ vectors.T
    given = QueryBundle(QUERY, embedding=vectors[0].tolist())
    assert ids(retriever.retrieve(given)) == [f"n{i}" for i in np.argsort(-dense[:, 0])]
    # As LlamaIndex's own retriever: the mean of the vectors of the given texts.
    custom = QueryBundle(QUERY, custom_embedding_strs=["panda bear", "мир город"])
    found = retriever.retrieve(custom)
    # A cosine, as of LlamaIndex's own store: the mean of two vectors is shorter than 1.
    cosines = dense.mean(axis=1) / np.linalg.norm(vectors.mean(axis=0))
    order = np.argsort(-cosines)
    assert ids(found) == [f"n{i}" for i in order]
    assert [one.score for one in found] == pytest.approx(cosines[order], abs=1e-6)
    own = VectorStoreIndex(make_nodes(), embed_model=M3Embedding(encoder=encoder))
    expected = own.as_retriever(similarity_top_k=30).retrieve(
        QueryBundle(QUERY, custom_embedding_strs=["panda bear", "мир город"])
    )
    assert ids(expected) == ids(found)
    scores = [one.score for one in expected]
    assert [one.score for one in found] == pytest.approx(scores, abs=1e-6)
    sparse = M3SparseRetriever.from_nodes(make_nodes(), encoder=encoder)
    assert sparse.retrieve(given) == sparse.retrieve(custom) == sparse.retrieve(QUERY)
    with pytest.raises(ValueError, match="query vector has 2 values"):
        retriever.retrieve(QueryBundle(QUERY, embedding=[1.0, 0.0]))


@kinds
async def test_async_and_threads_give_the_serial_results(encoder, kind, options) -> None:
    retriever = kind(encoder=encoder, similarity_top_k=5, **options)
    assert len(await retriever.ainsert_nodes(make_nodes())) == 30
    queries = [make_text(i, 2) for i in range(40)]
    expected = [ids(retriever.retrieve(query)) for query in queries]
    found = await asyncio.gather(*(retriever.aretrieve(queries[i % 40]) for i in range(120)))
    assert [ids(one) for one in found] == expected * 3
    with ThreadPoolExecutor(64) as pool:
        assert [ids(one) for one in pool.map(retriever.retrieve, queries)] == expected


@kinds
def test_wrong_input(encoder, tiny_dense, caplog, kind, options) -> None:
    retriever = kind.from_nodes([], encoder=encoder, **options)
    assert retriever.retrieve(QUERY) == []
    assert retriever.insert_nodes([]) == []
    with caplog.at_level(logging.WARNING):
        added = retriever.insert_nodes(
            [
                TextNode(id_="empty", text=" "),
                ImageNode(id_="image", image_url="http://x/y.png"),
                TextNode(id_="full", text=QUERY),
            ]
        )
    assert added == ["full"]
    assert "2 nodes without text are left out" in caplog.text
    with pytest.raises(ValueError, match="id 'n0' comes more than once"):
        retriever.insert_nodes([*make_nodes(2), *make_nodes(1)])
    with pytest.raises(TypeError, match="must be LlamaIndex nodes; got str"):
        retriever.insert_nodes(["panda"])
    assert len(retriever) == 1
    with pytest.raises(TypeError, match="list of strings"):
        retriever.delete("full")
    for k, error in ((0, ValueError), (-3, ValueError), (2.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="similarity_top_k must be"):
            kind(encoder=encoder, similarity_top_k=k, **options)
    retriever.similarity_top_k = 1000
    assert ids(retriever.retrieve(QUERY)) == ["full"]
    for query in (QueryBundle(None), QueryBundle(3)):
        with pytest.raises(TypeError, match="text 0"):
            retriever.retrieve(query)
    with pytest.raises(ValueError, match=f"{kind.__name__} has no option 'colour'"):
        kind(encoder=encoder, colour="red", **options)
    with pytest.raises(MissingRepresentationError, match="sparse is needed"):
        kind(model_name=str(tiny_dense), device="cpu", **options)


def test_wrong_options_of_the_hybrid_retriever(encoder) -> None:
    for wrong in ({"fusion": "sum"}, {"weights": (0, 0, 0)}, {"weights": (1,)}, {"fetch_k": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            M3HybridRetriever(encoder=encoder, **wrong)


def test_index_nodes_lead_to_what_they_stand_for(encoder) -> None:
    inner = M3SparseRetriever.from_nodes([TextNode(id_="inner", text=QUERY)], encoder=encoder)
    outer = M3SparseRetriever.from_nodes(
        [
            IndexNode(id_="a", text=QUERY, index_id="one", obj=inner),
            IndexNode(id_="b", text=QUERY, index_id="two", obj=TextNode(id_="node", text="x")),
            IndexNode(id_="c", text=QUERY, index_id="three"),
        ],
        encoder=encoder,
        similarity_top_k=3,
    )
    assert ids(outer.retrieve(QUERY)) == ["inner", "node", "c"]


def test_documents_as_nodes_stay_documents(encoder) -> None:
    retriever = M3SparseRetriever.from_nodes([Document(id_="d", text=QUERY)], encoder=encoder)
    (found,) = retriever.retrieve(QUERY)
    assert type(found.node) is Document


def test_options_are_assigned_or_refused(encoder) -> None:
    retriever = M3HybridRetriever.from_nodes(make_nodes(), encoder=encoder, rerank=True)
    plain = M3HybridRetriever.from_nodes(make_nodes(), encoder=encoder)
    retriever.similarity_top_k = plain.similarity_top_k = 5
    retriever.rerank = False
    assert ids(retriever.retrieve(QUERY)) == ids(plain.retrieve(QUERY))
    assert {"dense", "sparse"} >= set(retriever.search_with_scores(QUERY)[0][2])
    retriever.rerank = True
    retriever.weights = [0, 0, 2]
    assert "colbert" in retriever.search_with_scores(QUERY)[0][2]
    retriever.filters = {"number": 3}
    assert ids(retriever.retrieve(QUERY)) == ["n3"]
    before = dict(vars(retriever))
    for name, value in {
        "similarity_top_k": 0,
        "fetch_k": 0,
        "weights": (0, 0, 0),
        "fusion": "sum",
        "filters": {"number": {"$most": 1}},
        "max_length": 8,
        "query_instruction": "find: ",
    }.items():
        with pytest.raises(ValueError, match=name if name != "filters" else "number"):
            setattr(retriever, name, value)
    assert vars(retriever) == before
    with pytest.raises(ValueError, match="make the retriever with rerank=True"):
        plain.rerank = True
    assert not plain.rerank
