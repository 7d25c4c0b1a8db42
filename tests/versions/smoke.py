"""What must work in every environment that pyproject.toml allows: a small round through all of it.

    python tests/versions/smoke.py PART...

Parts: core, decoders, langchain, llamaindex, qdrant, milvus, train. Uses nothing that a user has
not installed: no pytest, no development tools, no network. ``run.py`` beside it makes the
environments.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from m3_core import Cascade, Encoder, LexicalIndex, Reranker, shared_encoder
from m3_core.testing import tiny_checkpoint
from m3_core.testing.rerankers import tiny_reranker

TEXTS = [
    "Pandas eat bamboo.",
    "大熊猫吃竹子。",
    "The river flows through the city.",
    "Salt is white.",
]
log = logging.getLogger("smoke")
QUERY = "What do pandas eat?"
FIRST = TEXTS[0]


def core(folder: Path) -> None:
    encoder = shared_encoder("m3-small")
    everything = {"return_sparse": True, "return_colbert_vecs": True}
    reps = encoder.encode_documents(TEXTS, **everything)
    assert reps.dense_vecs.shape == (4, encoder.dimension)
    scores = encoder.compute_score([(QUERY, text) for text in TEXTS])
    assert max(range(4), key=scores["colbert+sparse+dense"].__getitem__) == 0
    index = LexicalIndex()
    index.add(TEXTS, reps.lexical_weights)
    index.save(folder / "index.m3")
    asked = encoder.encode_queries([QUERY], return_sparse=True).lexical_weights[0]
    assert LexicalIndex.load(folder / "index.m3").search(asked, k=1)[0][0] == FIRST
    for kind in ("m3", "dense", "bge"):
        checkpoint = tiny_checkpoint(folder / kind, kind=kind)
        Encoder.from_pretrained(checkpoint).encode_documents(TEXTS)
    rerank(folder, "cross-encoder", "bert")


def decoders(folder: Path) -> None:
    rerank(folder, "llm", "layerwise", "lightweight")


def rerank(folder: Path, *kinds: str) -> None:
    encoder = shared_encoder("m3-small")
    for kind in kinds:
        reranker = Reranker.from_pretrained(tiny_reranker(folder / f"r-{kind}", kind=kind))
        assert len(reranker.rank(QUERY, TEXTS, top_n=3)) == 3, kind
        assert len(Cascade(encoder, reranker, first=2).rank(QUERY, TEXTS, 1)) == 1, kind


def langchain(folder: Path) -> None:
    from langchain_core.documents import Document
    from langchain_core.vectorstores import InMemoryVectorStore

    from langchain_m3 import BGEReranker, M3Embeddings, M3HybridRetriever, M3Reranker

    store = InMemoryVectorStore(M3Embeddings(model_name="m3-small"))
    store.add_texts(TEXTS)
    assert store.similarity_search(QUERY, k=1)[0].page_content == FIRST
    documents = [Document(page_content=text) for text in TEXTS]
    retriever = M3HybridRetriever.from_documents(documents, model_name="m3-small", k=2, rerank=True)
    assert retriever.invoke(QUERY)[0].page_content == FIRST
    best = M3Reranker(model_name="m3-small", top_n=1).compress_documents(documents, QUERY)
    assert best[0].page_content == FIRST
    checkpoint = str(tiny_reranker(folder / "reranker"))
    assert (
        len(BGEReranker(model_name=checkpoint, top_n=2).compress_documents(documents, QUERY)) == 2
    )


def llamaindex(folder: Path) -> None:
    from llama_index.core import Document, VectorStoreIndex
    from llama_index.core.schema import NodeWithScore, TextNode

    from llamaindex_m3 import BGEReranker, M3Embedding, M3HybridRetriever, M3Index, M3Reranker

    documents = [Document(text=text) for text in TEXTS]
    dense = VectorStoreIndex.from_documents(
        documents, embed_model=M3Embedding(model_name="m3-small")
    ).as_retriever(similarity_top_k=1)
    assert dense.retrieve(QUERY)[0].text == FIRST
    ours = M3Index.from_documents(documents, model_name="m3-small")
    for mode in ("dense", "sparse", "colbert", "hybrid"):
        found = ours.as_retriever(mode=mode, similarity_top_k=1).retrieve(QUERY)
        assert found[0].text == FIRST, mode
    nodes = [TextNode(text=text) for text in TEXTS]
    retriever = M3HybridRetriever.from_nodes(nodes, model_name="m3-small")
    assert retriever.retrieve(QUERY)[0].text == FIRST
    scored = [NodeWithScore(node=node) for node in nodes]
    best = M3Reranker(model_name="m3-small", top_n=1).postprocess_nodes(scored, query_str=QUERY)
    assert best[0].text == FIRST
    reranker = BGEReranker(model_name=str(tiny_reranker(folder / "reranker")), top_n=2)
    assert len(reranker.postprocess_nodes(scored, query_str=QUERY)) == 2


def qdrant(folder: Path) -> None:
    from langchain_qdrant import QdrantVectorStore, RetrievalMode

    from langchain_m3 import M3Embeddings, M3SparseEmbeddings, QdrantHybridStore

    for rerank in (False, True):
        store = QdrantHybridStore.from_texts(TEXTS, model_name="m3-small", rerank=rerank)
        assert store.similarity_search(QUERY, k=1)[0].page_content == FIRST
        store.close()
    foreign = QdrantVectorStore.from_texts(
        TEXTS,
        M3Embeddings(model_name="m3-small"),
        sparse_embedding=M3SparseEmbeddings(model_name="m3-small"),
        retrieval_mode=RetrievalMode.HYBRID,
        path=str(folder / "qdrant"),
    )
    assert foreign.similarity_search(QUERY, k=1)[0].page_content == FIRST
    foreign.client.close()


def milvus(folder: Path) -> None:
    from langchain_milvus import Milvus

    from langchain_m3 import M3Embeddings, M3MilvusSparseEmbeddings

    store = Milvus(
        [M3Embeddings(model_name="m3-small"), M3MilvusSparseEmbeddings(model_name="m3-small")],
        connection_args={"uri": str(folder / "milvus.db")},
        vector_field=["dense", "sparse"],
        index_params=[
            {"index_type": "FLAT", "metric_type": "IP", "params": {}},
            {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP", "params": {}},
        ],
        # By default langchain-milvus asks Milvus to leave out small weights.
        search_params=[{"metric_type": "IP", "params": {}}] * 2,
        auto_id=True,
    )
    store.add_texts(TEXTS)
    found = store.similarity_search(QUERY, k=1, ranker_type="rrf", ranker_params={"k": 60})
    assert found[0].page_content == FIRST
    store.client.close()


def train(folder: Path) -> None:
    from m3_core.cli.main import main

    base = str(tiny_checkpoint(folder / "base", positions=64))
    data, out = folder / "data.jsonl", str(folder / "out")
    rows = [{"query": f"panda {word}", "pos": [f"the {word} bear"]} for word in ("city", "river")]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = ["--data", str(data), "--output", out, "--group-size", "1", "--cpu"]
    with contextlib.suppress(SystemExit):
        main(["train", "--model", base, *options])
    Encoder.from_pretrained(out, device="cpu").encode_documents(TEXTS)


PARTS: dict[str, Callable[[Path], None]] = {
    part.__name__: part for part in (core, decoders, langchain, llamaindex, qdrant, milvus, train)
}


def main() -> int:
    failed = []
    for name in sys.argv[1:] or PARTS:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                PARTS[name](Path(folder))
            except Exception:
                log.exception("%s failed", name)
                failed.append(name)
            else:
                log.info("%s works", name)
    return bool(failed)


if __name__ == "__main__":
    logging.basicConfig(format="    %(message)s")
    log.setLevel(logging.INFO)
    sys.exit(main())
