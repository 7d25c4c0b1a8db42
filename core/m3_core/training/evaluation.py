"""How well queries find their documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.scoring import dense_scores, lexical_scores, maxsim_scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from m3_core.representations import Representations


def score_matrix(kind: str, q: Representations, d: Representations) -> NDArray[np.float32]:
    """Score every query with every document by one representation.

    Args:
        kind: ``"dense"``, ``"sparse"`` or ``"colbert"``.
        q: Queries.
        d: Documents.

    Returns:
        Shape: (queries, documents).

    Raises:
        ValueError: One of the two lacks the representation.
    """
    scored: Any = None
    if kind == "dense" and q.dense_vecs is not None and d.dense_vecs is not None:
        scored = dense_scores(q.dense_vecs, d.dense_vecs)
    if kind == "sparse" and q.lexical_weights is not None and d.lexical_weights is not None:
        scored = lexical_scores(q.lexical_weights, d.lexical_weights)
    if kind == "colbert" and q.colbert_vecs is not None and d.colbert_vecs is not None:
        scored = maxsim_scores(q.colbert_vecs, d.colbert_vecs)
    if scored is None:
        raise ValueError(f"queries or documents have no {kind} representation to score")
    return np.asarray(scored, np.float32)


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
