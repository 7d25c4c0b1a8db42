"""A text in spans that tile it, and which of its tokens stand in which."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.explanations.words import is_gap, trimmed, units

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from m3_core.encoder import TextTokens

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a text: a word, a sign, what is between, or what the encoder did not see.

    Attributes:
        start: Its first character in the text.
        end: The one behind its last.
        text: The characters, as the text has them.
        is_word: Whether there is something to see in it.
        seen: False of what lies behind the last token that was encoded.
        sparse: What it adds to the lexical score. The score counts a token once, so of a word that
            comes several times each occurrence says the whole.
        colbert: What it adds to the multi-vector score; of all spans together, and of special
            tokens, that is the score.
        contribution: Both, times their weights in the whole score.
    """

    start: int
    end: int
    text: str
    is_word: bool
    seen: bool = True
    sparse: float = 0.0
    colbert: float = 0.0
    contribution: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Word:
    """Where a unit stands; negative places count from the end of the instruction.

    Attributes:
        place: First character and the one behind the last.
        text: The characters.
    """

    place: Place
    text: str

    @property
    def in_instruction(self) -> bool:
        """Whether it is of the instruction and not of the text."""
        return self.place[0] < 0


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """A text with its tokens, and the words that they stand in.

    Attributes:
        text: The text.
        tokens: Its tokens.
        words: Those of the instruction, then those that tile the text.
        word_of: The word that each token stands in; -1 for none. Shape: (tokens,).
        seen: How many characters were encoded, words seen in part included.
    """

    text: str
    tokens: TextTokens
    words: tuple[Word, ...]
    word_of: NDArray[np.int64]
    seen: int

    @classmethod
    def of(cls, text: str, instruction: str, tokens: TextTokens) -> Located:
        """Cut a text into words.

        Args:
            text: The text.
            instruction: What stands before it.
            tokens: The tokens of both.

        Returns:
            Words and tokens.
        """
        before = len(instruction)
        starts, ends = tokens.places[:, 0], tokens.places[:, 1]
        is_inside = ends > np.maximum(starts, 0)
        is_before = (starts < ends) & (ends <= 0)
        inside = _trimmed(text, np.maximum(tokens.places[is_inside], 0))
        in_front = _trimmed(instruction, tokens.places[is_before] + before)
        cuts = units(text, inside, truncated=tokens.truncated)
        words = [
            *_words(instruction, units(instruction, in_front), -before),
            *_words(text, cuts, 0),
        ]
        word_of = np.full(len(starts), -1, np.int64)
        bounds = np.array([word.place[0] for word in words], np.int64)
        word_of[is_inside] = np.searchsorted(bounds, inside[:, 0], side="right") - 1
        word_of[is_before] = np.searchsorted(bounds, in_front[:, 0] - before, side="right") - 1
        seen = len(text)
        if tokens.truncated:
            seen = next((at for at in cuts if at >= inside[:, 1].max(initial=0)), 0)
        return cls(text, tokens, tuple(words), word_of, seen)

    def spans(
        self, sparse: Mapping[int, float], colbert: Mapping[int, float], weights: Sequence[float]
    ) -> tuple[Span, ...]:
        """Tile the text.

        Args:
            sparse: What words, by number, add to the lexical score.
            colbert: What they add to the multi-vector score.
            weights: Of both in the whole score.

        Returns:
            Spans whose texts, one after another, are the text.
        """
        return tuple(
            Span(
                *word.place,
                text=word.text,
                is_word=not is_gap(word.text),
                seen=word.place[1] <= self.seen,
                sparse=(own := sparse.get(number, 0.0)),
                colbert=(other := colbert.get(number, 0.0)),
                contribution=weights[0] * own + weights[1] * other,
            )
            for number, word in enumerate(self.words)
            if not word.in_instruction
        )


def _trimmed(text: str, places: NDArray[np.int64]) -> NDArray[np.int64]:
    rows = [trimmed(text, start, end) for start, end in places.tolist()]
    return np.array(rows, np.int64).reshape(-1, 2)


def _words(text: str, cuts: list[int], shift: int) -> list[Word]:
    return [
        Word((start + shift, end + shift), text[start:end])
        for start, end in itertools.pairwise(cuts)
    ]
