"""Texts as they are shown: data, never markup, nor orders to a terminal."""

from __future__ import annotations

import unicodedata
from html import escape

# What orders a terminal or turns the direction of what follows is shown as a sign of its own.
_PICTURES = {code: chr(0x2400 + code) for code in range(0x20) if code not in (0x09, 0x0A)}
_PICTURES |= {0x7F: "\u2421"} | dict.fromkeys(range(0x80, 0xA0), "\ufffd")
_DIRECTIONS = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd")


def visible(text: str) -> str:
    r"""Put signs in place of characters that control something.

    Args:
        text: Any text.

    Returns:
        The same, with line breaks as single characters.

    Example:
        >>> visible("a\x1b[31m\r\nb")
        'a␛[31m\nb'
    """
    return text.replace("\r\n", "\n").translate(_PICTURES)


def on_one_line(text: str) -> str:
    r"""Put a text on one line of a terminal, in its own direction.

    Args:
        text: Any text.

    Returns:
        The line.

    Example:
        >>> on_one_line("a\tb\n\u202ec")
        'a b \ufffdc'
    """
    return visible(text).translate(_DIRECTIONS).replace("\n", " ").replace("\t", " ")


def plain(text: str, limit: int = 40) -> str:
    r"""Make one short line of a text, for a terminal.

    Args:
        text: Any text.
        limit: Characters at most.

    Returns:
        The line.

    Example:
        >>> plain("a\nb"), plain(" "), plain("x" * 9, 4)
        ('a b', '(space)', 'xxx…')
    """
    line = on_one_line(text)
    if text and not line.strip():
        return "(space)"
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def width(text: str) -> int:
    """Columns that a text takes in a terminal.

    Args:
        text: A line.

    Returns:
        Two for a wide character, none for a mark.

    Example:
        >>> width("ab"), width("熊猫"), width("e\u0301")
        (2, 4, 1)
    """
    return sum(
        0
        if unicodedata.category(c) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(c) in "WF"
        else 1
        for c in text
    )


def padded(text: str, columns: int) -> str:
    """Fill a line with spaces.

    Args:
        text: A line.
        columns: How wide it shall be in a terminal.

    Returns:
        The line, at least so wide.
    """
    return text + " " * max(columns - width(text), 0)


def escaped(text: str) -> str:
    """Make HTML of a text that shows it and does nothing else, in elements and in attributes.

    Args:
        text: Any text.

    Returns:
        HTML.

    Example:
        >>> escaped('<b title="x">')
        '&lt;b title=&quot;x&quot;&gt;'
    """
    return escape(visible(text), quote=True)


INSTRUCTION = "(instruction)"
END = "(end of text)"


def named(text: str, place: tuple[int, int] | None) -> tuple[str, str]:
    """Say what a word is, where it is none of the text's.

    Args:
        text: The word.
        place: Where it stands: ``None`` for a special token, negative within the instruction.

    Returns:
        The word as one short line, and what it is; ``""`` for a word of the text.
    """
    if place is None:
        return "", END
    return plain(text), INSTRUCTION if place[0] < 0 else ""
