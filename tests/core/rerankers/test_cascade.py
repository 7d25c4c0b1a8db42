import numpy as np
import pytest

from m3_core import Cascade, Reranker
from m3_core.rerankers.ranking import select_best
from m3_core.scoring import hybrid_scores
from m3_core.testing.rerankers import tiny_reranker

QUERY = "what is a panda"
DOCUMENTS = ["river", "a panda is a bear", "", "city model", "a panda is a bear", "water world"]
WEIGHTS = (1.0, 0.3, 1.0)


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    folder = tiny_reranker(tmp_path_factory.mktemp("cascade") / "reranker")
    return Reranker.from_pretrained(folder, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def cascade(encoder, reranker):
    return Cascade(encoder, reranker, first=3, weights=WEIGHTS)


def expected_first(encoder):
    parts = {"return_sparse": True, "return_colbert_vecs": True}
    left = encoder.encode_queries([QUERY], **parts)
    return hybrid_scores(left, encoder.encode_documents(DOCUMENTS, **parts), WEIGHTS)[0]


def test_the_best_of_the_first_step_go_to_the_second(cascade, encoder, reranker):
    first = expected_first(encoder)
    np.testing.assert_allclose(cascade.first_scores(QUERY, DOCUMENTS), first, atol=1e-6)
    found = cascade.compute(QUERY, DOCUMENTS)
    chosen = np.argsort(-first, kind="stable")[:3].tolist()
    assert sorted(one.index for one in found) == sorted(chosen)
    scores = reranker.compute_score([(QUERY, document) for document in DOCUMENTS])
    for one in found:
        assert one.score == pytest.approx(scores[one.index], abs=2e-6)
        assert one.first_score == pytest.approx(first[one.index], abs=1e-6)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_with_room_for_all_it_is_the_reranker(encoder, reranker):
    ranked = Cascade(encoder, reranker, first=99).rank(QUERY, DOCUMENTS, normalize=True)
    scores = dict(reranker.rank(QUERY, DOCUMENTS, normalize=True))
    assert dict(ranked) == pytest.approx(scores, abs=2e-6)


async def test_async_top_n_and_threshold(cascade):
    ranked = cascade.rank(QUERY, DOCUMENTS)
    assert await cascade.arank(QUERY, DOCUMENTS, 2) == ranked[:2]
    found = await cascade.acompute(QUERY, DOCUMENTS, threshold=ranked[0][1])
    assert [one.score for one in found] == [score for _, score in ranked if score >= ranked[0][1]]


def test_no_documents(cascade):
    assert cascade.rank(QUERY, []) == []


def test_dense_encoders_take_part(encoder, reranker):
    dense = Cascade(encoder, reranker, first=2, weights=(1.0, 0.0, 0.0))
    assert len(dense.rank(QUERY, DOCUMENTS)) == 2


def test_bad_arguments(cascade, encoder, reranker):
    with pytest.raises(ValueError, match="first must be at least 1"):
        Cascade(encoder, reranker, first=0)
    with pytest.raises(ValueError, match="weights"):
        Cascade(encoder, reranker, weights=(0.0, 0.0, 0.0))
    with pytest.raises(TypeError, match="reranker must be"):
        Cascade(encoder, encoder)
    with pytest.raises(TypeError, match="encoder must be"):
        Cascade(reranker, reranker)
    with pytest.raises(TypeError, match="text 0 is of type NoneType"):
        cascade.rank(QUERY, [None])
    with pytest.raises(ValueError, match="top_n must be at least 0"):
        select_best([1.0], -1)
