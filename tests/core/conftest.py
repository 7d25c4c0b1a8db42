"""Fixtures that several test files of the core share."""

from __future__ import annotations

import pytest
from tests.core.lexical_index.index_data import synthetic

from m3_core import LexicalIndex


@pytest.fixture(scope="session")
def large():
    """Enough documents for columns, lists and several blocks."""
    ids, texts = synthetic(5000)
    index = LexicalIndex("model a")
    for start in range(0, 5000, 1250):
        index.add(ids[start : start + 1250], texts[start : start + 1250])
    return index, dict(zip(ids, texts, strict=True))
