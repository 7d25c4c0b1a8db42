import asyncio
import math
import threading
import warnings

import numpy as np
import pytest
import torch

from m3_core import Reranker
from m3_core.errors import (
    NonFiniteError,
    OutOfMemoryError,
)
from m3_core.network import TruncationWarning
from m3_core.testing.rerankers import tiny_reranker

KINDS = ("cross-encoder", "bert", "llm", "layerwise", "lightweight")
QUERY = "what is a panda"
DOCUMENTS = ["hi", "a panda is a bear", "", "the city " * 30, "a panda is a bear", "la ciudad"]
PAIRS = [(QUERY, document) for document in DOCUMENTS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("rerankers")
    return {kind: tiny_reranker(root / kind, kind=kind) for kind in KINDS}


@pytest.fixture(scope="module")
def rerankers(folders):
    return {
        kind: Reranker.from_pretrained(folder, device="cpu", dtype="float32")
        for kind, folder in folders.items()
    }


@pytest.fixture(scope="module")
def reranker(rerankers):
    return rerankers["cross-encoder"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_does_not_depend_on_the_company(rerankers, kind):
    together = rerankers[kind].compute_score(PAIRS)
    alone = [rerankers[kind].compute_score([pair])[0] for pair in PAIRS]
    np.testing.assert_allclose(together, alone, atol=2e-6)
    assert together[1] == pytest.approx(together[4], abs=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_small_batches_give_the_same_scores(rerankers, folders, kind):
    small = Reranker.from_pretrained(folders[kind], device="cpu", dtype="float32", token_budget=64)
    np.testing.assert_allclose(
        small.compute_score(PAIRS), rerankers[kind].compute_score(PAIRS), atol=2e-6
    )


def test_results_are_plain_floats_in_order(reranker):
    scores = reranker.compute_score(PAIRS)
    assert [type(score) for score in scores] == [float] * len(PAIRS)
    assert reranker.compute_score(PAIRS[::-1]) == pytest.approx(scores[::-1], abs=2e-6)
    assert reranker.compute_score(iter([list(pair) for pair in PAIRS])) == pytest.approx(
        scores, abs=2e-6
    )
    assert len(reranker.compute_score(PAIRS[:1])) == 1


def test_no_pairs_give_no_scores(reranker):
    assert reranker.compute_score([]) == []
    assert reranker.rank(QUERY, []) == []
    assert reranker.compute_layer_scores([]) == [[]]


def test_normalize_is_the_sigmoid(reranker):
    raw, normalized = (reranker.compute_score(PAIRS, normalize=flag) for flag in (False, True))
    assert normalized == pytest.approx([1 / (1 + math.exp(-score)) for score in raw])


def test_rank_sorts_and_cuts(reranker):
    scores = reranker.compute_score(PAIRS)
    ranked = reranker.rank(QUERY, DOCUMENTS)
    assert sorted(i for i, _ in ranked) == list(range(len(DOCUMENTS)))
    assert [score for _, score in ranked] == sorted(scores, reverse=True)
    assert all(score == scores[i] for i, score in ranked)
    # Equal documents keep their order.
    assert [i for i, _ in ranked if i in (1, 4)] == [1, 4]
    assert reranker.rank(QUERY, DOCUMENTS, top_n=2) == ranked[:2]
    assert reranker.rank(QUERY, DOCUMENTS, top_n=0) == []
    with pytest.raises(ValueError, match="top_n must be at least 0"):
        reranker.rank(QUERY, DOCUMENTS, top_n=-1)


@pytest.mark.parametrize("pairs", [None, "text", [None], ["text"], [("a",)], [("a", "b", "c")]])
def test_what_is_no_list_of_pairs_is_refused(reranker, pairs):
    with pytest.raises(TypeError, match="pair"):
        reranker.compute_score(pairs)


def test_texts_of_other_types_are_refused(reranker):
    with pytest.raises(TypeError, match="text 1 is of type NoneType"):
        reranker.compute_score([("a", "b"), ("a", None)])
    with pytest.raises(TypeError, match="text 0 is of type int"):
        reranker.rank(1, ["a"])
    with pytest.raises(TypeError, match="wrap a single text"):
        reranker.rank("a", "b")
    with pytest.raises(ValueError, match="lone surrogate"):
        reranker.compute_score([("a", "\ud800")])


def test_names_of_other_packages_are_answered(reranker):
    with pytest.raises(TypeError, match=r"by its name with Reranker.from_pretrained"):
        Reranker("BAAI/bge-reranker-v2-m3")
    with pytest.raises(AttributeError, match="use compute_score, or rank"):
        reranker.predict([("a", "b")])
    with pytest.raises(TypeError, match=r"Reranker.rank\(\) got an unexpected .*'top_k'"):
        reranker.rank("a", ["b"], top_k=1)


def test_lengths(reranker):
    assert (reranker.max_length, reranker.query_max_length) == (512, 384)
    long = [("a " * 600, "b " * 600)]
    with pytest.warns(TruncationWarning, match="1 of 1 pairs were longer than max_length=512"):
        reranker.compute_score(long)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reranker.compute_score(long, max_length=4000, query_max_length=1500)
    with pytest.raises(ValueError, match="takes up to 8192"):
        reranker.compute_score(PAIRS, max_length=8193)
    with pytest.raises(ValueError, match="each text at least 1"):
        reranker.compute_score(PAIRS, max_length=5)
    with pytest.raises(ValueError, match="query_max_length 0"):
        reranker.compute_score(PAIRS, query_max_length=0)
    with pytest.raises(ValueError, match="takes up to 8192"):
        reranker.with_options(max_length=10_000)


def test_instructions_are_put_before_texts(reranker):
    instructed = reranker.with_options(query_instruction="Q: ", document_instruction="D: ")
    assert instructed.compute_score([("a", "b")]) == pytest.approx(
        reranker.compute_score([("Q: a", "D: b")]), abs=2e-6
    )
    assert (instructed.query_instruction, instructed.document_instruction) == ("Q: ", "D: ")


def test_decoders_take_their_instructions_and_prompt(rerankers):
    llm = rerankers["llm"]
    assert (llm.query_instruction, llm.document_instruction) == ("A: ", "B: ")
    bare = llm.with_options(query_instruction="", document_instruction="")
    assert bare.compute_score([("A: a", "B: b")]) == pytest.approx(
        llm.compute_score([("a", "b")]), abs=2e-6
    )
    other = llm.with_options(prompt="Is this so?")
    assert other.compute_score([("a", "b")]) != llm.compute_score([("a", "b")])


def test_layers(rerankers):
    for kind in ("layerwise", "lightweight"):
        three = rerankers[kind].with_options(cutoff_layers=[4, 2, 3])
        columns = three.compute_layer_scores(PAIRS)
        assert len(columns) == 3
        assert three.compute_score(PAIRS) == pytest.approx(columns[-1], abs=2e-6)
        assert rerankers[kind].with_options(cutoff_layers=4).options.cutoff_layers == (4,)
        for wrong in ([1], [5], []):
            with pytest.raises(ValueError, match="heads after layers 2 to 4"):
                rerankers[kind].with_options(cutoff_layers=wrong)
    last = rerankers["layerwise"].with_options(cutoff_layers=[2, 4])
    assert last.compute_score(PAIRS) == pytest.approx(
        rerankers["layerwise"].compute_score(PAIRS), abs=2e-6
    )


def test_options_of_other_kinds_are_refused(rerankers):
    for kind in ("cross-encoder", "llm"):
        with pytest.raises(ValueError, match="cutoff_layers"):
            rerankers[kind].with_options(cutoff_layers=[2])
    with pytest.raises(ValueError, match="lightweight rerankers only"):
        rerankers["layerwise"].with_options(compress_ratio=2)
    with pytest.raises(ValueError, match="must be 1, 2, 4 or 8"):
        rerankers["lightweight"].with_options(compress_ratio=3)
    with pytest.raises(TypeError, match="no_such"):
        rerankers["llm"].with_options(no_such=1)


def test_each_distinct_text_is_tokenised_once(reranker, monkeypatch):
    seen = []
    tokenizer = reranker.model.tokenizer
    encode = tokenizer._encode
    monkeypatch.setattr(tokenizer, "_encode", lambda texts: seen.extend(texts) or encode(texts))
    reranker.compute_score(PAIRS)
    assert sorted(seen) == sorted({QUERY, *DOCUMENTS})


def test_halves_a_batch_that_does_not_fit(folders, reranker, monkeypatch):
    small = Reranker.from_pretrained(folders["cross-encoder"], device="cpu", dtype="float32")
    score, sizes = small.model.network.network.score, []

    def scarce(batch, documents, options):
        sizes.append(len(batch.lengths))
        if len(batch.lengths) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return score(batch, documents, options)

    monkeypatch.setattr(small.model.network.network, "score", scarce)
    np.testing.assert_allclose(small.compute_score(PAIRS), reranker.compute_score(PAIRS), atol=2e-6)
    assert max(sizes) > 2

    def none_at_all(batch, documents, options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(small.model.network.network, "score", none_at_all)
    with pytest.raises(OutOfMemoryError, match="does not fit into the memory"):
        small.compute_score(PAIRS)


def test_other_errors_of_the_network_pass(folders, monkeypatch):
    small = Reranker.from_pretrained(folders["cross-encoder"], device="cpu", dtype="float32")

    def broken(batch, documents, options):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(small.model.network.network, "score", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        small.compute_score(PAIRS)


@pytest.mark.parametrize("kind", ["cross-encoder", "layerwise"])
def test_nan_is_an_error(folders, kind):
    damaged = Reranker.from_pretrained(folders[kind], device="cpu", dtype="float32")
    network = damaged.model.network.network
    words = (
        network.backbone.words.weight
        if kind == "cross-encoder"
        else network.network.get_input_embeddings().weight
    )
    with torch.no_grad():
        words[damaged.model.tokenizer.content_ids(["ß"], 9)[0][-1]] = float("nan")
    with pytest.raises(NonFiniteError, match=r"the scores of 1 pairs \(positions 1\)"):
        damaged.compute_score([("a", "b"), ("a", "ß"), ("c", "d")])


def test_threads_get_what_they_asked_for(reranker):
    wanted = {length: reranker.compute_score(PAIRS[:3], max_length=length) for length in (40, 60)}
    wrong = []

    def work(length):
        for _ in range(10):
            scores = reranker.compute_score(PAIRS[:3], max_length=length)
            if scores != pytest.approx(wanted[length], abs=2e-6):
                wrong.append(length)

    threads = [threading.Thread(target=work, args=(length,)) for length in (40, 60) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


async def test_async_forms(reranker):
    scores, ranked = await asyncio.gather(
        reranker.acompute_score(PAIRS, normalize=True), reranker.arank(QUERY, DOCUMENTS, top_n=1)
    )
    assert scores == pytest.approx(reranker.compute_score(PAIRS, normalize=True), abs=2e-6)
    ((found, score),) = reranker.rank(QUERY, DOCUMENTS, top_n=1)
    assert ranked == [(found, pytest.approx(score, abs=2e-6))]


def test_progress_is_shown_on_request(reranker, capsys):
    reranker.compute_score(PAIRS)
    assert capsys.readouterr().err == ""
    reranker.compute_score(PAIRS, show_progress=True)
    assert "6/6" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_scores_on_the_gpu(folders, rerankers, kind, dtype):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    options = {"compress_layers": (3,), "compress_ratio": 2} if kind == "lightweight" else {}
    there = Reranker.from_pretrained(folders[kind], device="cuda", dtype=dtype, **options)
    here = rerankers[kind].with_options(**options)
    tolerance = {"float32": 1e-3, "float16": 0.03, "bfloat16": 0.3}[dtype]
    np.testing.assert_allclose(
        there.compute_score(PAIRS), here.compute_score(PAIRS), atol=tolerance
    )
