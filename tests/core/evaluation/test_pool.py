import numpy as np
import pytest

from m3_core.evaluation import Setting, pool, settings_for, shards
from m3_core.evaluation.pool import build_pool
from m3_core.evaluation.shards import encode_texts
from m3_core.scoring import reciprocal_rank_fusion
from m3_core.testing import FakeEncoder

WORDS = ["panda", "bear", "fish", "river", "city", "bridge", "bamboo", "mountain", "cold", "eats"]


@pytest.fixture
def texts():
    rng = np.random.default_rng(3)
    documents = [(f"d{n}", " ".join(rng.choice(WORDS, 6))) for n in range(40)]
    queries = [(f"q{n}", " ".join(rng.choice(WORDS, 3))) for n in range(5)]
    return documents, [*queries, ("q5", "nothing shared")]


@pytest.fixture
def encoded(texts, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "TEXTS", 7)
    documents, queries = texts
    encoder = FakeEncoder()
    asked = encode_texts(encoder, queries, tmp_path, role="query").whole()
    return asked, encode_texts(encoder, documents, tmp_path)


SETTINGS = settings_for(["dense", "sparse", "colbert"], "mldr")


def same(first, second):
    """Equal scores in equal places; documents of nearly equal ones may stand in any order."""
    for left, right in zip(first.scores, second.scores, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)
    for rows, scores, others in zip(first.rows, first.scores, second.rows, strict=True):
        # The last one may be as good as the first that is left out.
        clear = np.diff(scores, prepend=np.inf, append=scores[-1:]) < -1e-5
        alone = clear[:-1] & clear[1:]
        assert rows[alone].tolist() == others[alone].tolist()


def test_what_does_not_fit_into_memory_ranks_as_what_does(encoded, monkeypatch):
    asked, documents = encoded
    assert len(documents.shards) == 6
    whole = build_pool(asked, documents, depth=40)
    monkeypatch.setattr(pool, "KEPT_PAIRS", 0)
    monkeypatch.setattr(pool, "_COLUMNS", 10)
    streamed = build_pool(asked, documents, depth=40, scope="all")
    # Ranks are fused of rankings that are compared here; nearly equal scores would change them.
    for setting in (one for one in SETTINGS if one.fusion == "weights"):
        same(streamed.rank(setting, 40), whole.rank(setting, 40))
    # Of few documents a representation, each one's own ranking is still exact.
    few = build_pool(asked, documents, depth=5, scope="all")
    assert max(len(rows) for rows in few.rows) <= 15
    for setting in SETTINGS[:3]:
        same(few.rank(setting, 5), whole.rank(setting, 5))


def test_multi_vectors_of_candidates_alone(encoded):
    asked, documents = encoded
    whole = build_pool(asked, documents, scope="all")
    some = build_pool(asked, documents, scope="candidates", candidates=4)
    assert "4 best of dense and of sparse" in some.described
    dense, sparse = (whole.rank(one, 4) for one in SETTINGS[:2])
    for query, scores in enumerate(some.scores["colbert"]):
        chosen = np.flatnonzero(~np.isnan(scores))
        expected = set(dense.rows[query].tolist()) | set(sparse.rows[query].tolist())
        assert set(chosen.tolist()) == expected
        np.testing.assert_allclose(
            scores[chosen], whole.scores["colbert"][query][chosen], atol=1e-6
        )
    everything = Setting.of((1.0, 0.3, 1.0))
    assert all(len(rows) <= 8 for rows in some.rank(everything, 40).rows)
    assert len(some.rank(SETTINGS[3], 40).rows[0]) == 40


def test_lexical_weights_alone_find_only_what_shares_a_token(encoded):
    asked, documents = encoded
    ranking = build_pool(asked, documents).rank(Setting.of((0.0, 1.0, 0.0)), 40)
    assert len(ranking.rows[5]) == 0
    assert all((scores > 0).all() for scores in ranking.scores)


def test_ranks_are_fused_as_by_the_scoring_function(encoded):
    asked, documents = encoded
    found = build_pool(asked, documents)
    fused = found.rank(Setting.of((1.0, 0.5, 0.0), "rrf"), 10)
    dense, sparse = (found.rank(one, 10) for one in SETTINGS[:2])
    for query in range(5):
        lists = [dense.rows[query].tolist(), sparse.rows[query].tolist()]
        expected = dict(reciprocal_rank_fusion(lists, weights=(1.0, 0.5)))
        # Weights have the sum 1 here.
        got = dict(zip(fused.rows[query].tolist(), fused.scores[query].tolist(), strict=True))
        assert {row: score * 1.5 for row, score in got.items()} == pytest.approx(
            {row: expected[row] for row in got}, rel=1e-5
        )
        assert min(got.values()) * 1.5 >= sorted(expected.values())[-10] - 1e-6


def test_given_documents_alone_are_found(encoded):
    asked, documents = encoded
    allowed = [np.array([3, 8, 30])] * 6
    found = build_pool(asked, documents, allowed=allowed)
    whole = build_pool(asked, documents)
    for query in range(6):
        assert found.rows[query].tolist() == [3, 8, 30]
        for part in ("dense", "sparse", "colbert"):
            expected = whole.scores[part][query][[3, 8, 30]]
            np.testing.assert_allclose(found.scores[part][query], expected, atol=1e-6)


def test_half_precision_on_disk_changes_little(texts, tmp_path):
    documents, _ = texts
    encoder = FakeEncoder()
    full = encode_texts(encoder, documents, tmp_path).whole()
    half = encode_texts(encoder, documents, tmp_path, half=True).whole()
    assert half.colbert_vecs.vectors.dtype == np.float16
    np.testing.assert_allclose(half.colbert_vecs.vectors, full.colbert_vecs.vectors, atol=1e-3)
    assert encoder.calls == [("document", 40), ("document", 40)]
    assert half.lexical_weights.vocabulary_size == 250_004
