"""What each representation says about a point that was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.representations import MultiVectors
from m3_core.scoring import dense_scores, maxsim_scores

if TYPE_CHECKING:
    from qdrant_client import models

    from m3_core.representations import Representations
    from m3_core.stores.qdrant.layout import Names


def part_scores(point: models.ScoredPoint, reps: Representations, names: Names) -> dict[str, float]:
    """Score a point by each representation that it and the query have.

    Args:
        point: With its vectors.
        reps: The query's representations.
        names: Of vectors.

    Returns:
        Of ``"dense"``, the inner product of dense vectors; ``"sparse"``, the lexical score;
        ``"colbert"``, the mean over the query's vectors of the largest cosine.
    """
    own: Any = point.vector
    vectors: dict[str, Any] = own if isinstance(own, dict) else {"": own}
    scores: dict[str, float] = {}
    dense = None if names.dense is None else vectors.get(names.dense)
    if dense is not None and reps.dense_vecs is not None:
        scores["dense"] = float(dense_scores(reps.dense_vecs[:1], [dense])[0, 0])
    if names.sparse is not None and reps.lexical_weights is not None:
        asked, sparse = reps.lexical_weights[0], vectors.get(names.sparse)
        shared = [] if sparse is None else zip(sparse.indices, sparse.values, strict=True)
        scores["sparse"] = float(sum(asked.get(token, 0.0) * weight for token, weight in shared))
    multi = vectors.get(names.multi)
    if multi is not None and reps.colbert_vecs is not None:
        own_vectors = MultiVectors.from_arrays([np.asarray(multi, np.float32)])
        scores["colbert"] = float(maxsim_scores(reps.colbert_vecs[:1], own_vectors)[0, 0])
    return scores
