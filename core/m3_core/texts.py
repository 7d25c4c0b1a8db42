"""Checking what callers pass as texts, before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


# Where frameworks' documents and nodes hold their text.
_TEXTS_OF = ("page_content", "text")


class CheckedTexts(list[str]):
    """Texts that ``check_texts`` has let pass, so that whoever gets them need not look again.

    A list that is made of it, as a part or with something put before, is a plain one. Not to be
    changed, nor handed to users.
    """


class DistinctTexts(CheckedTexts):
    """Checked texts of which none comes twice."""


def check_texts(texts: Iterable[str], first: int = 0) -> CheckedTexts:
    """Return the texts as a list, or say which of them cannot be encoded.

    Args:
        texts: Strings; a single string is refused, since its letters would pass for texts, and
            so is a mapping, since its keys would.
        first: Position of the first of them in the whole, for the error text.

    Returns:
        The texts; the very same list if they were checked before.

    Raises:
        TypeError: An element, or the whole, is not what it should be.
        ValueError: A text holds a lone surrogate, which no UTF-8 text can.
    """
    if isinstance(texts, CheckedTexts):
        return texts
    check_several(texts)
    checked = CheckedTexts(texts)
    for position, text in enumerate(checked, start=first):
        if not isinstance(text, str):
            held = next((name for name in _TEXTS_OF if _is_text(text, name)), None)
            raise TypeError(
                f"text {position} is of type {type(text).__name__}; it must be a str"
                f"{f': pass its {held}' if held else ''}"
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"text {position} holds the lone surrogate {text[error.start]!r} at character "
                f"{error.start}: decode its source with errors='replace'"
            ) from error
    return checked


def check_several(texts: Iterable[str]) -> None:
    """Say whether these can be texts at all, without reading them.

    Args:
        texts: As of ``check_texts``.

    Raises:
        TypeError: It is a single text, a mapping, or nothing to iterate over.
    """
    if isinstance(texts, (str, bytes, Mapping)) or not isinstance(texts, Iterable):
        instead = "pass its values" if isinstance(texts, Mapping) else "wrap a single text"
        raise TypeError(
            f"texts must be a list or another iterable of str; got {type(texts).__name__}: "
            f"{instead} in a list"
        )


def _is_text(holder: Any, name: str) -> bool:
    return isinstance(getattr(holder, name, None), str)


class CheckedPairs(list[tuple[str, str]]):
    """Pairs whose texts were checked, so that ``check_pairs`` does not look again."""


def pairs_of(query: str, documents: Iterable[str]) -> CheckedPairs:
    """Pair a query with documents.

    Args:
        query: The query.
        documents: The documents.

    Returns:
        One pair a document.

    Raises:
        TypeError: A text is no string.
        ValueError: A text holds a lone surrogate.
    """
    (checked,) = check_texts([query])
    return CheckedPairs((checked, document) for document in check_texts(documents))


def check_pairs(pairs: Iterable[tuple[str, str]]) -> tuple[CheckedTexts, CheckedTexts]:
    """Return the queries and the documents of pairs, or say which pair is none.

    Args:
        pairs: (query, document) tuples or lists, or an array of them; a single pair is refused.

    Returns:
        As many queries as documents.

    Raises:
        TypeError: An element is no pair of strings.
        ValueError: A text holds a lone surrogate.
    """
    if isinstance(pairs, CheckedPairs):
        return CheckedTexts(one for one, _ in pairs), CheckedTexts(one for _, one in pairs)
    if isinstance(pairs, np.ndarray):
        pairs = pairs.tolist()
    if isinstance(pairs, (str, bytes)) or not isinstance(pairs, Iterable):
        raise TypeError(f"pairs must be a list of (query, document); got {type(pairs).__name__}")
    checked: list[Any] = list(pairs)
    for position, pair in enumerate(checked):
        if isinstance(pair, (str, bytes)) or not isinstance(pair, Sequence):
            raise TypeError(
                f"pair {position} must be (query, document); got {type(pair).__name__}: "
                "put a single pair into a list, pair two lists by zip(queries, documents)"
            )
        if len(pair) != 2:
            raise TypeError(f"pair {position} must be (query, document); got {len(pair)} elements")
    queries, documents = zip(*checked, strict=True) if checked else ((), ())
    return check_texts(queries), check_texts(documents)


def distinct(texts: CheckedTexts) -> tuple[NDArray[np.int64], DistinctTexts]:
    """Number equal texts alike, so that each need be computed only once.

    Args:
        texts: Of ``check_texts``.

    Returns:
        For each text the row of its equal among the distinct ones, shape (texts,), and the
        distinct texts in order of first appearance; the very same list if all are.

    Example:
        >>> rows, kept = distinct(check_texts(["b", "a", "b"]))
        >>> rows.tolist(), kept
        ([0, 1, 0], ['b', 'a'])
    """
    if isinstance(texts, DistinctTexts):
        return np.arange(len(texts)), texts
    numbers: dict[str, int] = {}
    rows = [numbers.setdefault(text, len(numbers)) for text in texts]
    return np.array(rows, np.int64), DistinctTexts(numbers)
