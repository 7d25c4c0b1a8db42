"""The filter language of retrievers and stores as filters of Qdrant."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from qdrant_client import models

from m3_core.errors import FilterError
from m3_core.expressions import (
    EXACT,
    And,
    Compares,
    Contains,
    Equals,
    Expression,
    Function,
    HasText,
    IsEmpty,
    Not,
    OneOf,
    Or,
    Scalar,
)
from m3_core.filters import parse_filter

Where = models.Filter | Mapping[str, Any] | Expression
"""What the store takes as a filter."""


def qdrant_filter(
    where: Where | None, metadata_key: str | None = "metadata"
) -> models.Filter | None:
    """Make a filter of Qdrant, which finds what the expression passes in memory.

    What Qdrant cannot express is an error: functions, the order of strings, text matches that
    ignore case (its own work on tokens), numbers from 2**53 on in comparisons, keys with a
    quotation mark; and text matches, where the client has no ``MatchSubstring``.

    Args:
        where: Such a filter, or one that ``m3_core.filters`` reads.
        metadata_key: The key of metadata in the payload; None if they are the payload.

    Returns:
        The filter; None for None.

    Raises:
        TypeError: It is none of them.
        FilterError: It is not of the language, or Qdrant cannot express it.

    Example:
        >>> qdrant_filter({"language": "de"}).must[0].key
        'metadata.language'
    """
    if where is None or isinstance(where, models.Filter):
        return where
    if not isinstance(where, (Mapping, Expression)) and not callable(where):
        raise TypeError(
            f"filter must be a qdrant_client.models.Filter or a mapping of metadata; "
            f"got {type(where).__name__}"
        )
    return _all(_Translation(metadata_key).condition(parse_filter(where)))


class _Translation:
    """From expressions to conditions, over one payload key.

    Args:
        metadata_key: The key of metadata in the payload; None if they are the payload.
    """

    def __init__(self, metadata_key: str | None) -> None:
        self.prefix = "" if metadata_key is None else f"{_quoted(metadata_key)}."

    def condition(self, where: Expression) -> models.Condition:
        """Translate an expression.

        Args:
            where: The expression.

        Returns:
            The condition.
        """
        if isinstance(where, And):
            return models.Filter(must=[self.condition(part) for part in where.parts])
        if isinstance(where, Or):
            return _any([self.condition(part) for part in where.parts])
        if isinstance(where, Not):
            return models.Filter(must_not=[self.condition(where.part)])
        if isinstance(where, Function):
            raise FilterError(
                "a function cannot be sent to Qdrant as a filter: write a mapping of metadata, or "
                "pass a qdrant_client.models.Filter"
            )
        return self._leaf(where)

    def _leaf(self, where: Expression) -> models.Condition:
        if isinstance(where, Equals):
            return _equals(where.key, self._path(where.key), where.value)
        if isinstance(where, OneOf):
            return _one_of(where.key, self._path(where.key), where.values)
        if isinstance(where, Compares):
            return _compares(where, self._path(where.key))
        if isinstance(where, HasText):
            if where.ignore_case:
                raise FilterError(
                    f"Qdrant cannot look for a text in {where.key!r} without regard to case: "
                    f"pass a qdrant_client.models.Filter with MatchText, which compares tokens"
                )
            return _substring(where.key, self._path(where.key), where.text)
        if isinstance(where, Contains):
            return _contains(where, self._path(where.key))
        if isinstance(where, IsEmpty):
            return _is_empty(self._path(where.key))
        raise TypeError(f"there is no such expression as {type(where).__name__}")

    def _path(self, key: str) -> str:
        return f"{self.prefix}{_quoted(key)}"


def _quoted(key: str) -> str:
    if '"' in key:
        raise FilterError(f"Qdrant has no way to name the key {key!r}, for its quotation mark")
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"'


def _all(*conditions: models.Condition) -> models.Filter:
    if len(conditions) == 1 and isinstance(conditions[0], models.Filter):
        return conditions[0]
    return models.Filter(must=list(conditions))


def _any(conditions: list[models.Condition]) -> models.Condition:
    # To Qdrant, an empty list of alternatives is no restriction.
    return models.Filter(should=conditions) if conditions else models.HasIdCondition(has_id=[])


def _equals(key: str, path: str, value: Scalar) -> models.Condition:
    if value is None:
        return models.IsNullCondition(is_null=models.PayloadField(key=path))
    if isinstance(value, (bool, str)) or (isinstance(value, int) and abs(value) >= EXACT):
        return models.FieldCondition(key=path, match=models.MatchValue(value=value))
    # A range: MatchValue takes 1 and 1.0 for different values.
    _check_exact(key, value)
    return models.FieldCondition(key=path, range=models.Range(gte=value, lte=value))


def _one_of(key: str, path: str, values: tuple[Scalar, ...]) -> models.Condition:
    texts = [value for value in values if isinstance(value, str)]
    others = [value for value in values if not isinstance(value, str)]
    found = [_equals(key, path, value) for value in others]
    if texts:
        found.append(models.FieldCondition(key=path, match=models.MatchAny(any=texts)))
    return _any(found)


def _compares(where: Compares, path: str) -> models.Condition:
    if isinstance(where.bound, str):
        raise FilterError(
            f"Qdrant orders numbers only; the filter's {where.order} of {where.key!r} has the "
            f"string {where.bound!r}: for dates, pass a qdrant_client.models.Filter with "
            f"DatetimeRange"
        )
    _check_exact(where.key, where.bound)
    bounds = {where.order.removeprefix("$"): where.bound}
    return models.FieldCondition(key=path, range=models.Range(**bounds))


def _check_exact(key: str, number: float) -> None:
    if abs(number) >= EXACT:
        raise FilterError(
            f"Qdrant compares numbers as 64-bit floating point, which is not exact from 2**53 on: "
            f"the filter's {key!r} has {number!r}"
        )


def _substring(key: str, path: str, text: str) -> models.Condition:
    match: Callable[..., Any] | None = getattr(models, "MatchSubstring", None)
    if match is None:
        raise FilterError(
            f"this qdrant-client cannot look for a text in {key!r}: upgrade it, and Qdrant with it"
        )
    return models.FieldCondition(key=path, match=match(substring=text))


def _contains(where: Contains, path: str) -> models.Condition:
    # ``path`` is of the elements of a list as of a single value, ``path[]`` of a list's alone.
    key, value = where.key, where.value
    element = _all(_equals(key, path, value), _equals(key, f"{path}[]", value))
    if not isinstance(value, str):
        return element
    text = models.Filter(
        must=[_substring(key, path, value)], must_not=[_substring(key, f"{path}[]", value)]
    )
    return _any([element, text])


def _is_empty(path: str) -> models.Condition:
    no_text = models.Filter(must=[_equals("", path, "")], must_not=[_equals("", f"{path}[]", "")])
    return _any([models.IsEmptyCondition(is_empty=models.PayloadField(key=path)), no_text])
