"""How well queries find their documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.scoring import dense_scores, lexical_scores, maxsim_scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from m3_core.encoder import Encoder

ENSEMBLES = {"hybrid .4/.2/.4": (0.4, 0.2, 0.4), "hybrid 1/.3/1": (1.0, 0.3, 1.0)}


def retrieval_metrics(scores: NDArray[Any], gold: NDArray[np.int64]) -> dict[str, float]:
    """Recall at 1 and 10, and mean reciprocal rank at 10.

    Args:
        scores: Shape: (queries, documents).
        gold: The right document of each query. Shape: (queries,).

    Returns:
        ``recall@1``, ``recall@10``, ``mrr@10``; documents of equal score count for the query.

    Example:
        >>> scores = np.array([[0.9, 0.1], [0.8, 0.2]])
        >>> retrieval_metrics(scores, np.array([0, 1]))
        {'recall@1': 0.5, 'recall@10': 1.0, 'mrr@10': 0.75}
    """
    own = scores[np.arange(len(gold)), gold]
    ranks = (scores > own[:, None]).sum(1)
    return {
        "recall@1": float((ranks < 1).mean()),
        "recall@10": float((ranks < 10).mean()),
        "mrr@10": float(np.where(ranks < 10, 1 / (ranks + 1), 0).mean()),
    }


def evaluate_encoder(
    encoder: Encoder, examples: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """Rank all positives of a set of examples for each of its queries.

    Args:
        encoder: The model.
        examples: With ``query`` and ``pos``; a query's first positive is the right document.

    Returns:
        Metrics of each representation that the model has, and of weighted sums of them.
    """
    documents = list(dict.fromkeys(row["pos"][0] for row in examples))
    number = {text: i for i, text in enumerate(documents)}
    gold = np.array([number[row["pos"][0]] for row in examples], np.int64)
    unified = "sparse" in encoder.representations
    options = {"return_sparse": unified, "return_colbert_vecs": unified}
    d = encoder.encode_documents(documents, **options)
    q = encoder.encode_queries([row["query"] for row in examples], **options)
    dense = np.asarray(dense_scores(q.dense_vecs, d.dense_vecs))
    scores = {"dense": dense}
    if unified:
        sparse = np.asarray(lexical_scores(q.lexical_weights, d.lexical_weights))
        colbert = np.asarray(maxsim_scores(q.colbert_vecs, d.colbert_vecs))
        scores |= {"sparse": sparse, "colbert": colbert}
        for name, (a, b, c) in ENSEMBLES.items():
            scores[name] = a * dense + b * sparse + c * colbert
    return {name: retrieval_metrics(matrix, gold) for name, matrix in scores.items()}
