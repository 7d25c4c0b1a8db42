"""Which words of a passage a query is about, and which piece of it to show."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WORD = re.compile(r"\w[\w\u0300-\u036f\u0900-\u0dff]*")
# Scripts without spaces between words.
_RUN = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
)
# Words of a query below so much of its largest lexical weight say little.
_TELLING = 0.6
# Endings may differ behind so much of a word, and behind so many letters.
_STEM_SHARE, _STEM_LETTERS = 0.75, 4


@dataclass(frozen=True, slots=True)
class QueryWords:
    """What of a query is looked for in passages.

    Attributes:
        words: Words, folded.
        pieces: Strings of scripts without spaces.
    """

    words: tuple[str, ...]
    pieces: tuple[str, ...]

    @classmethod
    def of(cls, query: str, weights: Mapping[str, float] | None = None) -> QueryWords:
        """Choose the telling words of a query.

        Args:
            query: The query.
            weights: Lexical weights of its tokens, by their texts; words all of whose tokens
                weigh little are left out.

        Returns:
            The words.

        Example:
            >>> QueryWords.of("What do pandas eat?", {"Wha": 0.1, "do": 0.02, "panda": 0.3}).words
            ('pandas',)
        """
        pieces: list[str] = []
        for run in _RUN.findall(query):
            pieces += [run[i : i + 2] for i in range(len(run) - 1)] or [run]
        words = [_folded(one) for one in _WORD.findall(_RUN.sub(" ", query))]
        if weights:
            known = {_folded(token): weight for token, weight in weights.items() if token.strip()}
            least = _TELLING * max(known.values(), default=0.0)
            told = [one for one in words if _weight(one, known) >= least]
            words = told or words
        return cls(tuple(dict.fromkeys(words)), tuple(dict.fromkeys(pieces)))


def matches(words: QueryWords, text: str) -> list[tuple[int, int]]:
    """Find the words of a query in a text.

    Args:
        words: The words.
        text: The text.

    Returns:
        Start and end of each in characters, ascending, none within another.

    Example:
        >>> text = "A panda eats 大熊猫."
        >>> [text[a:b] for a, b in matches(QueryWords.of("Pandas 熊猫"), text)]
        ['panda', '熊猫']
    """
    found = [
        (match.start(), match.end())
        for match in _WORD.finditer(text)
        if words.words and any(_is_like(_folded(match[0]), one) for one in words.words)
    ]
    for piece in words.pieces:
        found += [(one.start(), one.end()) for one in re.finditer(re.escape(piece), text)]
    joined: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if joined and start <= joined[-1][1] and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def window(text: str, spans: Sequence[tuple[int, int]], width: int) -> tuple[int, int]:
    """Choose the piece of a text with the most of some spans.

    Args:
        text: The text.
        spans: Of ``matches``.
        width: Characters of the piece, about.

    Returns:
        Its start and end, at the borders of words where these are near.
    """
    if len(text) <= width:
        return 0, len(text)
    lead = width // 5
    starts = sorted({0, *(max(start - lead, 0) for start, _ in spans)})
    best = max(starts, key=lambda one: (_distinct(text, spans, one, one + width), -one))
    start, end = best, min(best + width, len(text))
    start = max(end - width, 0) if end == len(text) else start
    return _border(text, start), _border(text, end)


def _distinct(text: str, spans: Sequence[tuple[int, int]], start: int, end: int) -> int:
    return len({_folded(text[a:b]) for a, b in spans if a >= start and b <= end})


def _border(text: str, place: int) -> int:
    """The nearest end of a word before a place, if there is one near."""
    if place in (0, len(text)):
        return place
    space = max(
        text.rfind(" ", max(place - 24, 0), place), text.rfind("\n", max(place - 24, 0), place)
    )
    return place if space < 0 else space + 1


def _folded(word: str) -> str:
    """A word without case and accents."""
    parts = unicodedata.normalize("NFKD", word.casefold())
    return "".join(one for one in parts if not "\u0300" <= one <= "\u036f")


def _weight(word: str, known: Mapping[str, float]) -> float:
    return max((weight for token, weight in known.items() if token.strip() in word), default=0.0)


def _is_like(word: str, other: str) -> bool:
    if word == other:
        return True
    shared = max(_STEM_LETTERS, int(_STEM_SHARE * max(len(word), len(other)) + 0.5))
    return len(word) >= shared and len(other) >= shared and word[:shared] == other[:shared]
