"""What ``QdrantHybridStore`` asks: one query of Qdrant a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from qdrant_client import models

from m3_core.arguments import check_count
from m3_core.stores.qdrant.filters import Where, qdrant_filter
from m3_core.stores.qdrant.points import sparse_vector

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
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

    def sent(self, k: int, names: Names, scale: float = 1.0) -> dict[str, Any]:
        """Give what every search sends.

        Args:
            k: Points to return.
            names: Of vectors and payload keys.
            scale: What a score of Qdrant is multiplied with to be ours.

        Returns:
            Keywords of ``query_points``.
        """
        threshold = self.score_threshold
        passed = {
            "offset": self.offset or None,
            "score_threshold": None if threshold is None else threshold / scale,
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


def vector_query(vector: Sequence[float], k: int, names: Names, search: Search) -> dict[str, Any]:
    """Describe the search for one dense vector.

    Args:
        vector: The vector.
        k: Points to return.
        names: Of vectors and payload keys.
        search: What else there is to say.

    Returns:
        Keywords of ``query_points``.

    Raises:
        ValueError: The collection has no dense vectors, or a fusion is named for the one ranking.
    """
    if names.dense is None:
        raise ValueError("this store has no dense vectors, since its vector_name is None")
    if search.hybrid_fusion is not None:
        raise ValueError("hybrid_fusion is for searches by text; a vector has but one ranking")
    return search.sent(k, names) | {
        "query": list(vector),
        "using": names.dense,
        "query_filter": search.condition(names),
        "search_params": search.search_params,
    }


def hybrid_query(
    reps: Representations,
    k: int,
    fetch_k: int,
    names: Names,
    search: Search,
    fusion: Fusion,
    multi: NDArray[np.floating[Any]] | None,
) -> dict[str, Any]:
    """Describe the search for one query text.

    Args:
        reps: The query's representations.
        k: Points to return.
        fetch_k: Candidates of each ranking, and of the fused one for reranking.
        names: Of vectors and payload keys.
        search: What else there is to say.
        fusion: Of the dense and the sparse ranking.
        multi: The query's multi-vector, to rerank with it. Shape: (tokens, dim).

    Returns:
        Keywords of ``query_points``.
    """
    sent = search.sent(k, names, 1.0 if multi is None else 1.0 / len(multi))
    where, params = search.condition(names), search.search_params
    rankings: list[tuple[Any, str]] = []
    if names.dense is not None:
        rankings.append((reps.dense_lists()[0], names.dense))
    if names.sparse is not None:
        sparse = sparse_vector(reps, 0)
        if sparse.indices:
            rankings.append((sparse, names.sparse))
    if not rankings:
        # A query without a token finds nothing by lexical weights alone.
        nothing = models.Filter(must=[models.HasIdCondition(has_id=[])])
        return sent | {"query_filter": nothing}
    is_fused = names.dense is not None and names.sparse is not None
    if not is_fused and multi is None:
        query, using = rankings[0]
        alone = {"query": query, "using": using, "query_filter": where, "search_params": params}
        return sent | alone
    prefetch = [
        models.Prefetch(query=query, using=using, limit=fetch_k, filter=where, params=params)
        for query, using in rankings
    ]
    fused = search.hybrid_fusion or models.FusionQuery(fusion=_FUSIONS[fusion])
    if multi is None:
        return sent | {"prefetch": prefetch, "query": fused}
    first = models.Prefetch(prefetch=prefetch, query=fused, limit=fetch_k)
    return sent | {
        "prefetch": first if is_fused else prefetch[0],
        "query": multi.tolist(),
        "using": names.multi,
    }
