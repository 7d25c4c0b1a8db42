"""Representations of documents by id: what a collection searches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m3_core.collection.vectors import MultiVectorRows, RowIds, VectorRows
from m3_core.lexical_index import LexicalIndex

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import NDArray

    from m3_core.representations import MultiVectors, Representations


class RepresentationStore:
    """Dense vectors, lexical weights and multi-vectors of the same documents.

    A row is a document's number in the order of adding. Not safe under threads by itself.

    Args:
        fingerprint: Of the encoder.

    Attributes:
        ids: Ids of the rows.
        dense: Dense vectors by row; empty if none are stored.
        multi: Multi-vectors by row; empty if none are stored.
        lexical: Lexical weights by id; holds the documents in the same order.
    """

    def __init__(self, fingerprint: str) -> None:
        self.ids = RowIds()
        self.dense = VectorRows()
        self.multi = MultiVectorRows()
        self.lexical = LexicalIndex(fingerprint)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, ids: Sequence[str], reps: Representations) -> None:
        """Add documents that are not there; always with the same parts.

        Args:
            ids: One a document.
            reps: Their representations.

        Raises:
            ValueError: A lexical weight cannot be; nothing is changed.
        """
        # The lexical index comes first: it refuses what it cannot hold before anything is changed.
        if reps.lexical_weights is not None:
            self.lexical.add(ids, reps.lexical_weights)
        self.restore(ids, reps.dense_vecs, reps.colbert_vecs)

    def restore(
        self, ids: Sequence[str], dense: NDArray[np.float32] | None, multi: MultiVectors | None
    ) -> None:
        """Add documents whose lexical weights are there.

        Args:
            ids: One a document.
            dense: Their dense vectors.
            multi: Their multi-vectors.
        """
        self.ids.add(ids)
        if dense is not None:
            self.dense.append(dense)
        if multi is not None:
            self.multi.append(multi)

    def delete(self, ids: Collection[str]) -> None:
        """Delete documents.

        Args:
            ids: Their ids; unknown ones are ignored.
        """
        self.lexical.delete(ids)
        self.ids.delete(ids)
        kept = self.ids.compact()
        if kept is not None:
            if self.dense.width:
                self.dense.keep(kept)
            if self.multi.width:
                self.multi.keep(kept)

    def rows(self, allowed: Iterable[str] | None = None) -> NDArray[np.int64]:
        """Rows of documents, ascending.

        Args:
            allowed: Ids; unknown ones are left out. ``None``: all.

        Returns:
            Shape: (documents,). Dtype: int64.
        """
        return self.ids.living() if allowed is None else np.unique(self.ids.find(allowed))

    def scores(
        self, query: Representations, part: str, rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Score documents by one representation, exactly.

        Args:
            query: One text with that part.
            part: ``"dense"``, ``"sparse"`` or ``"colbert"``.
            rows: Ascending. Shape: (rows,).

        Returns:
            Shape: (rows,). Dtype: float32.

        Raises:
            ValueError: The dense vector of the query has another width than the documents'.
        """
        if part == "dense" and query.dense_vecs is not None:
            vector = query.dense_vecs[0]
            if self.dense.width and len(vector) != self.dense.width:
                raise ValueError(
                    f"the query vector has {len(vector)} values and the documents' have "
                    f"{self.dense.width}: they come from different models"
                )
            return self.dense.scores(vector, rows)
        if part == "sparse" and query.lexical_weights is not None:
            scores = self.lexical.score_all(query.lexical_weights[0])
            return scores[np.searchsorted(self.ids.living(), rows)]
        if part == "colbert" and query.colbert_vecs is not None:
            return self.multi.scores(query.colbert_vecs[0], rows)
        raise ValueError(f"the query was encoded without {part}")
