"""Uses of the index, its view and its retrievers that once went wrong without a word."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from llama_index.core import Document, MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.retrievers import VectorIndexRetriever
from llama_index.core.schema import (
    IndexNode,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from pydantic import ValidationError
from tests.table import table

from llamaindex_m3 import (
    BGEReranker,
    M3CascadeReranker,
    M3Embedding,
    M3HybridRetriever,
    M3Index,
    M3Reranker,
    M3SparseEmbedding,
    M3SparseRetriever,
)
from m3_core import Reranker
from m3_core.testing import FakeEncoder, tiny_reranker

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


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
async def test_a_querys_own_vector_gives_cosines_whatever_its_length(fake, mode) -> None:
    retriever = made(fake).as_retriever(mode=mode, similarity_top_k=4)
    vector = fake.encode_queries([QUERY]).dense_vecs[0]
    expected = {one.node.text: one.score for one in retriever.retrieve(QUERY)}
    for length in (10.0, 0.1):
        query = QueryBundle(QUERY, embedding=(length * vector).tolist())
        found = {one.node.text: one.score for one in retriever.retrieve(query)}
        assert found == pytest.approx(expected, abs=1e-6)
        found = {one.node.text: one.score for one in await retriever.aretrieve(query)}
        assert found == pytest.approx(expected, abs=1e-6)


def test_the_mean_of_several_texts_gives_cosines(fake) -> None:
    retriever = made(fake).as_retriever(mode="dense", similarity_top_k=4)
    several = [QUERY, "Bamboo is eaten by pandas."]
    mean = fake.encode_queries(several).dense_vecs.mean(axis=0)
    assert np.linalg.norm(mean) < 0.95
    cosines = fake.encode_documents(TEXTS).dense_vecs @ mean / np.linalg.norm(mean)
    found = retriever.retrieve(QueryBundle(QUERY, custom_embedding_strs=several))
    assert {one.node.text: one.score for one in found} == pytest.approx(
        dict(zip(TEXTS, cosines.tolist(), strict=True)), abs=1e-6
    )


@pytest.mark.parametrize("mode", ["default", "hybrid", "sparse"])
async def test_llamaindexs_own_retriever_keeps_what_hyde_wrote(fake, mode) -> None:
    index = made(fake)
    query = QueryBundle(QUERY, custom_embedding_strs=["fish of the river", "bears"])
    expected = index.as_retriever(vector_store_query_mode=mode, similarity_top_k=4).retrieve(query)
    if mode == "default":
        assert expected[0].text == TEXTS[2]
    over = VectorStoreIndex.from_vector_store(
        index.vector_store, embed_model=M3Embedding(encoder=fake)
    )
    for one in (index, over):
        retriever = VectorIndexRetriever(one, similarity_top_k=4, vector_store_query_mode=mode)
        for found in (await retriever.aretrieve(query), retriever.retrieve(query)):
            assert [one.text for one in found] == [one.text for one in expected]
            assert [one.score for one in found] == pytest.approx(
                [one.score for one in expected], abs=1e-6
            )
            query.embedding = None


def test_llamaindexs_own_retriever_runs_the_network_once_a_query(fake) -> None:
    index = made(fake)
    retriever = VectorIndexRetriever(index, vector_store_query_mode="hybrid")
    retriever.retrieve("bears")
    fake.calls.clear()
    retriever.retrieve(QUERY)
    assert fake.calls == [("query", 1)]
    index.insert(Document(text="Elephants are big."))
    assert fake.calls == [("query", 1), ("document", 1)]


def test_another_models_vectors_are_refused(fake) -> None:
    over = VectorStoreIndex.from_vector_store(
        made(fake).vector_store, embed_model=MockEmbedding(embed_dim=3)
    )
    with pytest.raises(ValueError, match=r"3 values and the documents' have 32"):
        over.as_retriever().retrieve(QUERY)


@pytest.mark.parametrize("mode", ["sparse", "text_search", "hybrid"])
async def test_a_vector_without_a_text_is_for_dense_scores_alone(fake, mode) -> None:
    index = made(fake)
    vector = fake.encode_queries([QUERY]).dense_vecs[0].tolist()
    dense = VectorStoreQuery(query_embedding=vector, similarity_top_k=1)
    assert index.vector_store.query(dense).nodes[0].text == TEXTS[0]
    query = VectorStoreQuery(query_embedding=vector, mode=mode)
    for text in (None, ""):
        query.query_str = text
        with pytest.raises(ValueError, match=r"no text, and .*sparse scores need one"):
            index.vector_store.query(query)
        with pytest.raises(ValueError, match=r"no text, and .*sparse scores need one"):
            await index.vector_store.aquery(query)
    with pytest.raises(ValueError, match="sparse scores need one"):
        M3SparseRetriever.from_nodes(documents(), encoder=fake).retrieve(
            QueryBundle("", embedding=vector)
        )
    with pytest.raises(ValueError, match="neither query_str nor query_embedding"):
        index.vector_store.query(VectorStoreQuery(mode=mode))


def test_pipelines_fill_the_index_with_an_embedding_among_their_transformations(fake) -> None:
    index = M3Index([], encoder=fake)
    IngestionPipeline(
        transformations=[SentenceSplitter(), M3Embedding(encoder=fake)],
        vector_store=index.vector_store,
    ).run(documents=documents())
    assert texts(index) == set(TEXTS)
    assert index.as_retriever(similarity_top_k=1).retrieve(QUERY)[0].text == TEXTS[0]


def test_reranked_nodes_share_nothing_with_what_was_given(fake) -> None:
    source = RelatedNodeInfo(node_id="d0", metadata={"pages": [1]})
    given = TextNode(
        text=TEXTS[0],
        metadata={"tags": ["a"], "nested": {"list": [{"x": 1}]}},
        relationships={NodeRelationship.SOURCE: source},
        excluded_llm_metadata_keys=["tags"],
        embedding=[1.0, 0.0],
    )
    before = given.model_dump()
    (found,) = M3Reranker(encoder=fake).postprocess_nodes(
        [NodeWithScore(node=given)], query_str=QUERY
    )
    assert found.node.model_dump() == before
    found.node.metadata["tags"].append("b")
    found.node.metadata["nested"]["list"][0]["x"] = 2
    found.node.relationships[NodeRelationship.SOURCE].metadata["pages"].append(2)
    found.node.relationships[NodeRelationship.NEXT] = source
    found.node.excluded_llm_metadata_keys.append("nested")
    found.node.embedding[0] = 5.0
    found.node.set_content("other")
    assert given.model_dump() == before
    engine = object()
    (found,) = M3Reranker(encoder=fake).postprocess_nodes(
        [NodeWithScore(node=IndexNode(text="a", index_id="i", obj=engine))], query_str=QUERY
    )
    assert found.node.obj is engine


async def test_mode_and_weights_are_saved_with_the_index(fake, tmp_path) -> None:
    index = made(fake, mode="sparse", weights=(0.2, 0.8, 0.5))
    index.persist(tmp_path / "first")
    loaded = M3Index.from_persist_dir(tmp_path / "first", encoder=fake)
    assert (loaded.mode, loaded.weights) == ("sparse", (0.2, 0.8, 0.5))
    assert loaded.as_retriever().weights == (0, 1, 0)
    assert loaded.vector_store.weights == (0.2, 0.8, 0.5)
    # What was assigned or given when loading is saved too.
    loaded.mode = "dense"
    loaded.persist(tmp_path / "second")
    again = M3Index.from_persist_dir(tmp_path / "second", encoder=fake, weights=(1, 0, 0))
    assert (again.mode, again.weights) == ("dense", (1, 0, 0))
    again.insert(Document(text="more"))
    again.persist(tmp_path / "third")
    last = M3Index.from_persist_dir(tmp_path / "third", encoder=fake)
    assert (last.mode, last.weights) == ("dense", (1, 0, 0))
    assert (index.mode, index.weights) == ("sparse", (0.2, 0.8, 0.5))


def test_what_is_assigned_to_an_index_counts(fake) -> None:
    index = made(fake)
    index.mode = "sparse"
    assert index.as_retriever().weights == (0, 1, 0)
    index.mode = "hybrid"
    index.weights = [1, 1, 0]
    assert index.as_retriever().weights == index.weights_for_different_modes == (1, 1, 0)
    query = VectorStoreQuery(query_str=QUERY, mode="hybrid", similarity_top_k=4)
    retriever = index.as_retriever(similarity_top_k=4)
    assert index.vector_store.query(query).similarities == pytest.approx(
        [one.score for one in retriever.retrieve(QUERY)]
    )
    index.weights_for_different_modes = (0, 0, 1)
    assert index.as_retriever().weights == index.weights == (0, 0, 1)
    with pytest.raises(ValueError, match="mode must be one of dense, sparse"):
        index.mode = "spare"
    with pytest.raises(ValueError, match="weights"):
        index.weights = (0, 0, 0)
    assert (index.mode, index.weights) == ("hybrid", (0, 0, 1))


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("mode", "assign weights"),
        ("alpha", "assign weights"),
        ("vector_store_query_mode", "assign weights"),
        ("_vector_store_query_mode", "assign weights"),
        ("_similarity_top_k", "assign similarity_top_k"),
        ("_filters", "assign filters"),
        ("hybrid_top_k", "assign similarity_top_k"),
        ("similarity_topk", "is 'similarity_top_k' meant"),
        ("objects", "make another retriever"),
    ],
)
def test_what_would_have_no_effect_cannot_be_assigned(fake, name, error) -> None:
    index = made(fake)
    retrievers = (
        index.as_retriever(),
        M3SparseRetriever(encoder=fake),
        M3HybridRetriever(encoder=fake),
    )
    for retriever in retrievers:
        with pytest.raises(AttributeError, match=f"no '{name}' to assign.*{error}"):
            setattr(retriever, name, 3)
    with pytest.raises(AttributeError, match="as_retriever"):
        index.similarity_top_k = 3
    with pytest.raises(AttributeError, match="is 'weights' meant"):
        index.weigths = (1, 0, 0)
    with pytest.raises(AttributeError, match="belongs to the model"):
        index.max_length = 3


def test_derived_classes_have_attributes_of_their_own(fake) -> None:
    class Mine(M3SparseRetriever):
        def __init__(self, **options) -> None:
            super().__init__(**options)
            self.note = "mine"

    assert Mine(encoder=fake).note == "mine"


class ForeignStore(BasePydanticVectorStore):
    """A vector store of another package."""

    stores_text: bool = True

    @property
    def client(self) -> None:
        return None

    def add(self, nodes, **_):
        return []

    def delete(self, ref_doc_id, **_):
        return None

    def query(self, query, **_):
        return VectorStoreQueryResult()


@pytest.fixture(scope="module")
def tiny_reranker_path(tmp_path_factory):
    return tiny_reranker(tmp_path_factory.mktemp("surprises") / "reranker")


def test_dumps_are_taken_back(tiny_m3, tiny_reranker_path) -> None:
    path = str(tiny_m3)
    for one in (
        M3Embedding(model_name=path, dtype="float32", max_length=64),
        M3SparseEmbedding(model_name=path),
        M3Reranker(model_name=path, top_n=2),
        BGEReranker(model_name=str(tiny_reranker_path), top_n=2),
    ):
        kind, values = type(one), one.model_dump()
        assert values["class_name"] == kind.__name__
        assert kind(**values).model_dump() == values
        assert kind.model_validate(values).model_dump() == values
        assert kind.model_validate_json(one.model_dump_json()).model_dump() == values
        with pytest.raises(ValidationError, match="the dump of a Other, not of a"):
            kind(**{**values, "class_name": "Other"})


def test_the_models_name_may_stand_first(tiny_m3, tiny_reranker_path) -> None:
    assert M3Embedding(str(tiny_m3), max_length=64).model_name == str(tiny_m3)
    assert BGEReranker(str(tiny_reranker_path)).model_name == str(tiny_reranker_path)
    with pytest.raises(TypeError, match=r"by name, and only model_name may stand first .*got 3"):
        BGEReranker(3)
    with pytest.raises(TypeError, match="model_name twice"):
        M3Embedding(str(tiny_m3), model_name=str(table()))
    kwargs = {"cross_encoder_kwargs": {"model_kwargs": {"torch_dtype": "float32"}}}
    assert BGEReranker(str(tiny_reranker_path), **kwargs).dtype == "float32"


def test_a_foreign_vector_store_is_not_passed_over(fake) -> None:
    storage = StorageContext.from_defaults(vector_store=ForeignStore())
    with pytest.raises(ValueError, match=r"would leave the ForeignStore .* empty"):
        made(fake, storage_context=storage)
    # It is another index's.
    VectorStoreIndex([], embed_model=MockEmbedding(embed_dim=3), storage_context=storage)
    assert len(made(fake, storage_context=storage)) == 4
    index = made(fake)
    assert M3Index.from_vector_store(index.vector_store) is index
    with pytest.raises(ValueError, match="not in a ForeignStore"):
        M3Index.from_vector_store(ForeignStore())


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda fake: M3Index([], encoder=fake, use_async=True), "ainsert_nodes"),
        (lambda fake: M3Index([], encoder=fake, insert_batch_size=8), "filled by tokens"),
        (lambda fake: M3Index([], encoder=fake, service_context=1), "transformations="),
        (lambda fake: M3Index([], str(table())), "the model is model_name="),
        (lambda fake: made(fake).as_retriever(alpha="0.5"), "alpha must be from 0"),
        (lambda fake: made(fake, weights={"dense": 1}), r"three numbers .*got {'dense': 1}"),
        (lambda fake: made(fake, weights="100"), "three numbers"),
        (lambda fake: M3SparseRetriever.from_defaults(documents()), "pass nodes as nodes="),
        (lambda fake: M3SparseRetriever(documents()), "M3SparseRetriever.from_nodes"),
        (lambda fake: M3HybridRetriever(encoder=fake, weights=(0, 0, 1)), "need rerank=True"),
    ],
)
def test_errors_say_what_to_do(fake, call, error) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        call(fake)
    index = M3Index([], encoder=fake, use_async=False, store_nodes_override=True)
    assert len(index) == 0


def test_reranking_is_not_switched_off_below_its_weights(fake) -> None:
    retriever = M3HybridRetriever(encoder=fake, weights=(0, 0, 1), rerank=True)
    with pytest.raises(ValueError, match="need rerank=True"):
        retriever.rerank = False
    assert retriever.rerank


def test_numbers_that_json_does_not_have_stay_in_metadata(fake, tmp_path) -> None:
    metadata = {"nan": math.nan, "list": [1.0, math.inf], "deep": {"x": [-math.inf, None]}}
    node = TextNode(text="a panda", metadata=metadata)
    retriever = M3SparseRetriever.from_nodes([node], encoder=fake)
    retriever.persist(tmp_path)
    for one in (retriever, M3SparseRetriever.from_persist_dir(tmp_path, encoder=fake)):
        (found,) = one.retrieve("panda")
        assert math.isnan(found.metadata.pop("nan"))
        assert found.metadata == {"list": [1.0, math.inf], "deep": {"x": [-math.inf, None]}}


def test_metadata_that_cannot_be_kept_are_named(fake) -> None:
    node = TextNode(id_="n7", text="a panda", metadata={"ok": 1, "year": np.int64(3)})
    index = M3Index([], encoder=fake)
    for insert in (
        M3SparseRetriever(encoder=fake).insert_nodes,
        index.insert_nodes,
        index.vector_store.add,
    ):
        with pytest.raises(TypeError, match=r"node 'n7' have .*numpy.int64 under 'year'"):
            insert([node])
    assert len(index) == len(index.docstore.docs) == 0


async def test_nodes_without_text_are_nowhere(fake) -> None:
    nodes = [TextNode(id_="e", text=" "), TextNode(id_="f", text="full")]
    index = M3Index(nodes, encoder=fake)
    assert set(index.docstore.docs) == {"f"}
    index.insert_nodes([TextNode(id_="e2", text=""), TextNode(id_="g", text="more")])
    await index.ainsert_nodes([TextNode(id_="e3", text=""), TextNode(id_="h", text="more")])
    assert set(index.docstore.docs) == {"f", "g", "h"}
    assert index.vector_store.add(nodes) == ["f"]
    assert await index.vector_store.async_add(nodes) == ["f"]


async def test_a_single_id_is_no_list_of_ids(fake) -> None:
    index = M3Index([TextNode(id_="n0", text="a panda")], encoder=fake)
    for delete in (index.delete_nodes, index.vector_store.delete_nodes):
        with pytest.raises(TypeError, match="ids must be a list of strings; got 'n0'"):
            delete("n0")
    with pytest.raises(TypeError, match="ids must be a list of strings; got 'n0'"):
        await index.adelete_nodes("n0")


@pytest.mark.parametrize("kind", [M3SparseRetriever, M3HybridRetriever])
def test_objects_are_nodes_to_begin_with(fake, kind) -> None:
    stands_for = TextNode(text="the whole document")
    objects = [IndexNode(text="a panda", index_id="i", obj=stands_for)]
    (found,) = kind(encoder=fake, objects=objects).retrieve("panda")
    assert found.node.get_content() == "the whole document"


def test_a_cascade_keeps_no_more_than_it_reads(fake, tiny_reranker_path) -> None:
    reranker = Reranker.shared(str(tiny_reranker_path), device="cpu")
    with pytest.raises(ValidationError, match="top_n=3 of first=1"):
        M3CascadeReranker(encoder=fake, reranker=reranker, first=1, top_n=3)
    cascade = M3CascadeReranker(encoder=fake, reranker=reranker, first=3, top_n=3)
    with pytest.raises(ValueError, match="top_n=4 of first=3"):
        cascade.top_n = 4
    assert cascade.top_n == 3


def test_a_name_that_could_not_be_loaded_is_refused_when_saving(fake, tmp_path) -> None:
    index = made(fake)
    with pytest.raises(ValueError, match=r"vector_store_fname='mine\.json' cannot be honoured"):
        index.storage_context.persist(tmp_path, vector_store_fname="mine.json")
    index.storage_context.persist(tmp_path)
    assert len(M3Index.from_persist_dir(tmp_path, encoder=fake)) == 4


def test_saving_another_index_leaves_nothing_of_the_one_before(fake, tmp_path) -> None:
    made(fake).persist(tmp_path)
    storage = StorageContext.from_defaults()
    kept = {made(fake, storage_context=storage).index_id for _ in range(2)}
    storage.persist(tmp_path)
    assert len(list(tmp_path.glob("m3_*"))) == 1 + len(kept)
    for one in kept:
        assert len(M3Index.from_persist_dir(tmp_path, one, encoder=fake)) == 4


async def test_what_is_no_document_is_an_error_before_anything_is_made(fake) -> None:
    for wrong, words in (
        ("bamboo", "must be in a list; got str"),
        (Document(text="bamboo"), "must be in a list; got Document"),
        (None, "must be in a list; got NoneType"),
        (["bamboo"], r"got builtins.str: make them by Document\(text=...\)"),
        ([SimpleNamespace(page_content="bamboo")], "got types.SimpleNamespace: make them"),
    ):
        with pytest.raises(TypeError, match=words):
            M3Index.from_documents(wrong, encoder=fake)
    for one in (TextNode(text="bamboo"), None):
        with pytest.raises(TypeError, match="nodes must be in a list"):
            M3HybridRetriever.from_nodes(one, encoder=fake)
    index = made(fake)
    with pytest.raises(TypeError, match="make them by Document"):
        index.insert("bamboo")
    with pytest.raises(TypeError, match="make them by Document"):
        await index.ainsert("bamboo")
    assert len(index) == len(TEXTS)


def test_reprs_say_model_and_nodes(fake) -> None:
    index = made(fake)
    assert repr(index) == "M3Index('fake', nodes=4, mode='hybrid', weights=(1.0, 0.3, 1.0))"
    retriever = index.as_retriever(filters={"topic": "water"})
    assert repr(retriever) == (
        "M3IndexRetriever('fake', nodes=4, similarity_top_k=2, filters={'topic': 'water'})"
    )
    own = M3HybridRetriever.from_nodes([TextNode(text="bamboo")], encoder=fake)
    assert repr(own) == "M3HybridRetriever('fake', nodes=1, similarity_top_k=2)"


def test_a_query_in_the_place_of_a_bundle_is_answered(fake) -> None:
    nodes = [NodeWithScore(node=TextNode(text="bamboo"))]
    with pytest.raises(TypeError, match="pass a text as query_str="):
        M3Reranker(encoder=fake).postprocess_nodes(nodes, QUERY)
