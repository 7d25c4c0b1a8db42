"""Documents with their representations in memory: hybrid search without an engine beside it."""

from __future__ import annotations

import copy
import dataclasses
import logging
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from m3_core.arguments import check_distinct, check_ids, check_vector
from m3_core.beside import beside
from m3_core.collection.encoding import aencode_in_chunks, encode_in_chunks
from m3_core.collection.files import Expected, read_collection, write_collection
from m3_core.collection.fusion import Fusion, Hit
from m3_core.collection.metadata import copied_metadata
from m3_core.collection.search import (
    DEFAULT_WEIGHTS,
    SearchPlan,
    SearchRequest,
    search_snapshot,
)
from m3_core.collection.snapshot import blocks_of
from m3_core.collection.stored import StoredDocuments
from m3_core.encoder import PARTS
from m3_core.filters import Filter, parse_filter
from m3_core.representations import Representations
from m3_core.scoring import normalized_weights
from m3_core.texts import CheckedTexts, check_texts

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from m3_core.collection.snapshot import Block, DocumentSnapshot
    from m3_core.encoder import CachedEncoder

logger = logging.getLogger(__name__)

# Candidates of each first-stage ranking: so many times k, and at least so many.
FETCH_TIMES, FETCH_LEAST = 4, 100
# Documents whose multi-vectors are all scored, where nobody says whether they shall be.
EXHAUSTIVE_UP_TO = 1000


class DocumentCollection:
    """Texts, metadata and representations, searched exactly in memory.

    Safe under threads: a search sees the documents as they were when it began, each ``add`` and
    ``delete`` wholly or not at all, and waits for nobody; what a change raises leaves them as they
    were. Nothing is shared with callers: metadata are copied when they come in and when they go
    out, down to the last list. A deep copy and a pickled one hold the documents with their
    representations, and nothing of the model.

    Args:
        encodings: The encoder's view; its parts say what is stored: ``"sparse"`` alone,
            ``"dense"`` and ``"sparse"``, or all three, then multi-vectors rerank.
    """

    def __init__(self, encodings: CachedEncoder) -> None:
        self.encodings = encodings
        self.fingerprint = encodings.fingerprint(encodings.parts)
        self._stored = StoredDocuments(self.fingerprint, encodings.parts)

    def __len__(self) -> int:
        return len(self._snapshot)

    @property
    def _snapshot(self) -> DocumentSnapshot:
        return self._stored.snapshot

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
        encoded: Sequence[Representations] | None = None,
    ) -> list[str]:
        """Encode documents and add them, all or none; those whose id is known are replaced.

        They are encoded some at a time, and need little memory beside what is stored of them.

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
            NonFiniteError: A vector holds NaN or infinity.

        Texts without a word are added too, and a warning of the logger says how many.
        """
        new = _checked(texts, metadatas, ids)
        if new.texts:
            if encoded is None:
                encoded = encode_in_chunks(self.encodings, new.texts, show_progress=show_progress)
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
        new = await beside(_checked, texts, metadatas, ids)
        if new.texts:
            reps = await self.aencode(new.texts, show_progress=show_progress)
            await beside(self._keep, new, reps)
        return new.ids

    async def aencode(
        self, texts: Iterable[str], *, show_progress: bool = False
    ) -> list[Representations]:
        """Encode documents that are to be added, without holding up the event loop.

        Args:
            texts: The documents.
            show_progress: Show a progress bar.

        Returns:
            What ``add`` takes, as it will be stored: not to be changed.
        """
        return await aencode_in_chunks(
            self.encodings, check_texts(texts), show_progress=show_progress
        )

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
        return self._stored.change(dict.fromkeys(check_ids(ids)), [])

    def get(self, ids: Iterable[str]) -> list[tuple[str, str, dict[str, Any]]]:
        """Look documents up.

        Args:
            ids: Their ids; unknown ones are left out.

        Returns:
            Id, text and a copy of the metadata of each.

        Raises:
            TypeError: ``ids`` is a single string, or an id is none.
        """
        given, snapshot = check_ids(ids), self._snapshot
        found = snapshot.records(snapshot.lexical.find(given).tolist())
        return [(one, text, copy.deepcopy(dict(metadata))) for one, text, metadata in found]

    def ids(self, where: Filter | None = None) -> list[str]:
        """List documents.

        Args:
            where: As of ``search``; by default all.

        Returns:
            Their ids, in the order of adding.
        """
        snapshot = self._snapshot
        return snapshot.ids(snapshot.rows(_test(where)))

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
    ) -> list[Hit]:
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
                for whose metadata the function says yes. It may use the collection.
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
        plan = self._plan(request)
        reps = self._given(request, plan)
        return self._find(request, plan, reps or self.encodings.queries([query]))

    async def asearch(self, query: str, k: int, **options: Any) -> list[Hit]:
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
        plan = self._plan(request)
        reps = self._given(request, plan)
        if reps is None:
            reps = await self.encodings.aqueries([query])
        return await beside(self._find, request, plan, reps)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything into one file, which takes the place of an older one when it is whole.

        Any number of threads and processes may save to one name, and load from it: the last one
        to finish wins, whole.

        Args:
            path: The file; the folders above it are made if need be.

        Raises:
            TypeError: Metadata hold something that JSON does not have, or would change; nothing
                was written.
            OSError: Something could not be written, or there is a folder of that name; the older
                file is as it was.
        """
        write_collection(path, self._snapshot, self.fingerprint, self.parts)

    @classmethod
    def load(cls, path: str | os.PathLike[str], encodings: CachedEncoder) -> DocumentCollection:
        """Read what ``save`` has written.

        Args:
            path: The file.
            encodings: Over the model that the documents were encoded with, with the same parts.

        Returns:
            The collection.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: It cannot be read.
            IndexFileError: It is cut, damaged or something else, or the model or its options are
                others.
        """
        collection = cls(encodings)
        expected = Expected(
            fingerprint=collection.fingerprint,
            parts=encodings.parts,
            dimension=encodings.dimension,
            colbert_dimension=encodings.colbert_dimension,
        )
        snapshot = read_collection(path, expected)
        collection._stored = StoredDocuments(collection.fingerprint, encodings.parts, snapshot)
        return collection

    def _keep(self, new: _New, chunks: Sequence[Representations]) -> None:
        if sum(map(len, chunks)) != len(new.ids):
            raise ValueError(
                f"got {len(new.ids)} documents and the representations of {sum(map(len, chunks))}"
            )
        blocks: list[Block] = []
        start = 0
        for reps in chunks:
            part = slice(start, start + len(reps))
            start = part.stop
            blocks += blocks_of(new.ids[part], new.texts[part], new.metadatas[part], reps)
        self._stored.change(new.ids, blocks)

    def _plan(self, request: SearchRequest) -> SearchPlan:
        pairs = zip(PARTS, normalized_weights(request.weights), strict=True)
        by_part = {name: weight for name, weight in pairs if name in self.encodings.parts}
        if not any(by_part.values()):
            raise ValueError(
                f"weights {tuple(request.weights)} leave nothing to score by: stored are "
                f"{', '.join(self.encodings.parts)}"
            )
        exhaustive = request.exhaustive
        if exhaustive is None:
            is_small = len(self) <= EXHAUSTIVE_UP_TO or not by_part.get("colbert")
            exhaustive = is_small and request.fetch_k is None
        least = max(FETCH_TIMES * request.k, FETCH_LEAST)
        fetch = None if exhaustive else max(request.k, request.fetch_k or least)
        return SearchPlan(k=request.k, candidates=fetch, weights=by_part, fusion=request.fusion)

    def _given(self, request: SearchRequest, plan: SearchPlan) -> Representations | None:
        """What a request brings in place of the query's encoding, if nothing else is needed."""
        # Candidates come from all rankings, whatever their weights.
        weights, everything = plan.weights, plan.candidates is not None
        needed = [name for name, weight in weights.items() if weight > 0 or everything]
        if request.vector is None or needed != ["dense"]:
            return None
        return Representations(dense_vecs=check_vector(request.vector)[np.newaxis])

    def _find(self, request: SearchRequest, plan: SearchPlan, reps: Representations) -> list[Hit]:
        snapshot, allowed = self._snapshot, None
        if request.where is not None or request.ids is not None:
            named = None if request.ids is None else check_ids(request.ids)
            allowed = snapshot.rows(_test(request.where), named)
        dense = snapshot.dense
        if request.vector is not None and dense is not None:
            own = dense.comparable(check_vector(request.vector))
            reps = dataclasses.replace(reps, dense_vecs=own[np.newaxis])
        ranked = search_snapshot(snapshot, reps, plan, allowed, self._stored.buffers)
        rows = [one.row for one in ranked]
        vectors: list[NDArray[np.float32] | None] = [None] * len(rows)
        if request.return_vectors and dense is not None:
            vectors = [*dense.take(rows)]
        return [
            Hit(one, text, copy.deepcopy(dict(metadata)), found.score, found.scores, vector)
            for found, (one, text, metadata), vector in zip(
                ranked, snapshot.records(rows), vectors, strict=True
            )
        ]


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


def _test(where: Filter | None) -> Callable[[Mapping[str, Any]], bool] | None:
    return None if where is None else parse_filter(where).evaluate
