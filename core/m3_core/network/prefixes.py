"""The first tokens of a long text, from a part of it: equal to the whole text's.

Normalisation comes first and may let a text grow: one ligature of Arabic (U+FDFA) becomes 18
letters. So a part is measured by what it may become.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer as RawTokenizer

# Longest piece of any known vocabulary, and longest word that WordPiece splits.
LONGEST_PIECE = 24
LONGEST_WORD = 128
# So many characters are looked through for one behind which normalisation begins anew.
_CUTS = 64
# Characters that become more than 5 by NFKC (Unicode 16), and more than any of them becomes.
_GROWING = re.compile("[\u320e-\u321e\u3300-\u3357\u33a8-\u33af\ufdfa\ufdfb]")
_GROWTH = 18


def grown(text: str) -> int:
    """How many characters a text may have after normalisation, apart from small factors.

    Args:
        text: The text.

    Returns:
        Its length, and more for characters that become many.

    Example:
        >>> grown("panda"), grown("\ufdfa")
        (5, 18)
    """
    if text.isascii():
        return len(text)
    return len(text) + (_GROWTH - 1) * len(_GROWING.findall(text))


def part_of(text: str, bound: int) -> int:
    """Where to cut a text so that not much more than ``bound`` characters come of its beginning.

    Args:
        text: A text that may become more than twice as long.
        bound: How many characters.

    Returns:
        A position, ``bound`` or a fraction of it.
    """
    end = bound
    while end > 2 * LONGEST_PIECE and grown(text[:end]) > 2 * bound:
        end //= 2
    return end


def stable_ids(raw: RawTokenizer, text: str, end: int) -> list[int]:
    """Tokens of the beginning of a text without white space that no continuation can change.

    Words are tokenised on their own, so those before the last one are final. Of the last one:
    Unigram's best path up to a position does not depend on what follows, and the best path of the
    whole word passes through one of any ``LONGEST_PIECE`` consecutive positions: what the best
    paths to all of those share is final. WordPiece may still change its last word.

    Args:
        raw: The tokenizer.
        text: The text, longer than ``end``.
        end: About where the beginning ends.

    Returns:
        Their ids; none if there is no place to cut.
    """
    at = _separable(raw, text, end)
    if not at:
        return []
    encoding = raw.encode(text[:at], add_special_tokens=False)
    ids: list[int] = encoding.ids
    words = encoding.word_ids
    if not ids or words[-1] is None:
        return []
    first = next((i for i in range(len(ids), 0, -1) if words[i - 1] != words[-1]), 0)
    normal = text[:at] if raw.normalizer is None else raw.normalizer.normalize_str(text[:at])
    last = normal
    if raw.pre_tokenizer is not None:
        last = raw.pre_tokenizer.pre_tokenize_str(normal)[-1][0]
    if len(last) < LONGEST_PIECE or _path(raw, last) != ids[first:]:
        return ids[:first]
    shared = np.array(ids[first:])
    for i in range(1, LONGEST_PIECE):
        path = np.array(_path(raw, last[: len(last) - i]))
        shared = shared[: len(path)]
        differs = np.flatnonzero(shared != path[: len(shared)])
        shared = shared[: differs[0]] if len(differs) else shared
        if len(shared) <= LONGEST_WORD:
            # As of one letter over and over: what comes first depends on how often it comes.
            return ids[:first]
    return ids[: first + len(shared) - LONGEST_WORD]


def places_of(raw: RawTokenizer, text: str, ids: list[int]) -> NDArray[np.int64]:
    """Say where the first tokens of a text stand in it.

    Args:
        raw: The tokenizer, which neither truncates nor pads.
        text: The text, however long.
        ids: Its first tokens without special ones, or all.

    Returns:
        Of each token its first character and the one behind its last. Shape: (tokens, 2).
        Dtype: int64.
    """
    size = max(len(ids), LONGEST_WORD) * LONGEST_PIECE
    while True:
        # A part of the text tells as much if the same tokens come of it.
        encoding = raw.encode(text[:size], add_special_tokens=False)
        if size >= len(text) or (len(encoding.ids) > len(ids) and encoding.ids[: len(ids)] == ids):
            break
        size *= 4
    places = np.array(encoding.offsets[: len(ids)], np.int64).reshape(-1, 2)
    return np.minimum(places, len(text))


def _path(raw: RawTokenizer, word: str) -> list[int]:
    return [token.id for token in raw.model.tokenize(word)]


def _separable(raw: RawTokenizer, text: str, end: int) -> int | None:
    """A place near ``end`` before and behind which the text is normalised on its own."""
    if raw.normalizer is None:
        return end
    normal = raw.normalizer.normalize_str
    # What some tokenizers put before every text.
    lead = normal("a").removesuffix("a")
    for at in range(end, max(end - _CUTS, LONGEST_PIECE), -1):
        left, right = text[at - LONGEST_PIECE : at], text[at : at + LONGEST_PIECE]
        # A mark may wander to before any number of other marks.
        if unicodedata.combining(unicodedata.normalize("NFKD", right[0])[0]):
            continue
        if normal(left + right) == normal(left) + normal(right).removeprefix(lead):
            return at
    return None
