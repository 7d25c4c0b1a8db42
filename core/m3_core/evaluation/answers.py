"""Whether a document contains an answer, as MKQA is evaluated with M3-Embedding.

A document counts for a question if it contains one of its answers, word for word: both are put
into NFD and lower case and cut into words and signs (RocketQA, NAACL 2021; DPR's tokenizer).
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_SPELLINGS = {
    "-": "‐‑⁃‒–—―−－⁻",
    '"': "“”„‟",
    "'": "‘’‚‛՚Ꞌꞌ＇`´′‵",
    "/": "⁄∕",
    "''": "″‶",
    "'''": "‴‷",
    "''''": "⁗",
    "...": "…",
    " ": "\x0b\x0c\x85",
}
_TABLE = str.maketrans(
    {sign: to for to, signs in _SPELLINGS.items() for sign in signs}
    | {chr(code): None for code in (*range(1, 9), 14, 15, *range(17, 28), 0xAD)}
)
_BETWEEN = "\x00"


def plain_text(text: str) -> str:
    """Write dashes, quotation marks and the like in ASCII, and everything in lower case.

    Args:
        text: Any text.

    Returns:
        The text as the corpus of MKQA is encoded.

    Example:
        >>> plain_text("The “Panda” — 1869…")
        'the "panda" - 1869...'
    """
    return text.translate(_TABLE).lower()


def contains(text: str, answers: Iterable[str]) -> bool:
    """Say whether a text contains one of some answers, as whole words.

    Args:
        text: A document.
        answers: Short answers; one without any word is in no text.

    Returns:
        Whether it does.

    Example:
        >>> contains("Pandas eat 38 kg of bamboo.", ["bamboo"]), contains("Pandas", ["panda"])
        (True, False)
    """
    return contains_words(words_of(text), [words_of(answer) for answer in answers])


def words_of(text: str) -> str:
    """Cut a text into words and signs.

    Args:
        text: Any text.

    Returns:
        They, with a mark before, between and after them; only marks if there are none.

    Example:
        >>> words_of("Bamboo!").split(chr(0))
        ['', 'bamboo', '!', '']
    """
    found = _pattern().findall(unicodedata.normalize("NFD", text))
    return _BETWEEN + "".join(word.lower() + _BETWEEN for word in found)


def contains_words(text: str, answers: Iterable[str]) -> bool:
    """Do ``contains`` for what ``words_of`` gave.

    Args:
        text: Words of a document.
        answers: Words of answers.

    Returns:
        Whether it contains one.
    """
    return any(answer != _BETWEEN and answer in text for answer in answers)


@lru_cache(maxsize=1)
def _pattern() -> re.Pattern[str]:
    """Runs of letters, digits and marks, or any single sign that is neither space nor control."""
    ranges: dict[str, list[list[int]]] = {"LNM": [], "ZC": []}
    for code in range(sys.maxunicode + 1):
        kind = unicodedata.category(chr(code))[0]
        for kinds, listed in ranges.items():
            if kind in kinds:
                if listed and listed[-1][1] == code - 1:
                    listed[-1][1] = code
                else:
                    listed.append([code, code])
    words, blanks = (
        "".join(rf"\U{first:08x}-\U{last:08x}" for first, last in listed)
        for listed in ranges.values()
    )
    return re.compile(f"[{words}]+|[^{blanks}]")
