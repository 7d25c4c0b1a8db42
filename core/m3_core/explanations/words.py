"""A text's units: words, and where a script has no spaces, what its tokens make of it.

Nothing here decodes tokens. A unit is never less than what a reader sees as one character (UAX
#29's grapheme clusters), nor less than a word of a script with spaces, nor less than a token that
reaches into it.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["space", "control", "word", "unspaced", "other", "mark", "joiner", "flag"]

_GAPS = ("space", "control")

# Scripts that put no spaces between words: kana, Han, Bopomofo, Yi, Thai, Lao, Tibetan, Myanmar,
# Khmer, Tai Le, New Tai Lue, Tai Tham, and the ideographs beyond the basic plane.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u2e80-\u2fdf"
    "\u3005-\u3007\u3021-\u3029\u3031-\u303c\u3041-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\ua000-\ua4cf\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)
# Spacing marks that are letters to Unicode: Thai and Lao AM.
_AM = "\u0e33\u0eb3"
# What belongs to the character behind it.
_PREPENDED = (
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e\U000110bd"
    "\U000110cd\U000111c2\U000111c3\U0001193f\U00011941\U00011a84\U00011a85\U00011a86"
    "\U00011a87\U00011a88\U00011a89\U00011d46\U00011f02"
)
# A mark by which a consonant joins the next: its canonical combining class.
_VIRAMA = 9
# Of Hangul: letters that begin a syllable, those that go on one, and all with whole syllables.
_LEAD = re.compile("[\u1100-\u115f\ua960-\ua97c]")
_TAIL = re.compile("[\u1160-\u11ff\ud7b0-\ud7fb]")
_SYLLABLE = re.compile("[\u1100-\u11ff\ua960-\ua97c\uac00-\ud7fb]")
# Within a word if letters, or digits, stand on both sides.
_BETWEEN_LETTERS = "'’·‧׳״ʼ"
_BETWEEN_DIGITS = ".,٫٬'"
# SentencePiece's mark of a space may be in the text itself.
_SPACE_MARK = "\u2581"
_SPACE = re.compile(r"\s")


@lru_cache(maxsize=1 << 14)
def kind_of(character: str) -> Kind:
    """Say what a character does to the bounds around it.

    Args:
        character: One character.

    Returns:
        Its kind.
    """
    code = ord(character)
    if code in (0x200C, 0x200D):
        return "joiner"
    if 0x1F1E6 <= code <= 0x1F1FF:
        return "flag"
    category = unicodedata.category(character)
    is_mark = category[0] == "M" or 0x1F3FB <= code <= 0x1F3FF or 0xE0020 <= code <= 0xE007F
    if is_mark or character in _AM or 0xFF9E <= code <= 0xFF9F:
        return "mark"
    if category == "Zs":
        return "space"
    if category in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _PREPENDED:
        return "control"
    if _UNSPACED.match(character) and category[0] in "LN":
        return "unspaced"
    is_word = category[0] in "LN" or category == "Pc" or character in _PREPENDED
    return "word" if is_word else "other"


def clusters(text: str) -> list[int]:
    """Cut a text into what a reader sees as single characters.

    Args:
        text: The text.

    Returns:
        Where each begins, ascending from 0, and the text's length; ``[0]`` of an empty one.

    Example:
        >>> clusters("e\u0301x👨‍👩‍👧🇩🇪")
        [0, 2, 3, 8, 10]
    """
    starts = [0] if text else []
    flags, is_linked = 0, False
    for i in range(1, len(text)):
        before, kind = kind_of(text[i - 1]), kind_of(text[i])
        flags = flags + 1 if before == "flag" else 0
        is_linked = unicodedata.combining(text[i - 1]) == _VIRAMA or (
            is_linked and before in ("mark", "joiner")
        )
        if "control" in (before, kind):
            joined = text[i - 1 : i + 1] == "\r\n"
        elif kind in ("mark", "joiner"):
            joined = True
        elif kind == "flag" and before == "flag":
            joined = flags % 2 == 1
        else:
            is_conjunct = is_linked and kind in ("word", "unspaced")
            joined = is_conjunct or _is_one(text[i - 1], text[i])
        if not joined:
            starts.append(i)
    return [*starts, len(text)]


def _is_one(before: str, after: str) -> bool:
    """Whether two characters that are no marks are seen as one."""
    if before == "\u200d":
        return kind_of(after) == "other"
    return before in _PREPENDED or _is_syllable(before, after)


def _is_syllable(before: str, after: str) -> bool:
    """Whether two letters of Hangul belong to one syllable."""
    if _LEAD.match(before):
        return bool(_SYLLABLE.match(after))
    return bool(_SYLLABLE.match(before) and _TAIL.match(after))


def _joins(text: str, starts: list[int], n: int) -> bool:
    """Whether the cluster number ``n`` goes on the word, or the gap, of the one before it."""
    at = starts[n]
    left, right = kind_of(text[starts[n - 1]]), kind_of(text[at])
    if left in _GAPS or right in _GAPS:
        return left in _GAPS and right in _GAPS
    if left == right == "word":
        return True
    if right == "other" and left == "word" and n + 2 < len(starts):
        return _links(text[starts[n - 1]], text[at], text[starts[n + 1]])
    if left == "other" and right == "word" and n >= 2:
        return _links(text[starts[n - 2]], text[starts[n - 1]], text[at])
    return False


def _links(before: str, middle: str, after: str) -> bool:
    if before.isdigit() and after.isdigit():
        return middle in _BETWEEN_DIGITS
    is_between = kind_of(before) == kind_of(after) == "word"
    return is_between and middle in _BETWEEN_LETTERS


def is_gap(text: str) -> bool:
    """Whether a text has nothing but white space and characters that are not seen.

    Args:
        text: The text.

    Returns:
        True of an empty one too.
    """
    return all(kind_of(c) in _GAPS for c in text)


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Take what is no letter to a reader from both ends of a token's place.

    Args:
        text: The text.
        start: The token's first character.
        end: The one behind its last.

    Returns:
        Another place; the same if nothing would be left.
    """
    first, last = start, end
    while first < last and (text[first] == _SPACE_MARK or is_gap(text[first])):
        first += 1
    while first < last and (text[last - 1] == _SPACE_MARK or is_gap(text[last - 1])):
        last -= 1
    return (first, last) if first < last else (start, end)


def units(text: str, places: NDArray[np.int64], *, truncated: bool = False) -> list[int]:
    """Cut a text into words, gaps and single signs, so that each token lies within one of them.

    Args:
        text: The text.
        places: Of its tokens, within the text, ``trimmed``. Shape: (tokens, 2).
        truncated: What is behind the last token was not seen: it is one unit, but for the rest of
            a word that was seen in part.

    Returns:
        Where each unit begins, ascending from 0, and the text's length; ``[0]`` of an empty one.

    Example:
        >>> units("Don't panic: 3.5 m", np.zeros((0, 2), np.int64))
        [0, 5, 6, 11, 12, 13, 16, 17, 18]
        >>> units("自然语言", np.array([[0, 2], [2, 4]]))
        [0, 2, 4]
    """
    if not text:
        return [0]
    seen = len(text)
    if truncated:
        seen = int(places[:, 1].max(initial=0))
        space = _SPACE.search(text, seen)
        part = text[: len(text) if space is None else space.start()]
    else:
        part = text
    starts = clusters(part)
    bounds = np.array(starts, np.int64)
    joined = np.zeros(len(starts), bool)
    joined[1:-1] = [_joins(part, starts, n) for n in range(1, len(starts) - 1)]
    for start, end in places.tolist():
        if start < end:
            low = int(np.searchsorted(bounds, start, side="right"))
            joined[low : int(np.searchsorted(bounds, end, side="left"))] = True
    kept: list[int] = bounds[~joined].tolist()
    if truncated:
        kept = [at for at in kept if at < seen or at == 0]
        behind = next((at for at in bounds[~joined].tolist() if at >= seen), len(part))
        if 0 < behind < len(text):
            kept.append(behind)
        kept.append(len(text))
    return kept
