"""The part of all similarities between words that is worth a look."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from m3_core.explanations.parts import word_similarities
from m3_core.explanations.words import is_gap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m3_core.explanations.parts import Alignment
    from m3_core.explanations.spans import Located, Place, Span
    from m3_core.representations import Representations

# So many words fit beside each other on a screen, and below.
COLUMNS, ROWS = 18, 40


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Similarities of words.

    Attributes:
        rows: Words of the query, in its order.
        columns: Words of the document, in its order: those that most is owed to.
        places: Where in the document they stand.
        similarities: One list a row: the mean over the tokens of the query's word of the best
            of the document's word's.
        left_out: Words of the query that found no place.
    """

    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    similarities: tuple[tuple[float, ...], ...] = ()
    left_out: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return {
            "rows": list(self.rows),
            "columns": list(self.columns),
            "places": [list(place) for place in self.places],
            "similarities": [list(row) for row in self.similarities],
            "left_out": self.left_out,
        }


def heat_map(
    made_of: tuple[Located, Located, Representations, Representations] | None,
    alignments: Sequence[Alignment],
    spans: Sequence[Span],
) -> HeatMap:
    """Choose words of both texts, and compare all with all.

    Args:
        made_of: Both texts with their representations.
        alignments: Of the query's words.
        spans: The document's.

    Returns:
        The heat map; empty where there are no multi-vectors.
    """
    worded = [
        one
        for one in alignments
        if one.query_place and one.query_place[0] >= 0 and not is_gap(one.query)
    ]
    if made_of is None or not worded:
        return HeatMap()
    query, document, asked, found = made_of
    if asked.colbert_vecs is None or found.colbert_vecs is None:
        return HeatMap()
    rows = worded[:ROWS]
    owed: defaultdict[Place, float] = defaultdict(float)
    for span in spans:
        if span.is_word and span.colbert > 0:
            owed[span.start, span.end] = span.colbert
    # What else the texts share is worth a look too, even if each has a better partner.
    for span in sorted(spans, key=lambda one: -one.sparse):
        if len(owed) >= COLUMNS or not span.sparse:
            break
        if span.is_word:
            owed.setdefault((span.start, span.end), 0.0)
    chosen = sorted(sorted(owed, key=lambda place: -owed[place])[:COLUMNS])
    table = word_similarities(
        query, document, asked.colbert_vecs[0], found.colbert_vecs[0], rows, chosen
    )
    return HeatMap(
        rows=tuple(one.query for one in rows),
        columns=tuple(document.text[start:end] for start, end in chosen),
        places=tuple(chosen),
        similarities=tuple(tuple(row) for row in table.tolist()),
        left_out=len(worded) - len(rows),
    )
