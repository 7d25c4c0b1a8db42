"""Conditions on metadata as a tree, evaluated in the terms of ``m3_core.filters``."""

from __future__ import annotations

import copy
import enum
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from m3_core.errors import FilterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Scalar = str | int | float | bool | None
Order = Literal["$gt", "$gte", "$lt", "$lte"]

EXACT = 2**53
"""From here on, 64-bit floating point cannot tell neighbouring whole numbers apart."""

# A mapping is a value that equals none.
_IN_JSON = (str, int, float, Mapping)

ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": lambda found, bound: bool(found > bound),
    "$gte": lambda found, bound: bool(found >= bound),
    "$lt": lambda found, bound: bool(found < bound),
    "$lte": lambda found, bound: bool(found <= bound),
}
"""The comparisons, by their operators in filters."""


class Expression(ABC):
    """A condition on metadata; the classes below are all there are."""

    __slots__ = ()

    @abstractmethod
    def evaluate(self, metadata: Mapping[str, Any]) -> bool:
        """Say whether metadata pass."""


@dataclass(frozen=True, slots=True)
class Equals(Expression):
    """The value, or an element of it, is this one."""

    key: str
    value: Scalar

    def evaluate(self, metadata: Mapping[str, Any]) -> bool:
        """Say whether metadata pass."""
        return any(_equal(found, self.value) for found in _values(metadata, self.key))


@dataclass(frozen=True, slots=True)
class OneOf(Expression):
    """The value, or an element of it, is one of these; of none of them, never."""

    key: str
    values: tuple[Scalar, ...]

    def evaluate(self, metadata: Mapping[str, Any]) -> bool:
        """Say whether metadata pass."""
        return any(
            _equal(found, one) for found in _values(metadata, self.key) for one in self.values
        )


@dataclass(frozen=True, slots=True)
class Compares(Expression):
    """The value, or an element of it, lies on this side of a number or a string."""

    key: str
    order: Order
    bound: str | float

    def evaluate(self, metadata: Mapping[str, Any]) -> bool:
        """Say whether metadata pass."""
        return any(
            _is_ordered(found, self.bound) and ORDERS[self.order](found, self.bound)
            for found in _values(metadata, self.key)
        )


@dataclass(frozen=True, slots=True)
class HasText(Expression):
    """The value, or an element of it, is a string with this text in it."""

    key: str
    text: str
    ignore_case: bool = False

    def evaluate(self, metadata: Mapping[str, Any]) -> bool:
        """Say whether metadata pass."""
        found = [one for one in _values(metadata, self.key) if isinstance(one, str)]
        if self.ignore_case:
            return any(self.text.lower() in one.lower() for one in found)
        return any(self.text in one for one in found)


@dataclass(frozen=True, slots=True)
class Contains(Expression):
    """The value is a list with this element, or a string with this text in it."""

    key: str
    value: Scalar

    def evaluate(self, metadata: Mapping[str, Any]) -> bool:
        """Say whether metadata pass."""
        found = plain(metadata.get(self.key))
        if isinstance(found, str):
            return isinstance(self.value, str) and self.value in found
        return is_list(found) and Equals(self.key, self.value).evaluate(metadata)


@dataclass(frozen=True, slots=True)
class IsEmpty(Expression):
    """There is no such key, or its value is null, an empty string or an empty list."""

    key: str

    def evaluate(self, metadata: Mapping[str, Any]) -> bool:
        """Say whether metadata pass."""
        found = plain(metadata.get(self.key))
        return found is None or ((isinstance(found, str) or is_list(found)) and not len(found))


@dataclass(frozen=True, slots=True)
class And(Expression):
    """All parts hold; without parts, always."""

    parts: tuple[Expression, ...]

    def evaluate(self, metadata: Mapping[str, Any]) -> bool:
        """Say whether metadata pass."""
        return all(part.evaluate(metadata) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Or(Expression):
    """One of the parts holds; without parts, never."""

    parts: tuple[Expression, ...]

    def evaluate(self, metadata: Mapping[str, Any]) -> bool:
        """Say whether metadata pass."""
        return any(part.evaluate(metadata) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not(Expression):
    """The part does not hold."""

    part: Expression

    def evaluate(self, metadata: Mapping[str, Any]) -> bool:
        """Say whether metadata pass."""
        return not self.part.evaluate(metadata)


@dataclass(frozen=True, slots=True)
class Function(Expression):
    """A function of the metadata says yes; only where the documents are in memory."""

    test: Callable[[Mapping[str, Any]], bool]

    def evaluate(self, metadata: Mapping[str, Any]) -> bool:
        """Say whether metadata pass; the function gets a copy, which it may change."""
        given = _copied(metadata)
        try:
            answer: Any = self.test(given)
        except AttributeError as error:
            if error.obj is not given:
                raise
            raise FilterError(
                f"the filter function looks for .{error.name}, as of a document; it gets the "
                'metadata themselves, a dictionary: write lambda metadata: metadata["key"] == ...'
            ) from error
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise FilterError(
                "the filter function returned an awaitable, and nothing awaits it: it has to say "
                "yes or no at once"
            )
        return bool(answer)


def _copied(metadata: Mapping[str, Any]) -> dict[str, Any]:
    # Most values need no copy, and the function may be asked about every document.
    return {
        key: value if isinstance(value, (str, int, float, type(None))) else copy.deepcopy(value)
        for key, value in metadata.items()
    }


def is_list(value: Any) -> bool:
    """Say whether a value counts as a list.

    Args:
        value: Of metadata or of a filter.

    Returns:
        Whether it is a list, a tuple or a set.
    """
    return isinstance(value, (list, tuple, set, frozenset))


def plain(value: Any) -> Any:
    """Make a value of metadata what it is in JSON.

    Args:
        value: The value.

    Returns:
        What NumPy's scalars and arrays and members of enumerations of strings or numbers hold;
        anything else as it is.

    Example:
        >>> plain(np.array([1, 2])), plain(np.float32(0.5))
        ([1, 2], 0.5)
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, enum.Enum) and isinstance(value.value, (str, int, float)):
        return value.value
    return value


def _values(metadata: Mapping[str, Any], key: str) -> Iterable[Any]:
    if key not in metadata:
        return ()
    found = plain(metadata[key])
    values = [plain(one) for one in found] if is_list(found) else [found]
    for one in values:
        if not (one is None or isinstance(one, _IN_JSON) or is_list(one)):
            raise FilterError(
                f"the filter is about {key!r}, and a document has {one!r} of type "
                f"{type(one).__name__} there, which no filter compares: store a string, a number, "
                "a boolean or a list of these, a date as its isoformat()"
            )
    return values


def _equal(found: Any, wanted: Scalar) -> bool:
    if isinstance(found, bool) or isinstance(wanted, bool) or wanted is None:
        return found is wanted
    if isinstance(wanted, str):
        return isinstance(found, str) and found == wanted
    if not isinstance(found, (int, float)):
        return False
    is_same_kind = isinstance(found, float) == isinstance(wanted, float)
    return found == wanted and (is_same_kind or abs(wanted) < EXACT)


def _is_ordered(found: Any, bound: str | float) -> bool:
    if isinstance(bound, str):
        return isinstance(found, str)
    return isinstance(found, (int, float)) and not isinstance(found, bool)
