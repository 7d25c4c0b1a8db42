"""What Qdrant is asked: one query a search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from qdrant_client import models

from m3_core.arguments import check_count
from m3_core.errors import StoreError
from m3_core.stores.qdrant.filters import Where, qdrant_filter
from m3_core.stores.qdrant.points import sparse_vector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from m3_core.representations import Representations
    from m3_core.stores.qdrant.layout import Names

Fusion = Literal["rrf", "dbsf"]

_FUSIONS = {"rrf": models.Fusion.RRF, "dbsf": models.Fusion.DBSF}


@dataclass(frozen=True, slots=True)
class Search:
    """What a search may be told besides the query and ``k``, as in langchain-qdrant.

    Args:
        filter: Only documents with such metadata.
        score_threshold: Only documents with this score or a higher one.
        offset: So many of the best are left out.
        search_params: Of Qdrant, for the rankings.
        hybrid_fusion: In place of the store's fusion.
        consistency: Of Qdrant.
        timeout: Of Qdrant, in seconds.
        shard_key_selector: Of Qdrant.
    """

    filter: Where | None = None
    score_threshold: float | None = None
    offset: int = 0
    search_params: models.SearchParams | None = None
    hybrid_fusion: models.FusionQuery | models.RrfQuery | None = None
    consistency: models.ReadConsistency | None = None
    timeout: int | None = None
    shard_key_selector: Any = None

    def __post_init__(self) -> None:
        if isinstance(self.offset, bool) or not isinstance(self.offset, int) or self.offset < 0:
            raise ValueError(f"offset must be a whole number of at least 0; got {self.offset!r}")
        threshold = self.score_threshold
        if threshold is not None and (
            isinstance(threshold, bool) or not isinstance(threshold, (int, float, np.number))
        ):
            raise TypeError(f"score_threshold must be a number; got {threshold!r}")

    def sent(self, k: int, names: Names, scale: float = 1.0) -> dict[str, Any]:
        """Give what every search sends.

        Args:
            k: Points to return.
            names: Of vectors and payload keys.
            scale: What a score of Qdrant is multiplied with to be ours.

        Returns:
            Keywords of ``query_points``.
        """
        threshold = None
        if self.score_threshold is not None:
            # A little less: Qdrant wants more than the threshold, in single precision. What is
            # below it is sorted out here.
            threshold = float(self.score_threshold) / scale
            threshold -= 1e-5 * max(abs(threshold), 1e-3)
        passed = {
            "offset": self.offset or None,
            "score_threshold": threshold,
            "consistency": self.consistency,
            "timeout": self.timeout,
            "shard_key_selector": self.shard_key_selector,
        }
        given = {name: value for name, value in passed.items() if value is not None}
        return {"limit": check_count("k", k), "with_payload": True, **given}

    def condition(self, names: Names) -> models.Filter | None:
        """Give the filter as Qdrant's.

        Args:
            names: Of payload keys.

        Returns:
            The filter.
        """
        return qdrant_filter(self.filter, names.metadata)


@dataclass(frozen=True, slots=True)
class Rankings:
    """Which of a collection's rankings a search by text uses, and how.

    Args:
        dense: By dense vectors, where there are any.
        sparse: By lexical weights, where there are any.
        multi: Rerank by multi-vectors, where there are any.
        vector: In place of the query's own dense vector.
        alpha: Weight of the dense ranking in the fusion by rank, from 0 to 1; the lexical one has
            the rest. None for the collection's fusion.
        sparse_k: Candidates of the lexical ranking, in place of as many as of the dense one.

    Raises:
        ValueError: ``alpha`` or ``sparse_k`` is out of its range.
    """

    dense: bool = True
    sparse: bool = True
    multi: bool = True
    vector: Sequence[float] | None = None
    alpha: float | None = None
    sparse_k: int | None = None

    def __post_init__(self) -> None:
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be from 0 (lexical) to 1 (dense); got {self.alpha!r}")
        if self.sparse_k is not None:
            check_count("sparse_top_k", self.sparse_k)

    def used(self, names: Names) -> Names:
        """Give the names of those rankings that are used.

        Args:
            names: Of all that the collection has.

        Returns:
            The names, None for what is not used.
        """
        is_dense = self.dense and self.alpha != 0
        is_sparse = self.sparse and self.alpha != 1
        return replace(
            names,
            dense=names.dense if is_dense else None,
            sparse=names.sparse if is_sparse else None,
        )


def hybrid_query(
    reps: Representations | None,
    k: int,
    fetch_k: int,
    names: Names,
    search: Search,
    fusion: Fusion,
    multi: NDArray[np.floating[Any]] | None,
    rankings: Rankings = Rankings(),
) -> dict[str, Any]:
    """Describe the search for one query text.

    Args:
        reps: The query's representations, as far as they are used.
        k: Points to return.
        fetch_k: Candidates of each ranking, and of the fused one for reranking.
        names: Of vectors and payload keys.
        search: What else there is to say.
        fusion: Of the dense and the sparse ranking.
        multi: The query's multi-vector, to rerank with it. Shape: (tokens, dim).
        rankings: Those that are used.

    Returns:
        Keywords of ``query_points``.
    """
    sent = search.sent(k, names, 1.0 if multi is None else 1.0 / len(multi))
    where, params = search.condition(names), search.search_params
    is_fused = rankings.dense and rankings.sparse and None not in (names.dense, names.sparse)
    ranked = _ranked(reps, fetch_k, rankings.used(names), rankings)
    if not ranked:
        # A query without a token finds nothing by lexical weights alone.
        nothing = models.Filter(must=[models.HasIdCondition(has_id=[])])
        return sent | {"query_filter": nothing}
    if not is_fused and multi is None:
        query, using, _ = ranked[0]
        alone = {"query": query, "using": using, "query_filter": where, "search_params": params}
        return sent | alone
    prefetch = [
        models.Prefetch(query=query, using=using, limit=limit, filter=where, params=params)
        for query, using, limit in ranked
    ]
    fused = search.hybrid_fusion or _fused(fusion, rankings.alpha, len(ranked))
    if multi is None:
        return sent | {"prefetch": prefetch, "query": fused}
    first = models.Prefetch(prefetch=prefetch, query=fused, limit=fetch_k)
    return sent | {
        "prefetch": first if is_fused else prefetch[0],
        "query": multi.tolist(),
        "using": names.multi,
    }


def _ranked(
    reps: Representations | None, fetch_k: int, names: Names, rankings: Rankings
) -> list[tuple[Any, str, int]]:
    """The vector, its name and the number of candidates of each ranking."""
    found: list[tuple[Any, str, int]] = []
    if names.dense is not None:
        vector = None if rankings.vector is None else list(rankings.vector)
        if vector is None and reps is not None:
            vector = reps.dense_lists()[0]
        found.append((vector, names.dense, fetch_k))
    if names.sparse is not None and reps is not None:
        sparse = sparse_vector(reps, 0)
        if sparse.indices:
            found.append((sparse, names.sparse, rankings.sparse_k or fetch_k))
    return found


def _fused(fusion: Fusion, alpha: float | None, num_rankings: int) -> Any:
    if alpha is None or num_rankings < 2:
        return models.FusionQuery(fusion=_FUSIONS[fusion])
    if fusion != "rrf":
        raise ValueError(
            f"alpha weights the fusion by rank, and this store's fusion is {fusion!r}: use "
            f"fusion='rrf', or leave alpha out"
        )
    if "weights" not in getattr(getattr(models, "Rrf", None), "model_fields", ()):
        raise StoreError("this qdrant-client cannot weight rankings by alpha: upgrade it")
    # So that half of each is what it is without weights.
    return models.RrfQuery(rrf=models.Rrf(weights=[2 * alpha, 2 * (1 - alpha)]))
