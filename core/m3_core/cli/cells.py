"""Texts of any script in columns of a terminal.

Terminals do not agree how wide a vowel sign of Hindi is, and rich counts none. Here each is counted
as the terminals do that give it most room, so that no line is longer than it may be.
"""

from __future__ import annotations

import re
from functools import lru_cache
from unicodedata import category, east_asian_width

from rich.cells import cell_len
from rich.text import Text

_WORD = re.compile(r"\s+|\S+")


@lru_cache(maxsize=4096)
def _cells(character: str) -> int:
    if category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def width_of(text: str) -> int:
    """Count the columns that a text may take.

    Args:
        text: One line.

    Returns:
        Columns, rather too many than too few.

    Example:
        >>> width_of("abc"), width_of("大熊猫"), width_of("टीका")
        (3, 6, 4)
    """
    return max(cell_len(text), sum(map(_cells, text)))


def cut(text: str, width: int) -> str:
    """Shorten a text to a width, with an ellipsis where something is missing.

    Args:
        text: One line.
        width: Columns at most.

    Returns:
        The text, or its beginning.

    Example:
        >>> cut("大熊猫吃竹子", 8)
        '大熊猫…'
    """
    if width_of(text) <= width:
        return text
    end = len(text)
    while end and width_of(text[:end]) >= width:
        end -= 1
    # What sits on a letter goes with it.
    while end and category(text[end])[0] == "M":
        end -= 1
    return text[:end].rstrip() + "…"


def wrap(text: Text, width: int) -> Text:
    """Break a text into lines, between words or between ideographs.

    Args:
        text: Without line ends.
        width: Columns of a line at most; a word that is longer stays whole.

    Returns:
        The text with line ends and its styles.
    """
    plain, breaks, used = text.plain, [0], 0
    for start, end in _pieces(plain):
        room = width_of(plain[start:end].rstrip())
        if used and used + room > width and plain[start:end].strip():
            breaks.append(start)
            used = 0
        used += width_of(plain[start:end])
    lines = text.divide(breaks[1:])
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def _pieces(text: str) -> list[tuple[int, int]]:
    """Where a line may end: behind each word, and around ideographs."""
    pieces: list[tuple[int, int]] = []
    for word in _WORD.finditer(text):
        start = word.start()
        for at in range(start + 1, word.end()):
            is_wide = _cells(text[at]) == 2 or _cells(text[at - 1]) == 2
            # No line begins with a mark of punctuation.
            if is_wide and category(text[at])[0] not in "MP":
                pieces.append((start, at))
                start = at
        pieces.append((start, word.end()))
    return pieces
