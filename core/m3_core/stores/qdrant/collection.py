"""A collection of Qdrant, filled and searched with a model's representations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qdrant_client import models

from m3_core.arguments import check_count, check_ids
from m3_core.beside import beside
from m3_core.stores.qdrant.layout import Names, point_id
from m3_core.stores.qdrant.points import LongMultiVectors, fit_multi_vector, points, requests
from m3_core.stores.qdrant.queries import Fusion, Rankings, Search, hybrid_query
from m3_core.stores.qdrant.scores import part_scores

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from m3_core.encoder import TextEncoder
    from m3_core.representations import Representations
    from m3_core.stores.qdrant.connection import Connection

ScoredPoint = tuple[models.ScoredPoint, float]
"""A point with its payload, and its score."""

_ALL = Rankings()
_PLAIN = Search()
# Points of a page of scrolling.
_PAGE = 256


@dataclass(frozen=True, slots=True)
class NewPoints:
    """Documents to be stored.

    Args:
        ids: One a document, any strings.
        texts: What is encoded.
        payloads: What is kept of each.
        dense: One dense vector a document in place of its own, None where there is none.

    Raises:
        ValueError: The lengths differ, or two ids are one point.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    payloads: Sequence[Mapping[str, Any]]
    dense: Sequence[Sequence[float] | None] | None = None

    def __post_init__(self) -> None:
        lengths = {len(one) for one in (self.ids, self.texts, self.payloads)}
        if self.dense is not None:
            lengths.add(len(self.dense))
        if len(lengths) > 1:
            raise ValueError(
                f"got {len(self.ids)} ids, {len(self.texts)} texts and "
                f"{len(self.payloads)} payloads"
            )
        seen: dict[str | int, str] = {}
        for one in self.ids:
            other = seen.setdefault(point_id(one), one)
            if other != one:
                raise ValueError(
                    f"ids {other!r} and {one!r} are the same point of Qdrant, which takes UUIDs "
                    "and whole numbers for what they stand for: one of the documents would be lost"
                )


@dataclass(frozen=True, slots=True)
class QdrantCollection:
    """Texts go through the encoder once; a search is one query to Qdrant.

    What a score means depends on what came last: similarity of dense vectors or lexical score for
    one ranking, the fusion's for two, and M3's multi-vector score (the mean over the query's
    vectors of the largest cosine) where multi-vectors rerank.

    Args:
        encoder: The encoder.
        connection: To the collection.
        fusion: Of the dense and the lexical ranking: by rank, or by scores scaled to their
            distribution.
        fetch_k: Candidates of each ranking; by default four times ``k`` and at least 100.
        long_multi_vectors: For those above Qdrant's limit: an error, or means of neighbours.
    """

    encoder: TextEncoder
    connection: Connection
    fusion: Fusion = "rrf"
    fetch_k: int | None = None
    long_multi_vectors: LongMultiVectors = "error"

    @property
    def names(self) -> Names:
        """Of vectors and payload keys."""
        return self.connection.layout.names

    @property
    def has_multi(self) -> bool:
        """Whether there are multi-vectors."""
        return self.connection.layout.multi_dim is not None

    @property
    def parts(self) -> tuple[str, ...]:
        """What is kept of ``"dense"``, ``"sparse"`` and ``"colbert"``."""
        return self._parts(_ALL)

    def scored(self, rankings: Rankings = _ALL) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Say what a document is sorted by, for who explains it.

        Args:
            rankings: What a search uses.

        Returns:
            Of ``"dense"``, ``"sparse"`` and ``"colbert"`` what is searched; and the weights of
            these scores, with the fusion where they do not say it all.
        """
        parts = self._parts(rankings)
        if "colbert" in parts:
            return parts, {"weights": (0.0, 0.0, 1.0)}
        if len(parts) == 1:
            return parts, {}
        alpha = 0.5 if rankings.alpha is None else rankings.alpha
        fusion = self.fusion if rankings.alpha is None else "rrf"
        return parts, {"weights": (alpha, 1.0 - alpha, 0.0), "fusion": fusion}

    def add(
        self,
        new: NewPoints,
        *,
        batch_size: int | None = None,
        show_progress: bool = False,
        **options: Any,
    ) -> None:
        """Encode documents and store them; those whose id is known are replaced.

        Args:
            new: The documents.
            batch_size: Documents a request at most; no request is larger than a server takes.
            show_progress: Show a progress bar.
            **options: Of ``QdrantClient.upsert``, as ``wait``.

        Raises:
            ValueError: A given vector is of another size, or a multi-vector too long.
        """
        self._check_given(new)
        if not new.ids:
            return
        flags = _flags(self.parts)
        reps = self.encoder.encode_documents(new.texts, **flags, show_progress=show_progress)
        self.add_encoded(new, reps, batch_size=batch_size, **options)

    def add_encoded(
        self,
        new: NewPoints,
        reps: Representations,
        *,
        batch_size: int | None = None,
        **options: Any,
    ) -> None:
        """Store documents that were encoded before.

        Args:
            new: The documents.
            reps: Their representations, with all that the collection keeps.
            batch_size: As of ``add``.
            **options: As of ``add``.
        """
        for batch in self._requests(new, reps, batch_size):
            self.connection.call("upsert", points=batch, **options)

    async def aadd(
        self,
        new: NewPoints,
        *,
        batch_size: int | None = None,
        show_progress: bool = False,
        **options: Any,
    ) -> None:
        """Do ``add`` without holding up the event loop."""
        self._check_given(new)
        if not new.ids:
            return
        flags = _flags(self.parts)
        reps = await self.encoder.aencode_documents(new.texts, **flags, show_progress=show_progress)
        for batch in await beside(lambda: [*self._requests(new, reps, batch_size)]):
            await self.connection.acall("upsert", points=batch, **options)

    def search(
        self, query: str, k: int, search: Search = _PLAIN, rankings: Rankings = _ALL
    ) -> list[ScoredPoint]:
        """Find the best documents.

        Args:
            query: The query.
            k: How many.
            search: Filter, threshold, offset and further options of Qdrant.
            rankings: Which are used.

        Returns:
            Points with their scores, best first.

        Raises:
            ValueError: ``k`` is below 1, or the collection has none of the rankings.
            FilterError: Qdrant cannot express the filter.
        """
        self.check(k, search, rankings)
        return self.search_encoded(self.encode(query, rankings), k, search, rankings)

    async def asearch(
        self, query: str, k: int, search: Search = _PLAIN, rankings: Rankings = _ALL
    ) -> list[ScoredPoint]:
        """Do ``search`` without holding up the event loop."""
        self.check(k, search, rankings)
        reps = await self.aencode(query, rankings)
        return await self.asearch_encoded(reps, k, search, rankings)

    def search_with_scores(
        self, query: str, k: int, search: Search = _PLAIN, rankings: Rankings = _ALL
    ) -> list[tuple[models.ScoredPoint, float, dict[str, float]]]:
        """Do ``search``, and say what each representation says about what was found.

        Vectors of what was found are fetched for that, which takes longer.

        Args:
            query: The query.
            k: How many.
            search: As of ``search``.
            rankings: As of ``search``.

        Returns:
            Points, their scores, and those by ``"dense"``, ``"sparse"`` and ``"colbert"``, as far
            as the rankings use them.
        """
        self.check(k, search, rankings)
        reps = self.encode(query, rankings)
        found = self.search_encoded(reps, k, search, rankings, with_vectors=True)
        return self._detailed(found, reps)

    async def asearch_with_scores(
        self, query: str, k: int, search: Search = _PLAIN, rankings: Rankings = _ALL
    ) -> list[tuple[models.ScoredPoint, float, dict[str, float]]]:
        """Do ``search_with_scores`` without holding up the event loop."""
        self.check(k, search, rankings)
        reps = await self.aencode(query, rankings)
        found = await self.asearch_encoded(reps, k, search, rankings, with_vectors=True)
        return self._detailed(found, reps)

    def _detailed(
        self, found: list[ScoredPoint], reps: Representations | None
    ) -> list[tuple[models.ScoredPoint, float, dict[str, float]]]:
        return [
            (point, score, {} if reps is None else part_scores(point, reps, self.names))
            for point, score in found
        ]

    def check(self, k: int, search: Search, rankings: Rankings = _ALL) -> None:
        """Refuse what cannot be searched, before the network runs.

        Args:
            k: How many documents.
            search: With the filter.
            rankings: Which are used.
        """
        check_count("k", k)
        search.condition(self.names)
        used = rankings.used(self.names)
        if rankings.vector is not None and used.dense is not None:
            self._check_size(rankings.vector, "the query's embedding")

    def encode(self, query: str, rankings: Rankings = _ALL) -> Representations | None:
        """Encode a query.

        Args:
            query: The query.
            rankings: Which are used.

        Returns:
            What they need; None if that is nothing.
        """
        parts = self._parts(rankings)
        return self.encoder.encode_queries([query], **_flags(parts)) if parts else None

    async def aencode(self, query: str, rankings: Rankings = _ALL) -> Representations | None:
        """Do ``encode`` without holding up the event loop."""
        parts = self._parts(rankings)
        return await self.encoder.aencode_queries([query], **_flags(parts)) if parts else None

    def search_encoded(
        self,
        reps: Representations | None,
        k: int,
        search: Search = _PLAIN,
        rankings: Rankings = _ALL,
        **options: Any,
    ) -> list[ScoredPoint]:
        """Find the best documents for what ``encode`` gave.

        Args:
            reps: The query's representations.
            k: How many documents.
            search: As of ``search``.
            rankings: As of ``search``.
            **options: Further keywords of ``QdrantClient.query_points``, as ``with_vectors``.

        Returns:
            As of ``search``.
        """
        asked, scale = self.request(reps, k, search, rankings)
        found = self.connection.call("query_points", **asked, **options)
        return _scored(found, scale, search.score_threshold)

    async def asearch_encoded(
        self,
        reps: Representations | None,
        k: int,
        search: Search = _PLAIN,
        rankings: Rankings = _ALL,
        **options: Any,
    ) -> list[ScoredPoint]:
        """Do ``search_encoded`` without holding up the event loop."""
        asked, scale = self.request(reps, k, search, rankings)
        found = await self.connection.acall("query_points", **asked, **options)
        return _scored(found, scale, search.score_threshold)

    def request(
        self,
        reps: Representations | None,
        k: int,
        search: Search = _PLAIN,
        rankings: Rankings = _ALL,
    ) -> tuple[dict[str, Any], float]:
        """Describe a search.

        Args:
            reps: The query's representations.
            k: How many documents.
            search: As of ``search``.
            rankings: As of ``search``.

        Returns:
            Keywords of ``query_points``, and what its scores are multiplied with to be ours.
        """
        multi, scale = None, 1.0
        if rankings.multi and self.has_multi and reps is not None and reps.colbert_vecs is not None:
            multi = fit_multi_vector(reps.colbert_vecs[0], self.long_multi_vectors, "the query")
            scale = 1.0 / len(multi)
        wanted = k + search.offset
        fetch_k = max(4 * wanted, 100) if self.fetch_k is None else max(self.fetch_k, wanted)
        asked = hybrid_query(reps, k, fetch_k, self.names, search, self.fusion, multi, rankings)
        return asked, scale

    def scroll(
        self, where: models.Filter | None = None, limit: int | None = None
    ) -> list[models.Record]:
        """Give points without searching.

        Args:
            where: Only those that pass; None for all.
            limit: So many at most.

        Returns:
            Points with payloads and dense vectors, in Qdrant's order.
        """
        found: list[models.Record] = []
        offset: Any = None
        while limit is None or len(found) < limit:
            page = self._page(where, limit, len(found), offset)
            records, offset = self.connection.call("scroll", **page)
            found += records
            if offset is None:
                break
        return found

    async def ascroll(
        self, where: models.Filter | None = None, limit: int | None = None
    ) -> list[models.Record]:
        """Do ``scroll`` without holding up the event loop."""
        found: list[models.Record] = []
        offset: Any = None
        while limit is None or len(found) < limit:
            page = self._page(where, limit, len(found), offset)
            records, offset = await self.connection.acall("scroll", **page)
            found += records
            if offset is None:
                break
        return found

    def dense_of(self, point: models.Record | models.ScoredPoint) -> list[float] | None:
        """Give the dense vector of a point that was asked for with vectors.

        Args:
            point: The point.

        Returns:
            The vector; None where it has none.
        """
        vector: Any = point.vector
        if isinstance(vector, dict):
            vector = vector.get(self.names.dense or "")
        return vector or None

    def with_dense(self) -> bool | list[str]:
        """What to pass as ``with_vectors`` for dense vectors."""
        # The unnamed vector cannot be asked for by its name.
        return [self.names.dense] if self.names.dense else self.names.dense == ""

    def _page(
        self, where: models.Filter | None, limit: int | None, so_far: int, offset: Any
    ) -> dict[str, Any]:
        size = _PAGE if limit is None else min(_PAGE, limit - so_far)
        vectors = self.with_dense()
        return {"scroll_filter": where, "limit": size, "offset": offset, "with_vectors": vectors}

    def _parts(self, rankings: Rankings) -> tuple[str, ...]:
        used = rankings.used(self.names)
        kept = {
            "dense": used.dense is not None and rankings.vector is None,
            "sparse": used.sparse is not None,
            "colbert": self.has_multi and rankings.multi,
        }
        return tuple(part for part, is_kept in kept.items() if is_kept)

    def _requests(
        self, new: NewPoints, reps: Representations, batch_size: int | None
    ) -> Iterator[list[models.PointStruct]]:
        made = points(new.ids, new.payloads, reps, self.long_multi_vectors, self.names, new.dense)
        return requests(made, batch_size)

    def _check_given(self, new: NewPoints) -> None:
        if self.names.dense is None:
            return
        for one, vector in zip(new.ids, new.dense or (), strict=False):
            if vector is not None:
                self._check_size(vector, f"the embedding of {one!r}")

    def _check_size(self, vector: Sequence[float], what: str) -> None:
        size = self.connection.layout.dense_dim
        if len(vector) != size:
            raise ValueError(
                f"{what} has {len(vector)} numbers; the dense vectors of collection "
                f"{self.connection.collection!r} have {size}: embed with the store's model"
            )


def select(ids: Iterable[str] | None) -> models.PointsSelector:
    """Say which points a call is about.

    Args:
        ids: Of documents; None for all.

    Returns:
        What ``QdrantClient.delete`` takes.
    """
    if ids is None:
        return models.FilterSelector(filter=models.Filter())
    return models.PointIdsList(points=[point_id(one) for one in check_ids(ids)])


def _scored(
    found: models.QueryResponse, scale: float, threshold: float | None
) -> list[ScoredPoint]:
    scored = [(one, one.score * scale) for one in found.points]
    return [one for one in scored if threshold is None or one[1] >= threshold]


def _flags(parts: Collection[str]) -> dict[str, bool]:
    return {
        "return_dense": "dense" in parts,
        "return_sparse": "sparse" in parts,
        "return_colbert_vecs": "colbert" in parts,
    }
