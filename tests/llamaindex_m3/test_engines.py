from __future__ import annotations

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.retrievers.fusion_retriever import FUSION_MODES
from llama_index.core.schema import (
    TextNode,
)
from tests.llamaindex_m3.nodes import QUERY, ids, make_nodes
from tests.table import CORPUS, table

from llamaindex_m3 import M3Embedding, M3HybridRetriever, M3SparseRetriever


@pytest.mark.parametrize("mode", list(FUSION_MODES))
def test_fusion_of_dense_and_sparse_retrievers(encoder, mode) -> None:
    nodes = make_nodes()
    dense = VectorStoreIndex(nodes, embed_model=M3Embedding(encoder=encoder)).as_retriever(
        similarity_top_k=10
    )
    sparse = M3SparseRetriever.from_nodes(nodes, encoder=encoder, similarity_top_k=10)
    fused = QueryFusionRetriever(
        [dense, sparse],
        llm=MockLLM(),
        mode=mode,
        num_queries=1,
        similarity_top_k=4,
        use_async=False,
    )
    found = fused.retrieve(QUERY)
    either = {*ids(dense.retrieve(QUERY)), *ids(sparse.retrieve(QUERY))}
    assert len(set(ids(found))) == 4
    assert set(ids(found)) <= either
    if mode == FUSION_MODES.RECIPROCAL_RANK:
        ranks: dict[str, float] = {}
        for retriever in (dense, sparse):
            for rank, one in enumerate(ids(retriever.retrieve(QUERY))):
                ranks[one] = ranks.get(one, 0.0) + 1 / (60 + rank)
        assert [one.score for one in found] == pytest.approx(sorted(ranks.values())[::-1][:4])


async def test_a_query_engine_on_the_embedded_model() -> None:
    nodes = [
        TextNode(id_=item["id"], text=item["text"], metadata={"topic": item["topic"]})
        for item in CORPUS["documents"]
    ]
    retriever = M3HybridRetriever.from_nodes(nodes, model_name=str(table()), rerank=True)
    engine = RetrieverQueryEngine(
        retriever, response_synthesizer=get_response_synthesizer(llm=MockLLM())
    )
    query = "What do giant pandas eat in the mountain forests?"
    for response in (engine.query(query), await engine.aquery(query)):
        assert response.source_nodes[0].node.metadata["topic"] == "panda"
        # The mock model answers with its prompt.
        assert query in str(response)
        assert response.source_nodes[0].node.get_content() in str(response)
