"""m3-small against what ``record_small.py`` recorded of other software on its exported folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.parity.record_small import TEXTS

if TYPE_CHECKING:
    from m3_core import Encoder

HERE = Path(__file__).parent
ARRAYS = np.load(HERE / "small.npz")
WEIGHTS = json.loads((HERE / "small.json").read_text("utf-8"))


@pytest.mark.parametrize("role", ["query", "document"])
def test_three_representations_are_those_of_flagembedding(m3_small: Encoder, role: str) -> None:
    encode = m3_small.encode_queries if role == "query" else m3_small.encode_documents
    ours = encode(TEXTS, return_sparse=True, return_colbert_vecs=True)
    np.testing.assert_allclose(ours.dense_vecs, ARRAYS[f"{role}.dense"], atol=1e-5)
    theirs = ARRAYS[f"{role}.sentence_transformers"]
    np.testing.assert_allclose(ours.dense_vecs, theirs, atol=1e-5)
    for i, recorded in enumerate(WEIGHTS[role]):
        weights = ours.lexical_weights[i]
        # Weights within rounding of zero may be given by one and left out by the other.
        for token in weights.keys() | {int(token) for token in recorded}:
            assert weights.get(token, 0) == pytest.approx(recorded.get(str(token), 0), abs=1e-5)
        vectors = ARRAYS[f"{role}.colbert.{i}"]
        np.testing.assert_allclose(ours.colbert_vecs[i][: len(vectors)], vectors, atol=1e-5)
    assert len(ours.colbert_vecs[1]) == len(ARRAYS[f"{role}.colbert.1"])
