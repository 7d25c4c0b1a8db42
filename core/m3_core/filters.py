"""The filter language of all retrievers and stores: conditions on metadata, as a tree.

Users write mappings, which ``parse_filter`` reads::

    {"language": "de"}                                   equality
    {"year": {"$gte": 2020, "$lt": 2024}}                $eq $ne $gt $gte $lt $lte $in $nin
    {"$or": [{"language": "de"}, {"$not": {"draft": True}}]}    $and $or $not

Several keys, and several operators of one key, must all hold. What holds of a value:

- Types are strict, as in JSON: ``True`` is not 1, ``"1"`` is not 1, but 1 is 1.0. Numbers are
  ordered among numbers, strings among strings by code points; other types do not pass.
- A list passes a condition if one of its elements does, as in Qdrant; so ``{"tags": "x"}`` and
  ``{"tags": {"$in": ["x", "y"]}}`` find lists that hold ``"x"``. An empty list passes none.
- Metadata without the key pass no condition, and so they pass each negation (``$ne``, ``$nin``,
  ``$not``), as in Chroma, Qdrant and LlamaIndex's ``SimpleVectorStore``. ``None`` is a value: the
  key is there and holds null.
- NumPy's scalars and arrays and members of enumerations count as what they hold. What JSON does
  not have (a date, a ``Decimal``) is an error where a filter is about it.
- Keys are whole names: a dot in one is no path.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from m3_core.errors import FilterError
from m3_core.expressions import (
    ORDERS,
    And,
    Compares,
    Equals,
    Expression,
    Function,
    Not,
    OneOf,
    Or,
    Order,
    Scalar,
    is_list,
    plain,
)

_FIELD_OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$not")

Filter = Mapping[str, Any] | Expression | Callable[[Mapping[str, Any]], bool]


def parse_filter(where: Filter | None) -> Expression:
    """Read a filter.

    Args:
        where: A mapping in the language of this module, an expression, a function of the metadata,
            or None, which all metadata pass.

    Returns:
        The expression.

    Raises:
        TypeError: It is none of them.
        FilterError: An operator is unknown, or a value cannot stand where it stands.

    Example:
        >>> where = parse_filter({"language": "de", "page": {"$in": [3, 4]}})
        >>> where.evaluate({"language": "de", "page": 3}), where.evaluate({"language": "de"})
        (True, False)
    """
    if where is None:
        return And(())
    if isinstance(where, Expression):
        return where
    if callable(where):
        if any(map(inspect.iscoroutinefunction, (where, type(where).__call__))):
            raise TypeError(
                f"a filter function says yes or no at once; {where!r} is asynchronous, and nothing "
                "awaits it: make it a plain function"
            )
        return Function(where)
    if not isinstance(where, Mapping):
        raise TypeError(f"a filter is a mapping or a function; got {type(where).__name__}")
    return _all([_entry(key, value) for key, value in where.items()])


def scalar(key: str, value: Any) -> Scalar:
    """Check a value that metadata are compared with.

    Args:
        key: Of the metadata, for the error.
        value: The value; NumPy's scalars and members of enumerations of strings or numbers become
            what they hold.

    Returns:
        The value.

    Raises:
        FilterError: It is no string, finite number, boolean or None.
    """
    if not isinstance(value, np.ndarray):
        value = plain(value)
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    hint = 'for "one of them" write {"$in": [...]}, or ' if is_list(value) else ""
    raise FilterError(
        f"the filter compares {key!r} with {value!r} of type {type(value).__name__}: {hint}"
        f"use a string, a finite number, a boolean or None"
    )


def scalars(key: str, values: Any) -> tuple[Scalar, ...]:
    """Check a list of values that metadata are compared with.

    Args:
        key: Of the metadata, for the error.
        values: A list, tuple or set.

    Returns:
        The values.

    Raises:
        FilterError: It is something else, or holds something else than ``scalar`` takes.
    """
    if not is_list(values):
        raise FilterError(
            f"the filter looks for {key!r} in {values!r} of type {type(values).__name__}: "
            f"give a list of values"
        )
    return tuple(scalar(key, one) for one in values)


def compares(key: str, order: Order, bound: Any) -> Compares:
    """Make a comparison.

    Args:
        key: Of the metadata.
        order: Which.
        bound: What to compare with.

    Returns:
        The expression.

    Raises:
        FilterError: The bound is no string or finite number.
    """
    checked = scalar(key, bound)
    if checked is None or isinstance(checked, bool):
        raise FilterError(
            f"the filter's {order} of {key!r} needs a number or a string; got {bound!r}"
        )
    return Compares(key, order, checked)


def _entry(key: Any, value: Any) -> Expression:
    if not isinstance(key, str):
        raise FilterError(f"the keys of a filter are strings; got {key!r} of {type(key).__name__}")
    if key in ("$and", "$or"):
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise FilterError(f"the filter's {key!r} needs a list of filters; got {value!r}")
        parts = tuple(_nested(key, one) for one in value)
        return And(parts) if key == "$and" else Or(parts)
    if key == "$not":
        return Not(_nested(key, value))
    if key.startswith("$"):
        raise FilterError(
            f"the filter has no operator {key!r} in this place: there are $and, $or and $not, and "
            f"after a metadata key {', '.join(_FIELD_OPERATORS)}"
        )
    return _field(key, value)


def _nested(operator: str, where: Any) -> Expression:
    if not isinstance(where, (Mapping, Expression)) and not callable(where):
        raise FilterError(f"the filter's {operator!r} is over filters; got {where!r}")
    return parse_filter(where)


def _field(key: str, value: Any) -> Expression:
    if not isinstance(value, Mapping):
        return Equals(key, scalar(key, value))
    if not value:
        raise FilterError(f"the filter's {key!r} has no operator: {', '.join(_FIELD_OPERATORS)}")
    return _all([_condition(key, operator, operand) for operator, operand in value.items()])


def _condition(key: str, operator: Any, operand: Any) -> Expression:
    if operator == "$eq":
        return Equals(key, scalar(key, operand))
    if operator == "$ne":
        return Not(Equals(key, scalar(key, operand)))
    if operator == "$in":
        return OneOf(key, scalars(key, operand))
    if operator == "$nin":
        return Not(OneOf(key, scalars(key, operand)))
    if operator == "$not":
        return Not(_field(key, operand))
    if operator in ORDERS:
        return compares(key, operator, operand)
    raise FilterError(
        f"the filter's {key!r} has no operator {operator!r}: there are "
        f"{', '.join(_FIELD_OPERATORS)}; metadata inside metadata cannot be compared"
    )


def _all(parts: Sequence[Expression]) -> Expression:
    return parts[0] if len(parts) == 1 else And(tuple(parts))
