"""The words that matched, as the demo shows them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from m3_core.cli.demo_search import WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from m3_core.cli.demo_search import Answer, Corpus, Hit
    from m3_core.encoder import TextEncoder

    Place = tuple[int, int]

# Below this cosine two words are close by chance.
_CLOSE = 0.4


@dataclass(frozen=True, slots=True)
class Match:
    """A word of a question and a word of a passage.

    Attributes:
        query: The question's word.
        document: The passage's.
        places: Where it stands in the passage: first character, and the one behind the last.
        score: What the pair adds to the score.
    """

    query: str
    document: str
    places: tuple[Place, ...]
    score: float

    def __str__(self) -> str:
        if self.query.casefold() == self.document.casefold():
            return self.document
        return f"{self.query} → {self.document}"


@dataclass(frozen=True, slots=True)
class Matches:
    """The words of a question and a passage that matched, best first.

    Attributes:
        sparse: Words in common: what the lexical score is made of.
        colbert: Words that are close: what the multi-vector score owes most to.
    """

    sparse: Sequence[Match]
    colbert: Sequence[Match]

    @property
    def places(self) -> list[Place]:
        """Where the close words stand in the passage."""
        return sorted({at for one in self.colbert for at in one.places})

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            name: [[one.query, one.document] for one in matches]
            for name, matches in (("sparse", self.sparse), ("colbert", self.colbert))
        }


def find_matches(corpus: Corpus, answer: Answer, hit: Hit, count: int = 3) -> Matches:
    """Find the words to which a passage owes its scores.

    Args:
        corpus: Whose encoder is asked.
        answer: The answer, for its question.
        hit: The passage.
        count: How many words of each kind at most.

    Returns:
        The words.
    """
    from m3_core.explanations import explain

    found = explain(corpus.encoder, answer.question.text, hit.passage.text, weights=WEIGHTS)
    common = [
        Match(one.query, one.document, one.document_places, one.contribution)
        for one in found.words
        # Those of the instruction count from where the question begins.
        if any(start >= 0 for start, _ in one.query_places)
    ]
    weights = _weights(corpus.encoder, answer.question.text)
    close: dict[Place, Match] = {}
    for one in found.alignments:
        if not one.query_place or not one.document_place or one.similarity < _CLOSE:
            continue
        if min(one.query_place[0], one.document_place[0]) < 0:
            continue
        score = one.similarity * weights.get(one.query_place, 0.0)
        match = Match(one.query, one.document, (one.document_place,), score)
        # Little words lean on the word that another one is close to.
        if one.document_place not in close or close[one.document_place].score < score:
            close[one.document_place] = match
    return Matches(_best(common, count), _best(close.values(), count))


@lru_cache(maxsize=16)
def _weights(encoder: TextEncoder, question: str) -> dict[Place, float]:
    """How much each word of a question weighs."""
    from m3_core.explanations import explain

    itself = explain(encoder, question, question, parts=("sparse",))
    return {place: one.query_weight for one in itself.words for place in one.query_places}


def _best(matches: Iterable[Match], count: int) -> list[Match]:
    words = [one for one in matches if any(map(str.isalnum, one.query + one.document))]
    return sorted(words, key=lambda one: -one.score)[:count]
