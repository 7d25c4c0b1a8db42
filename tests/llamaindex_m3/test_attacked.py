"""What users may do with the adapters besides what they are meant for."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from llamaindex_m3 import M3Embedding

QUERY = "What do pandas eat?"


def test_a_copy_with_another_option_computes_with_it(encoder) -> None:
    plain = M3Embedding(encoder=encoder)
    copied = plain.model_copy(update={"query_instruction": "salt: ", "truncate_dim": 8})
    made = M3Embedding(encoder=encoder, query_instruction="salt: ", truncate_dim=8)
    assert copied.get_query_embedding(QUERY) == pytest.approx(
        made.get_query_embedding(QUERY), abs=1e-6
    )
    with pytest.raises(ValidationError, match="make a new object, M3Embedding"):
        plain.model_copy(update={"dtype": "float64"})
