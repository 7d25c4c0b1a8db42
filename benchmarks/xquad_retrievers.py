"""Retrieval on XQuAD through the LangChain retrievers, against brute force.

    python benchmarks/xquad_retrievers.py --model MODEL --data XQUAD_FOLDER [--languages en de ...]

Every fourth question against all 240 paragraphs of a language (https://github.com/google-deepmind/
xquad, ``xquad.<language>.json``). Prints the share of questions whose paragraph comes first, for
each retriever and for brute force over the same representations, and in how many questions both
give another first paragraph.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from langchain_m3 import M3HybridRetriever, M3SparseRetriever
from m3_core import Encoder, Representations
from m3_core.scoring import dense_scores, hybrid_scores, lexical_scores, maxsim_scores

RETRIEVERS: dict[str, tuple[type, dict[str, Any]]] = {
    "sparse": (M3SparseRetriever, {}),
    "dense": (M3HybridRetriever, {"weights": (1.0, 0.0, 0.0)}),
    "dense + sparse 1/.3": (M3HybridRetriever, {"weights": (1.0, 0.3, 0.0)}),
    "hybrid 1/.3/1": (M3HybridRetriever, {"rerank": True}),
}


def read(path: Path) -> tuple[list[str], list[str], list[int]]:
    """Paragraphs, every fourth question, and the paragraph of each."""
    paragraphs, questions, gold = list[str](), list[str](), list[int]()
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                questions.append(asked["question"])
                gold.append(len(paragraphs))
            paragraphs.append(paragraph["context"])
    return paragraphs, questions[::4], gold[::4]


def brute_force(queries: Representations, documents: Representations) -> dict[str, np.ndarray]:
    assert queries.dense_vecs is not None
    assert documents.dense_vecs is not None
    return {
        "sparse": lexical_scores(queries.lexical_weights, documents.lexical_weights),
        "dense": dense_scores(queries.dense_vecs, documents.dense_vecs),
        "dense + sparse 1/.3": hybrid_scores(queries, documents, (1.0, 0.3, 0.0)),
        "hybrid 1/.3/1": hybrid_scores(queries, documents, (1.0, 0.3, 1.0)),
        "colbert": maxsim_scores(queries.colbert_vecs, documents.colbert_vecs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--languages", nargs="+", default=["en", "de", "es", "zh", "ru", "hi"])
    arguments = parser.parse_args()
    encoder = Encoder.from_pretrained(arguments.model, dtype="float32")
    for language in arguments.languages:
        paragraphs, questions, gold = read(arguments.data / f"xquad.{language}.json")
        ids = [str(i) for i in range(len(paragraphs))]
        everything = {"return_sparse": True, "return_colbert_vecs": True}
        exact = brute_force(
            encoder.encode_queries(questions, **everything),
            encoder.encode_documents(paragraphs, **everything),
        )
        best = {name: scores.argmax(axis=1) for name, scores in exact.items()}
        cells = []
        for name, (kind, options) in RETRIEVERS.items():
            retriever = kind.from_texts(paragraphs, ids=ids, encoder=encoder, k=1, **options)
            found = np.array([int(retriever.invoke(asked)[0].id) for asked in questions])
            cells.append(
                f"{name} {np.mean(found == gold):.3f} (brute force "
                f"{np.mean(best[name] == gold):.3f}, {np.sum(found != best[name])} differ)"
            )
        cells.append(f"colbert (brute force) {np.mean(best['colbert'] == gold):.3f}")
        print(language, " | ".join(cells), flush=True)


if __name__ == "__main__":
    main()
