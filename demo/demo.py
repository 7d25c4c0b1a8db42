"""The main job from end to end, on a small corpus in seven languages.

python demo/demo.py

The model is ``$M3_MODEL``: by default m3-small, which comes with the package; a hub repository such
as BAAI/bge-m3 or a local folder otherwise.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document as LangChainDocument
from langchain_core.runnables import RunnableLambda
from llama_index.core import Document as LlamaIndexDocument
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter

from langchain_m3 import M3HybridRetriever
from llamaindex_m3 import M3Index
from m3_core import Encoder, shared_encoder
from m3_core.errors import CheckpointNotFoundError
from m3_core.scoring import dense_scores, hybrid_scores, lexical_scores, maxsim_scores

WEIGHTS = (1.0, 0.3, 1.0)


def shorten(text: str, width: int = 70) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def show_scores(encoder: Encoder, documents: list[dict], queries: list[dict]) -> None:
    flags = {"return_sparse": True, "return_colbert_vecs": True}
    d = encoder.encode_documents([document["text"] for document in documents], **flags)
    q = encoder.encode_queries([query["text"] for query in queries], **flags)
    dense = dense_scores(q.dense_vecs, d.dense_vecs)
    sparse = lexical_scores(q.lexical_weights, d.lexical_weights)
    colbert = maxsim_scores(q.colbert_vecs, d.colbert_vecs)
    hybrid = hybrid_scores(q, d, WEIGHTS)
    print("\n== One forward pass, three representations")
    print("hybrid: their mean with the weights {} / {} / {}".format(*WEIGHTS))
    for row, query in enumerate(queries):
        weights = sorted(q.lexical_weights[row].items(), key=lambda pair: -pair[1])[:4]
        words = ", ".join(f"{t} {w:.2f}" for t, w in encoder.decode_weights(dict(weights)).items())
        print(f"\n{query['language']}  {query['text']}\n    heaviest tokens: {words}")
        print("    dense  sparse colbert  hybrid")
        for column in np.argsort(-hybrid[row])[:3]:
            cells = [matrix[row, column] for matrix in (dense, sparse, colbert, hybrid)]
            numbers = " ".join(f"{cell:7.3f}" for cell in cells)
            print(f"  {numbers}  {shorten(documents[column]['text'])}")


def through_langchain(encoder: Encoder, documents: list[dict], queries: list[dict]) -> None:
    retriever = M3HybridRetriever.from_documents(
        [LangChainDocument(id=d["id"], page_content=d["text"]) for d in documents],
        encoder=encoder,
        k=2,
        rerank=True,
    )

    def listed(found: list[LangChainDocument]) -> list[str]:
        return [f"{document.id:12} {document.page_content}" for document in found]

    chain = retriever | RunnableLambda(listed)
    print("\n== The same search through a LangChain hybrid retriever in a chain")
    report(queries, chain.batch([query["text"] for query in queries]))


def through_llamaindex(encoder: Encoder, documents: list[dict], queries: list[dict]) -> None:
    pipeline = IngestionPipeline(transformations=[SentenceSplitter(chunk_size=256)])
    nodes = pipeline.run(
        documents=[LlamaIndexDocument(text=d["text"], id_=d["id"]) for d in documents]
    )
    retriever = M3Index(list(nodes), encoder=encoder).as_retriever(
        mode="hybrid", similarity_top_k=2
    )
    print("\n== And through a LlamaIndex ingestion pipeline and index")
    found: Any = [retriever.retrieve(query["text"]) for query in queries]
    report(queries, [[f"{n.node.ref_doc_id:12} {n.get_content()}" for n in row] for row in found])


def report(queries: list[dict], found: list[list[str]]) -> None:
    for query, lines in zip(queries, found, strict=True):
        print(f"\n{query['language']}  {query['text']}")
        for line in lines:
            print(f"    {shorten(line, 90)}")


def main() -> str | None:
    name = os.environ.get("M3_MODEL", "m3-small")
    try:
        encoder = shared_encoder(name)
    except CheckpointNotFoundError as error:
        return f"{error}. It was named by M3_MODEL: without, the demo takes m3-small"
    corpus = json.loads((Path(__file__).parent / "corpus.json").read_text(encoding="utf-8"))
    documents, queries = corpus["documents"], corpus["queries"]
    languages = sorted({document["language"] for document in documents})
    print(encoder)
    if name == "m3-small":
        print("A small model of 36 MB. With bge-m3 (2.3 GB): M3_MODEL=BAAI/bge-m3 make demo")
    print(f"{len(documents)} documents in {len(languages)} languages: {', '.join(languages)}")
    show_scores(encoder, documents, queries)
    through_langchain(encoder, documents, queries)
    through_llamaindex(encoder, documents, queries)
    encoder.close()
    return None


if __name__ == "__main__":
    sys.exit(main())
