"""Blocks put together, or cut, into passages that a model reads whole."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from m3_core.folder_index.blocks import Block

    TokenCounter = Callable[[Sequence[str], int], list[int]]

# Where a long paragraph may be cut, the best places first: lines, sentences, words.
_CUTS = (
    re.compile(r"\n+"),
    re.compile(r"(?<=[.!?…])[\"'»”’)\]]*\s+|(?<=[。！？｡।॥])"),
    re.compile(r"\s+"),
)
_WIDE = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]"
)
# Of the tokens of a passage, so many at most are headings.
_HEADING_SHARE = 4
_CHARACTERS_PER_TOKEN = 4
BETWEEN = "\n\n"


@dataclass(frozen=True, slots=True)
class Passage:
    """What is encoded and found as one.

    Attributes:
        text: The headings above it and what it says.
        heading: These headings in one line; ``""`` without any.
        line: Its first line in the file, counted from 1.
        end_line: Its last one.
    """

    text: str
    heading: str
    line: int
    end_line: int


def estimated_tokens(texts: Sequence[str], limit: int) -> list[int]:
    """Count tokens roughly, where nothing counts them exactly.

    Args:
        texts: The texts.
        limit: Not needed: numbers above it need not be right.

    Returns:
        One number a text: a token for each character of a script without spaces, and for each
        four bytes of the others' UTF-8.

    Example:
        >>> estimated_tokens(["Pandas eat bamboo.", "大熊猫吃竹子"], 512)
        [5, 6]
    """
    counts = []
    for text in texts:
        wide = len(_WIDE.findall(text))
        counts.append(wide + (len(text.encode("utf-8", "replace")) - 3 * wide + 3) // 4)
    return counts


def passages_of(blocks: Sequence[Block], limit: int, count: TokenCounter) -> list[Passage]:
    """Put blocks under the same headings together as long as they stay below a limit.

    Longer ones are cut between lines, else sentences, else words, else anywhere.

    Args:
        blocks: In the order of the file.
        limit: Tokens a passage at most, headings included.
        count: Gives the number of tokens of texts, without special tokens; above the second
            argument any number above it.

    Returns:
        The passages; all text of the blocks is in one of them.
    """
    found: list[Passage] = []
    for headings, group in groupby(blocks, lambda one: one.headings):
        heading = _heading(headings, limit, count)
        room = max(limit - (count([heading + BETWEEN], limit)[0] if heading else 0), 1)
        for pieces in _packed(list(group), room, count):
            body = BETWEEN.join(one.text.strip("\n").rstrip() for one in pieces)
            text = f"{heading}{BETWEEN}{body}" if heading else body
            found.append(Passage(text, heading, pieces[0].line, pieces[-1].end_line))
    return found


def body_of(text: str, heading: str) -> str:
    """Take the headings away from the text of a passage.

    Args:
        text: As of ``Passage``.
        heading: Likewise.

    Returns:
        What stands in the file.
    """
    return text.removeprefix(heading + BETWEEN) if heading else text


def _heading(headings: Sequence[str], limit: int, count: TokenCounter) -> str:
    """Headings in one line, without the highest where they would fill the passage."""
    most = max(limit // _HEADING_SHARE, 1)
    for first in range(len(headings)):
        heading = " > ".join(headings[first:])
        if count([heading], most)[0] <= most:
            return heading
    return headings[-1][:most].strip() if headings else ""


def _packed(blocks: list[Block], room: int, count: TokenCounter) -> Iterator[list[Block]]:
    held: list[Block] = []
    size = 0
    for block, tokens in _cut(blocks, room, count):
        # One more for the line breaks between them.
        if held and size + tokens + 1 > room:
            yield held
            held, size = [], 0
        held.append(block)
        size += tokens + (len(held) > 1)
    if held:
        yield held


def _cut(
    blocks: Sequence[Block], room: int, count: TokenCounter, depth: int = 0
) -> Iterator[tuple[Block, int]]:
    """Cut blocks that are too long, and give all with their numbers of tokens."""
    counts = count([one.text for one in blocks], room)
    for block, tokens in zip(blocks, counts, strict=True):
        if tokens <= room or len(block.text) == 1:
            yield block, tokens
        else:
            yield from _regrouped(
                list(_cut(_pieces(block, room, depth), room, count, depth + 1)), room
            )


def _regrouped(pieces: list[tuple[Block, int]], room: int) -> Iterator[tuple[Block, int]]:
    """Join the pieces of a block that fit into one passage, as they stood in it."""
    held, size = pieces[0]
    for piece, tokens in pieces[1:]:
        if size + tokens <= room:
            held = replace(held, text=held.text + piece.text, end_line=piece.end_line)
            size += tokens
        else:
            yield held, size
            held, size = piece, tokens
    yield held, size


def _pieces(block: Block, room: int, depth: int) -> list[Block]:
    """Cut a block at the best places there are; each piece keeps what follows it."""
    text = block.text
    bounds = [0, len(text)]
    if depth < len(_CUTS):
        bounds = sorted({0, len(text), *(one.end() for one in _CUTS[depth].finditer(text))})
    if len(bounds) == 2 and depth >= len(_CUTS):
        step = max(min(len(text) // 2, room * _CHARACTERS_PER_TOKEN), 1)
        bounds = [*range(0, len(text), step), len(text)]
    found, line = [], block.line
    for start, end in pairwise(bounds):
        piece = text[start:end]
        inside = piece.rstrip("\n").count("\n") if block.has_lines else 0
        last = line + inside if block.has_lines else block.end_line
        found.append(replace(block, text=piece, line=line, end_line=last))
        if block.has_lines:
            line += piece.count("\n")
    return found
