"""What is said about a query and a document."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from m3_core.explanations.as_html import html_of
from m3_core.explanations.as_text import lines_of, rich_of, text_of
from m3_core.explanations.heat import HeatMap, heat_map

if TYPE_CHECKING:
    from m3_core.explanations.parts import Alignment, MatchedWord
    from m3_core.explanations.spans import Located, Span
    from m3_core.representations import Representations


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a document has its score for a query.

    ``print`` shows it in a terminal, notebooks as HTML, ``rich`` in colour; ``to_dict`` gives all
    of it as JSON has it.

    Attributes:
        query: The query.
        document: The document.
        model: The name of the model.
        scores: What ``Encoder.compute_score`` gives for the pair: ``"colbert"``, ``"sparse"``,
            ``"dense"``, ``"sparse+dense"`` and ``"colbert+sparse+dense"``; of a model, or a
            retriever, with fewer representations those that it has.
        score: The weighted mean of the scores that have a weight.
        weights: The weight of each representation in it; they sum to 1.
        contributions: Score times weight of each; they sum to ``score``.
        words: The words that the lexical score is made of, the largest contribution first; their
            contributions sum to ``scores["sparse"]``.
        alignments: For each word of the query, and the special token at its end, the document's
            word that is most similar to it; their contributions sum to ``scores["colbert"]``.
        spans: The document in pieces: ``"".join(span.text for span in spans) == document``.
        query_spans: The query, likewise.
        truncated: Whether the document goes on behind what the encoder saw of it.
        query_truncated: Whether the query does.
        notes: What else is to be known.
    """

    query: str
    document: str
    model: str
    scores: dict[str, float]
    score: float
    weights: dict[str, float]
    contributions: dict[str, float]
    words: tuple[MatchedWord, ...]
    alignments: tuple[Alignment, ...]
    spans: tuple[Span, ...]
    query_spans: tuple[Span, ...]
    truncated: bool
    query_truncated: bool
    notes: tuple[str, ...] = ()
    _made_of: tuple[Located, Located, Representations, Representations] | None = field(
        default=None, repr=False
    )

    @functools.cached_property
    def heat_map(self) -> HeatMap:
        """How similar words of the query are to those words of the document that matter most."""
        return heat_map(self._made_of, self.alignments, self.spans)

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON has it.

        Returns:
            Dictionaries, lists, texts, numbers.
        """
        heat = self.heat_map
        return {
            "query": self.query,
            "document": self.document,
            "model": self.model,
            "score": self.score,
            "scores": dict(self.scores),
            "weights": dict(self.weights),
            "contributions": dict(self.contributions),
            "words": [word.to_dict() for word in self.words],
            "alignments": [one.to_dict() for one in self.alignments],
            "spans": [span.to_dict() for span in self.spans],
            "query_spans": [span.to_dict() for span in self.query_spans],
            "truncated": self.truncated,
            "query_truncated": self.query_truncated,
            "notes": list(self.notes),
            "heat_map": heat.to_dict(),
        }

    def __str__(self) -> str:
        return text_of(lines_of(self))

    def __rich__(self) -> Any:
        """Show it in colour, where ``rich`` prints it."""
        return rich_of(lines_of(self))

    def _repr_html_(self) -> str:
        """Show it in a notebook: no script, nothing from elsewhere, light or dark as the page."""
        return html_of(self)

    def to_html(self, *, document: bool = True) -> str:
        """Give it as HTML.

        Args:
            document: A whole page to be saved; else what notebooks show, to be put into one.

        Returns:
            HTML. All texts in it are data.
        """
        return html_of(self, whole=document)
