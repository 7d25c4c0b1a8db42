"""Documents with their representations in memory: hybrid search without an engine beside it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.arguments import Filter, check_count, check_distinct, check_ids, metadata_test
from m3_core.collection_files import Content, read_collection, write_collection
from m3_core.fingerprint import encoder_fingerprint
from m3_core.fusion import Found, Fusion, fuse
from m3_core.index import LexicalIndex
from m3_core.locks import ManyReaders
from m3_core.representations import MultiVectors, Representations
from m3_core.scoring import maxsim_scores, normalized_weights
from m3_core.vectors import VectorRows

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from m3_core.adapter import AdapterEncoder

# M3-Embedding (arXiv 2402.03216, section 4.2): dense 1, sparse 0.3, multi-vector 1.
DEFAULT_WEIGHTS = (1.0, 0.3, 1.0)
# Candidates of each first-stage ranking: so many times k, and at least so many.
FETCH_TIMES, FETCH_LEAST = 4, 100


class DocumentCollection:
    """Texts, metadata and representations, searched exactly in memory.

    Safe under threads: a search sees each ``add`` and ``delete`` wholly or not at all.

    Args:
        encodings: The encoder's view; its parts say what is stored: ``"sparse"`` alone,
            ``"dense"`` and ``"sparse"``, or all three, then multi-vectors rerank.
    """

    def __init__(self, encodings: AdapterEncoder) -> None:
        self.encodings = encodings
        self.fingerprint = encoder_fingerprint(encodings.encoder, encodings.parts)
        self._records: dict[str, tuple[str, dict[str, Any]]] = {}
        self._lexical = LexicalIndex(self.fingerprint)
        self._dense = VectorRows()
        self._multi: dict[str, np.ndarray[Any, np.dtype[np.float16]]] = {}
        self._lock = ManyReaders()

    def __len__(self) -> int:
        return len(self._records)

    def add(
        self,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        ids: Iterable[str | None] | None = None,
        *,
        show_progress: bool = False,
    ) -> list[str]:
        """Encode documents and add them; those whose id is known are replaced.

        Args:
            texts: The documents.
            metadatas: One mapping a document.
            ids: One a document; random ones where there is none.
            show_progress: Show a progress bar.

        Returns:
            The ids.

        Raises:
            TypeError: A text or an id is no string.
            ValueError: The lengths differ, or an id comes twice.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        known = [None] * len(texts) if ids is None else list(ids)
        filled = [str(uuid.uuid4()) if one is None else one for one in known]
        others = [{}] * len(texts) if metadatas is None else [dict(m or {}) for m in metadatas]
        if not len(filled) == len(others) == len(texts):
            raise ValueError(
                f"got {len(texts)} texts, {len(others)} metadatas and {len(filled)} ids"
            )
        check_distinct(check_ids(filled))
        if not texts:
            return []
        reps = self.encodings.documents(texts, show_progress=show_progress)
        with self._lock.writing():
            self._remove(filled)
            self._insert(filled, reps)
            records = zip(texts, others, strict=True)
            self._records.update(zip(filled, records, strict=True))
        return filled

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents.

        Args:
            ids: Their ids; unknown ones are ignored.

        Returns:
            How many were there.

        Raises:
            TypeError: ``ids`` is a single string, or an id is none.
        """
        given = check_ids(ids)
        with self._lock.writing():
            return self._remove(given)

    def get(self, ids: Iterable[str]) -> list[tuple[str, str, dict[str, Any]]]:
        """Look documents up.

        Args:
            ids: Their ids; unknown ones are left out.

        Returns:
            Id, text and a copy of the metadata of each.
        """
        with self._lock.reading():
            found = [(one, *self._records[one]) for one in ids if one in self._records]
            return [(one, text, dict(metadata)) for one, text, metadata in found]

    def search(
        self,
        query: str,
        k: int,
        *,
        where: Filter | None = None,
        weights: Sequence[float] = DEFAULT_WEIGHTS,
        fusion: Fusion = "weights",
        fetch_k: int | None = None,
    ) -> list[Found]:
        """Find the best documents for a query, which goes through the network once.

        The best ``fetch_k`` of the dense and of the lexical ranking are candidates. With
        multi-vectors stored, the best ``fetch_k`` of the fused candidates are scored with them
        and fused again. With ``"weights"`` the score is the weighted mean of all scores of a
        candidate, computed exactly; with ``"rrf"`` it is the sum of ``weight / (60 + rank)``
        over the rankings, and says nothing about how similar the texts are.

        Args:
            query: The query.
            k: How many documents at most.
            where: Only documents with these metadata values, or for whose metadata the function
                says yes.
            weights: Of dense, sparse and multi-vector scores.
            fusion: ``"weights"`` or ``"rrf"``.
            fetch_k: Candidates; by default four times ``k`` and at least 100.

        Returns:
            Best first. Sparse alone: only documents that share a token with the query.

        Raises:
            TypeError: ``k`` is no whole number or the query no string.
            ValueError: ``k`` or ``fetch_k`` is below 1, or weights or fusion cannot be.
        """
        check_count("k", k)
        if fetch_k is not None:
            check_count("fetch_k", fetch_k)
        if fusion not in ("weights", "rrf"):
            raise ValueError(f"fusion must be 'weights' or 'rrf'; got {fusion!r}")
        shares = dict(zip(("dense", "sparse", "colbert"), normalized_weights(weights), strict=True))
        reps = self.encodings.queries([query])
        fetch = max(k, fetch_k or max(FETCH_TIMES * k, FETCH_LEAST))
        with self._lock.reading():
            allowed = None if where is None else self._allowed(where)
            ranked = self._rank(reps, k, fetch, allowed, shares, fusion)
            return [
                Found(one, self._records[one][0], dict(self._records[one][1]), score, scores)
                for one, score, scores in ranked
            ]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything into a folder; an older state in it stays until this one is complete.

        Args:
            path: The folder.

        Raises:
            TypeError: Metadata hold something that JSON does not have.
            OSError: Something could not be written; the older state is as it was.
        """
        with self._lock.reading():
            write_collection(
                path,
                Content(
                    fingerprint=self.fingerprint,
                    parts=self.encodings.parts,
                    records=[(one, *record) for one, record in self._records.items()],
                    dense=self._dense.take(self._records) if len(self._dense) else None,
                    multi=MultiVectors.from_arrays(self._multi[one] for one in self._records)
                    if self._multi
                    else None,
                ),
                self._lexical,
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str], encodings: AdapterEncoder) -> DocumentCollection:
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
        collection._records = {one: (text, metadata) for one, text, metadata in content.records}
        collection._lexical = lexical
        if content.dense is not None:
            collection._dense.add(list(collection._records), content.dense)
        if content.multi is not None:
            pairs = zip(collection._records, content.multi, strict=True)
            collection._multi = {one: np.asarray(rows, np.float16) for one, rows in pairs}
        return collection

    def _remove(self, ids: list[str]) -> int:
        known = [one for one in dict.fromkeys(ids) if one in self._records]
        self._lexical.delete(known)
        self._dense.delete(known)
        for one in known:
            del self._records[one]
            self._multi.pop(one, None)
        return len(known)

    def _insert(self, ids: list[str], reps: Representations) -> None:
        # The lexical index comes first: it refuses what it cannot hold before anything is changed.
        if reps.lexical_weights is not None:
            self._lexical.add(ids, reps.lexical_weights)
        if reps.dense_vecs is not None:
            self._dense.add(ids, reps.dense_vecs)
        if reps.colbert_vecs is not None:
            # Copies, since views would keep the whole batch in memory.
            pairs = zip(ids, reps.colbert_vecs, strict=True)
            self._multi.update((one, np.array(rows, np.float16)) for one, rows in pairs)

    def _allowed(self, where: Filter) -> set[str]:
        accept = metadata_test(where)
        return {one for one, (_, metadata) in self._records.items() if accept(metadata)}

    def _rank(
        self,
        reps: Representations,
        k: int,
        fetch: int,
        allowed: set[str] | None,
        shares: Mapping[str, float],
        fusion: Fusion,
    ) -> list[tuple[str, float, dict[str, float]]]:
        """Ids, scores and the scores that they were made of, best first."""
        rankings: dict[str, dict[str, float]] = {}
        if reps.lexical_weights is not None:
            weights = reps.lexical_weights[0]
            rankings["sparse"] = dict(self._lexical.search(weights, fetch, allowed=allowed))
            if reps.dense_vecs is None:
                only = rankings["sparse"]
                return [(one, only[one], {"sparse": only[one]}) for one in list(only)[:k]]
        if reps.dense_vecs is not None:
            rankings["dense"] = dict(self._dense.search(reps.dense_vecs[0], fetch, allowed))
        if fusion == "weights":
            rankings = self._completed(reps, rankings)
        fused = fuse(rankings, shares, fusion)
        if reps.colbert_vecs is not None and fused:
            candidates = [one for one, _ in fused[:fetch]]
            documents = MultiVectors.from_arrays(self._multi[one] for one in candidates)
            late = maxsim_scores(reps.colbert_vecs, documents)[0].tolist()
            ranked = sorted(zip(candidates, late, strict=True), key=lambda pair: -pair[1])
            rankings["colbert"] = dict(ranked)
            kept = rankings["colbert"].keys()
            rankings = {
                name: {one: score for one, score in ranking.items() if one in kept}
                for name, ranking in rankings.items()
            }
            fused = fuse(rankings, shares, fusion)
        return [
            (one, score, {name: r[one] for name, r in rankings.items() if one in r})
            for one, score in fused[:k]
        ]

    def _completed(
        self, reps: Representations, rankings: dict[str, dict[str, float]]
    ) -> dict[str, dict[str, float]]:
        """All scores of all candidates, not only those of the ranking that brought them."""
        candidates = list(dict.fromkeys(one for ranking in rankings.values() for one in ranking))
        if not candidates:
            return rankings
        completed: dict[str, dict[str, float]] = {}
        if reps.dense_vecs is not None:
            scores = self._dense.take(candidates) @ reps.dense_vecs[0]
            completed["dense"] = dict(zip(candidates, scores.tolist(), strict=True))
        if reps.lexical_weights is not None:
            found = dict.fromkeys(candidates, 0.0)
            weights = reps.lexical_weights[0]
            found |= self._lexical.search(weights, len(candidates), allowed=candidates)
            completed["sparse"] = found
        return completed
