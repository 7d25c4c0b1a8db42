"""Documents with their representations in memory: hybrid search without an engine beside it."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import logging
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from m3_core.arguments import check_distinct, check_ids, check_vector
from m3_core.collection.files import read_collection, write_collection
from m3_core.collection.fusion import Found, Fusion
from m3_core.collection.search import (
    DEFAULT_WEIGHTS,
    SearchRequest,
    Wanted,
    search_store,
)
from m3_core.collection.stored import StoredDocuments, copied_metadata
from m3_core.encoder.protocol import PARTS
from m3_core.filters import Filter, parse_filter
from m3_core.representations import Representations
from m3_core.scoring import normalized_weights
from m3_core.texts import CheckedTexts, check_texts

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike

    from m3_core.collection.locks import ManyReaders
    from m3_core.collection.store import RepresentationStore
    from m3_core.collection.stored import Records
    from m3_core.encoder.cached import CachedEncoder

logger = logging.getLogger(__name__)

# Candidates of each first-stage ranking: so many times k, and at least so many.
FETCH_TIMES, FETCH_LEAST = 4, 100
# Documents whose multi-vectors are all scored, where nobody says whether they shall be.
EXHAUSTIVE_UP_TO = 1000
# How often a search looks again at documents that are replaced while their filter is evaluated.
LOOKS = 10


class DocumentCollection:
    """Texts, metadata and representations, searched exactly in memory.

    Safe under threads: a search sees each ``add`` and ``delete`` wholly or not at all. Nothing
    is shared with callers: metadata are copied when they come in and when they go out, down to
    the last list. A deep copy and a pickled one hold the documents with their representations,
    and nothing of the model.

    Args:
        encodings: The encoder's view; its parts say what is stored: ``"sparse"`` alone,
            ``"dense"`` and ``"sparse"``, or all three, then multi-vectors rerank.
    """

    def __init__(self, encodings: CachedEncoder) -> None:
        self.encodings = encodings
        self.fingerprint = encodings.fingerprint(encodings.parts)
        self._stored = StoredDocuments(self.fingerprint, encodings.parts)

    def __len__(self) -> int:
        return len(self._records)

    @property
    def _records(self) -> Records:
        return self._stored.records

    @property
    def _store(self) -> RepresentationStore:
        return self._stored.store

    @property
    def _lock(self) -> ManyReaders:
        return self._stored.lock

    @property
    def parts(self) -> tuple[str, ...]:
        """What is stored of ``"dense"``, ``"sparse"`` and ``"colbert"``."""
        return self.encodings.parts

    def over(self, encodings: CachedEncoder) -> DocumentCollection:
        """Give the same documents to another adapter: what one of them adds, both find.

        Args:
            encodings: Over the same model with the same parts; what it puts before queries may
                differ.

        Returns:
            A collection that shares its documents with this one.

        Raises:
            ValueError: Documents would be encoded otherwise than those that are there.
        """
        if encodings.parts != self.parts:
            raise ValueError(
                f"the documents are stored with {', '.join(self.parts)}, asked for were "
                f"{', '.join(encodings.parts)}"
            )
        if encodings.fingerprint(encodings.parts) != self.fingerprint:
            raise ValueError(
                f"the documents were encoded with {self.encodings.name!r}, and {encodings.name!r} "
                "is another model or has other options for documents: use the same, or encode "
                "the documents anew"
            )
        view = copy.copy(self)
        view.encodings = encodings
        return view

    def add(
        self,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        ids: Iterable[str | None] | None = None,
        *,
        show_progress: bool = False,
        encoded: Representations | None = None,
    ) -> list[str]:
        """Encode documents and add them; those whose id is known are replaced.

        Args:
            texts: The documents.
            metadatas: One mapping a document.
            ids: One a document; random ones where there is none.
            show_progress: Show a progress bar.
            encoded: What ``aencode`` has given for these texts.

        Returns:
            The ids.

        Raises:
            TypeError: A text or an id is no string.
            ValueError: The lengths differ, or an id comes twice.

        Texts without a word are added too, and a warning of the logger says how many.
        """
        new = _checked(texts, metadatas, ids)
        if new.texts:
            # Not remembered: the collection itself keeps what would only drive others' texts out.
            if encoded is None:
                encoded = self.encodings.documents(
                    new.texts, show_progress=show_progress, remember=False
                )
            self._keep(new, encoded)
        return new.ids

    async def aadd(
        self,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        ids: Iterable[str | None] | None = None,
        *,
        show_progress: bool = False,
    ) -> list[str]:
        """Do ``add`` without holding up the event loop; encoding occupies no thread."""
        new = await asyncio.to_thread(_checked, texts, metadatas, ids)
        if new.texts:
            reps = await self.aencode(new.texts, show_progress=show_progress)
            await asyncio.to_thread(self._keep, new, reps)
        return new.ids

    async def aencode(
        self, texts: Iterable[str], *, show_progress: bool = False
    ) -> Representations:
        """Encode documents that are to be added, without holding up the event loop.

        Args:
            texts: The documents.
            show_progress: Show a progress bar.

        Returns:
            What ``add`` takes.
        """
        return await self.encodings.adocuments(texts, show_progress=show_progress, remember=False)

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents.

        Args:
            ids: Their ids; unknown ones are ignored.

        Returns:
            How many were there.

        Raises:
            TypeError: ``ids`` is a single string, or an id is none.
        """
        return len(self.remove(ids))

    def remove(self, ids: Iterable[str]) -> list[str]:
        """Delete documents.

        Args:
            ids: Their ids; unknown ones are ignored.

        Returns:
            The ids of those that were there.

        Raises:
            TypeError: ``ids`` is a single string, or an id is none.
        """
        given = check_ids(ids)
        with self._lock.writing():
            return self._stored.remove(given)

    def get(self, ids: Iterable[str]) -> list[tuple[str, str, dict[str, Any]]]:
        """Look documents up.

        Args:
            ids: Their ids; unknown ones are left out.

        Returns:
            Id, text and a copy of the metadata of each.

        Raises:
            TypeError: ``ids`` is a single string, or an id is none.
        """
        given = check_ids(ids)
        with self._lock.reading():
            found = [(one, *self._records[one]) for one in given if one in self._records]
        return [(one, text, copy.deepcopy(metadata)) for one, text, metadata in found]

    def ids(self, where: Filter | None = None) -> list[str]:
        """List documents.

        Args:
            where: As of ``search``; by default all.

        Returns:
            Their ids, in the order of adding.
        """
        accept = parse_filter(where).evaluate
        with self._lock.reading():
            looked = list(self._records.items())
        # Without the lock: a function of the metadata may itself use the collection.
        return [one for one, (_, metadata) in looked if accept(metadata)]

    def search(
        self,
        query: str,
        k: int,
        *,
        where: Filter | None = None,
        ids: Collection[str] | None = None,
        weights: Sequence[float] = DEFAULT_WEIGHTS,
        fusion: Fusion = "weights",
        fetch_k: int | None = None,
        exhaustive: bool | None = False,
        vector: ArrayLike | None = None,
        return_vectors: bool = False,
    ) -> list[Found]:
        """Find the best documents for a query, which goes through the network once.

        The best ``fetch_k`` of the dense and of the lexical ranking are candidates; where
        multi-vectors are stored, all of them are scored with these too. With ``"weights"`` the
        score is the weighted mean of all scores of a candidate, computed exactly; with ``"rrf"``
        it is the sum of ``weight / (60 + rank)`` over the rankings of the candidates, where all
        three weights are scaled to the sum 1, and says
        nothing about how similar the texts are.

        Exhaustively, all documents are candidates. That is as quick for dense vectors and lexical
        weights; with multi-vectors its time grows with the number of all documents' tokens.

        Args:
            query: The query.
            k: How many documents at most.
            where: Only documents with such metadata, in the language of ``m3_core.filters``, or
                for whose metadata the function says yes.
            ids: Only these documents; unknown ids are ignored.
            weights: Of dense, sparse and multi-vector scores.
            fusion: ``"weights"`` or ``"rrf"``.
            fetch_k: Candidates of each of the two rankings; by default four times ``k`` and at
                least 100.
            exhaustive: Score all documents. ``None``: unless ``fetch_k`` is given or there are
                more than 1,000 documents with multi-vectors that have a weight.
            vector: The dense vector of the query, in place of the encoder's; scaled to length 1
                where the documents' are. Shape: (dim,).
            return_vectors: Give the dense vectors of what was found.

        Returns:
            Best first. By sparse scores alone: only documents that share a token with the query.

        Raises:
            TypeError: ``k`` is no whole number or the query no string.
            FilterError: The filter is not of the language.
            ValueError: ``k`` or ``fetch_k`` is below 1, weights or fusion cannot be, or the
                vector has another width than the documents'.
        """
        request = SearchRequest(
            k=k,
            where=where,
            ids=ids,
            weights=weights,
            fusion=fusion,
            fetch_k=fetch_k,
            exhaustive=exhaustive,
            vector=vector,
            return_vectors=return_vectors,
        )
        wanted = self._wanted(request)
        reps = self._given(request, wanted)
        return self._find(request, wanted, reps or self.encodings.queries([query]))

    async def asearch(self, query: str, k: int, **options: Any) -> list[Found]:
        """Do ``search``, with its keywords, without holding up the event loop.

        Encoding occupies no thread; the search itself, which grows with the collection, does.

        Args:
            query: The query.
            k: How many documents at most.
            **options: Of ``search``.

        Returns:
            Best first.
        """
        request = SearchRequest(k=k, **options)
        wanted = self._wanted(request)
        reps = self._given(request, wanted)
        if reps is None:
            reps = await self.encodings.aqueries([query])
        return await asyncio.to_thread(self._find, request, wanted, reps)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything into a folder; an older state in it stays until this one is complete.

        Args:
            path: The folder.

        Raises:
            TypeError: Metadata hold something that JSON does not have.
            OSError: Something could not be written; the older state is as it was.
        """
        with self._lock.reading():
            records = [(one, *record) for one, record in self._records.items()]
            content = dataclasses.replace(self._stored.content(), records=records)
            write_collection(path, content, self._store.lexical)

    @classmethod
    def load(cls, path: str | os.PathLike[str], encodings: CachedEncoder) -> DocumentCollection:
        """Read what ``save`` has written.

        Args:
            path: The folder.
            encodings: Over the model that the documents were encoded with, with the same parts.

        Returns:
            The collection.

        Raises:
            FileNotFoundError: There is no such folder.
            IndexFileError: The files are cut, damaged or something else, or the model or its
                options are others.
        """
        collection = cls(encodings)
        content, lexical = read_collection(path, collection.fingerprint, encodings.parts)
        records = {one: (text, metadata) for one, text, metadata in content.records}
        collection._stored.restore(records, content, lexical)
        return collection

    def _keep(self, new: _New, reps: Representations) -> None:
        with self._lock.writing():
            self._stored.remove(new.ids)
            self._store.add(new.ids, reps)
            records = zip(new.texts, new.metadatas, strict=True)
            self._records.update(zip(new.ids, records, strict=True))

    def _wanted(self, request: SearchRequest) -> Wanted:
        pairs = zip(PARTS, normalized_weights(request.weights), strict=True)
        shares = {name: share for name, share in pairs if name in self.encodings.parts}
        if not any(shares.values()):
            raise ValueError(
                f"weights {tuple(request.weights)} leave nothing to score by: stored are "
                f"{', '.join(self.encodings.parts)}"
            )
        exhaustive = request.exhaustive
        if exhaustive is None:
            is_small = len(self) <= EXHAUSTIVE_UP_TO or not shares.get("colbert")
            exhaustive = is_small and request.fetch_k is None
        least = max(FETCH_TIMES * request.k, FETCH_LEAST)
        fetch = None if exhaustive else max(request.k, request.fetch_k or least)
        return Wanted(k=request.k, fetch=fetch, shares=shares, fusion=request.fusion)

    def _given(self, request: SearchRequest, wanted: Wanted) -> Representations | None:
        """What a request brings in place of the query's encoding, if nothing else is needed."""
        # Candidates come from all rankings, whatever their weights.
        shares, everything = wanted.shares, wanted.fetch is not None
        needed = [name for name, share in shares.items() if share > 0 or everything]
        if request.vector is None or needed != ["dense"]:
            return None
        return Representations(dense_vecs=check_vector(request.vector)[np.newaxis])

    def _find(self, request: SearchRequest, wanted: Wanted, reps: Representations) -> list[Found]:
        with self._looking(request.where, request.ids) as allowed:
            if request.vector is not None and "dense" in wanted.shares:
                own = self._store.dense.comparable(check_vector(request.vector))
                reps = dataclasses.replace(reps, dense_vecs=own[np.newaxis])
            ranked = search_store(self._store, reps, dataclasses.replace(wanted, allowed=allowed))
            records = [self._records[one] for one, _, _ in ranked]
            rows = self._store.ids.find(one for one, _, _ in ranked)
            are_asked = request.return_vectors
            vectors = self._store.dense.take(rows) if are_asked else [None] * len(ranked)
        # Stored metadata are never changed, so that they can be copied without the lock.
        return [
            Found(one, text, copy.deepcopy(metadata), score, scores, vector)
            for (one, score, scores), (text, metadata), vector in zip(
                ranked, records, vectors, strict=True
            )
        ]

    @contextmanager
    def _looking(
        self, where: Filter | None, ids: Collection[str] | None
    ) -> Iterator[Collection[str] | None]:
        """Read with the lock held, and know the documents that pass.

        The filter is evaluated without the lock: a function may itself use the collection. What
        others replace meanwhile is looked at again.
        """
        named = None if ids is None else check_ids(ids)
        if where is None:
            with self._lock.reading():
                yield None if named is None else [one for one in named if one in self._records]
            return
        accept = parse_filter(where).evaluate
        with self._lock.reading():
            looked = list(self._records) if named is None else named
        passed: dict[str, tuple[object, bool]] = {}
        for _ in range(LOOKS):
            with self._lock.reading():
                found = [(one, self._records[one]) for one in looked if one in self._records]
                changed = [
                    (one, record)
                    for one, record in found
                    if one not in passed or passed[one][0] is not record
                ]
                if not changed:
                    yield {one for one, _ in found if passed[one][1]}
                    return
            for one, record in changed:
                passed[one] = record, accept(record[1])
        raise RuntimeError(
            f"documents were replaced each of the {LOOKS} times that the filter was evaluated: a "
            "filter function must not change what it looks at"
        )


class _New(NamedTuple):
    """Documents to be added."""

    ids: list[str]
    texts: CheckedTexts
    metadatas: list[dict[str, Any]]


def _checked(
    texts: Iterable[str],
    metadatas: Iterable[Mapping[str, Any] | None] | None,
    ids: Iterable[str | None] | None,
) -> _New:
    """Check documents and copy what others may change, before anything is encoded."""
    texts = check_texts(texts)
    if isinstance(ids, (str, bytes)):
        check_ids(ids)
    known = [None] * len(texts) if ids is None else list(ids)
    filled = [str(uuid.uuid4()) if one is None else one for one in known]
    others = (
        [{} for _ in texts] if metadatas is None else [{} if m is None else m for m in metadatas]
    )
    if not len(filled) == len(others) == len(texts):
        raise ValueError(f"got {len(texts)} texts, {len(others)} metadatas and {len(filled)} ids")
    check_distinct(check_ids(filled))
    copied = [copied_metadata(one, m) for one, m in zip(filled, others, strict=True)]
    blank = [one for one, text in zip(filled, texts, strict=True) if not text.strip()]
    if blank:
        logger.warning(
            "%d of %d documents have no text, the first is %r: no lexical search finds them",
            len(blank),
            len(texts),
            blank[0],
        )
    return _New(filled, texts, copied)
