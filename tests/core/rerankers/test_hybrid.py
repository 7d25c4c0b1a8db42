from __future__ import annotations

import numpy as np
import pytest

from m3_core.encoder.cached import CachedEncoder
from m3_core.errors import MissingRepresentationError
from m3_core.rerankers.hybrid import HybridScorer, weighted_parts
from m3_core.testing import FakeEncoder

QUERY = "what is a panda"
DOCUMENTS = ["river", "a panda is a bear", "", "city model", "a panda is a bear"]


@pytest.mark.parametrize(
    "weights", [(1.0, 0.3, 1.0), (0.4, 0.2, 0.4), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)]
)
def test_scores_are_compute_scores_with_instructions(encoder, weights) -> None:
    instructed = encoder.with_options(query_instruction="q: ", document_instruction="d: ")
    pairs = [(query, text) for text in DOCUMENTS for query in (QUERY, "мир")]
    expected = instructed.compute_score(pairs, weights)["colbert+sparse+dense"]
    found = HybridScorer(instructed, weights).score(pairs)
    assert found == pytest.approx(expected, abs=1e-5)
    assert all(type(score) is float for score in found)
    assert HybridScorer(instructed, weights).score([]) == []


def test_rankings_take_the_best_and_keep_the_order_of_ties(encoder) -> None:
    scorer = HybridScorer(encoder, (1.0, 0.3, 1.0))
    scores = np.array(scorer.score([(QUERY, text) for text in DOCUMENTS]))
    order = np.argsort(-scores, kind="stable").tolist()
    assert scorer.rank(QUERY, DOCUMENTS) == [(i, scores[i]) for i in order]
    assert scorer.rank(QUERY, DOCUMENTS, 2) == [(i, scores[i]) for i in order[:2]]
    kept = scorer.rank(QUERY, DOCUMENTS, threshold=scores[order[2]])
    assert [i for i, _ in kept] == order[:3]
    assert scorer.rank(QUERY, []) == []


def test_each_text_is_computed_once_and_only_what_has_a_weight() -> None:
    encoder = FakeEncoder()
    scorer = HybridScorer(encoder, (1, 0, 0))
    assert scorer.encodings.parts == ("dense",)
    scorer.rank(QUERY, DOCUMENTS)
    scorer.rank(QUERY, reversed(DOCUMENTS))
    HybridScorer(CachedEncoder(encoder, ["dense"]), (1, 0, 0)).score([(QUERY, DOCUMENTS[0])])
    assert encoder.calls == [("query", 1), ("document", 4)]


def test_bad_arguments(encoder, tiny_dense) -> None:
    from m3_core import Encoder

    for weights in ((0, 0, 0), (1, 1), (-1, 1, 1), (float("nan"), 1, 1)):
        with pytest.raises(ValueError, match="weights must be three numbers"):
            HybridScorer(encoder, weights)
        with pytest.raises(ValueError, match="weights must be three numbers"):
            weighted_parts(weights)
    dense = Encoder.from_pretrained(tiny_dense, device="cpu")
    with pytest.raises(MissingRepresentationError, match="gives only dense"):
        HybridScorer(dense, (1.0, 0.3, 1.0))
    scorer = HybridScorer(encoder, (1.0, 0.3, 1.0))
    with pytest.raises(TypeError, match="pair 0"):
        scorer.score(["panda"])
    with pytest.raises(TypeError, match="text 0 is of type NoneType"):
        scorer.rank(None, DOCUMENTS)
    with pytest.raises(TypeError, match="text 1 is of type bytes"):
        scorer.rank(QUERY, ["a", b"b"])
    with pytest.raises(ValueError, match="top_n"):
        scorer.rank(QUERY, DOCUMENTS, -1)
