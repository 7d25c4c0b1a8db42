"""LlamaIndex's metadata filters as functions of metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

Test = Callable[[Mapping[str, Any]], bool]


def filter_test(filters: MetadataFilters) -> Test:
    """Make a test of metadata from filters.

    Each single filter is judged by LlamaIndex's own function, as in ``SimpleVectorStore``: metadata
    without the key pass only ``!=``, ``nin`` and ``is_empty``, and values that cannot be compared
    raise ``TypeError``. Beyond that function, filters may hold filters.

    Args:
        filters: Filters and conditions, nested to any depth. ``NOT`` means that none of them
            matches; a level without filters lets all pass.

    Returns:
        A function that says whether metadata pass.

    Raises:
        TypeError: They are no ``MetadataFilters``.

    Example:
        >>> either = MetadataFilters.from_dicts(
        ...     [{"key": "year", "value": 2020, "operator": ">"}, {"key": "draft", "value": 1}],
        ...     condition=FilterCondition.OR,
        ... )
        >>> test = filter_test(MetadataFilters(filters=[either], condition=FilterCondition.NOT))
        >>> test({"year": 2019}), test({"year": 2021})
        (True, False)
    """
    if not isinstance(filters, MetadataFilters):
        raise TypeError(f"filters must be MetadataFilters; got {type(filters).__name__}")
    tests = [
        _single(one) if isinstance(one, MetadataFilter) else filter_test(one)
        for one in filters.filters
    ]
    if not tests:
        return lambda _: True
    if filters.condition == FilterCondition.OR:
        return lambda metadata: any(test(metadata) for test in tests)
    if filters.condition == FilterCondition.NOT:
        return lambda metadata: not any(test(metadata) for test in tests)
    return lambda metadata: all(test(metadata) for test in tests)


def _single(one: MetadataFilter) -> Test:
    # The function looks metadata up by an id and calls with it; the metadata stand for theirs.
    judge: Callable[[Any], bool] = build_metadata_filter_fn(
        lambda metadata: metadata,  # type: ignore[arg-type,return-value]
        MetadataFilters(filters=[one]),
    )
    return judge
