"""LlamaIndex's metadata filters in the one filter language."""

from __future__ import annotations

from typing import Any

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from m3_core.errors import FilterError
from m3_core.expressions import (
    And,
    Contains,
    Equals,
    Expression,
    HasText,
    IsEmpty,
    Not,
    OneOf,
    Or,
    Order,
    Scalar,
)
from m3_core.filters import Filter, compares, parse_filter, scalar, scalars

NodeFilter = MetadataFilters | MetadataFilter | Filter
"""What retrievers take: LlamaIndex's filters, a mapping in our language, or a function."""

_ORDERS: dict[FilterOperator, Order] = {
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
}


def to_expression(filters: NodeFilter | None) -> Expression:
    """Read a filter.

    ``MetadataFilters`` mean what they mean in ``SimpleVectorStore``, with these differences:
    filters may hold filters; values that cannot be compared do not pass, where that raises; a list
    passes ``==``, ``in``, comparisons and text matches with one of its elements; null equals null.
    As their values cannot be booleans, 1 and 0 stand for those too.

    Args:
        filters: ``MetadataFilters``, nested to any depth, or what ``m3_core.filters`` reads.
            ``NOT`` means that none of them matches; a level without filters lets all pass.

    Returns:
        The expression.

    Raises:
        TypeError: They are nothing of that.
        FilterError: An operator cannot have such a value.

    Example:
        >>> either = MetadataFilters.from_dicts(
        ...     [{"key": "year", "value": 2020, "operator": ">"}, {"key": "draft", "value": 1}],
        ...     condition=FilterCondition.OR,
        ... )
        >>> where = to_expression(MetadataFilters(filters=[either], condition=FilterCondition.NOT))
        >>> where.evaluate({"year": 2019}), where.evaluate({"year": 2021})
        (True, False)
    """
    if isinstance(filters, MetadataFilter):
        return _single(filters)
    if not isinstance(filters, MetadataFilters):
        return parse_filter(filters)
    parts = tuple(to_expression(one) for one in filters.filters)
    if not parts:
        return And(())
    if filters.condition == FilterCondition.OR:
        return Or(parts)
    return Not(Or(parts)) if filters.condition == FilterCondition.NOT else And(parts)


def _single(one: MetadataFilter) -> Expression:
    if one.operator in _ORDERS:
        return compares(one.key, _ORDERS[one.operator], one.value)
    if one.operator in (FilterOperator.EQ, FilterOperator.NE):
        return _negated(one, FilterOperator.NE, _equals(one.key, scalar(one.key, one.value)))
    if one.operator in (FilterOperator.IN, FilterOperator.NIN):
        values = [same for value in _values(one) for same in _with_booleans(value)]
        return _negated(one, FilterOperator.NIN, OneOf(one.key, tuple(values)))
    if one.operator in (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE):
        return _text(one)
    if one.operator == FilterOperator.CONTAINS:
        return Contains(one.key, scalar(one.key, one.value))
    if one.operator == FilterOperator.ANY:
        return Or(tuple(Contains(one.key, value) for value in _values(one)))
    if one.operator == FilterOperator.ALL:
        return And(tuple(Contains(one.key, value) for value in _values(one)))
    if one.operator == FilterOperator.IS_EMPTY:
        return IsEmpty(one.key)
    raise FilterError(f"the filter's {one.key!r} has the unknown operator {one.operator!r}")


def _negated(one: MetadataFilter, negation: FilterOperator, part: Expression) -> Expression:
    return Not(part) if one.operator == negation else part


def _equals(key: str, value: Scalar) -> Expression:
    same = _with_booleans(value)
    return Equals(key, value) if len(same) == 1 else OneOf(key, same)


def _with_booleans(value: Scalar) -> tuple[Scalar, ...]:
    return (value, bool(value)) if isinstance(value, (int, float)) and value in (0, 1) else (value,)


def _values(one: MetadataFilter) -> tuple[Scalar, ...]:
    values = scalars(one.key, one.value)
    if not values and one.operator == FilterOperator.ALL:
        raise FilterError(f"the filter's {one.operator.value!r} of {one.key!r} needs some values")
    return values


def _text(one: MetadataFilter) -> HasText:
    value: Any = one.value
    if not isinstance(value, str):
        raise FilterError(f"the filter's text match of {one.key!r} needs a string; got {value!r}")
    return HasText(one.key, value, one.operator == FilterOperator.TEXT_MATCH_INSENSITIVE)
