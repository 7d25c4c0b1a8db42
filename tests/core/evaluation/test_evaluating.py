import json
import sys

import ir_measures
import numpy as np
import pytest

from m3_core import Encoder
from m3_core.errors import MissingPackageError, MissingRepresentationError
from m3_core.evaluation import (
    EvaluationOptions,
    RetrievalData,
    evaluate,
    evaluate_runs,
    load_data,
    read_run,
)
from m3_core.evaluation import shards as shards_module
from m3_core.representations import Representations
from m3_core.scoring import hybrid_scores
from m3_core.testing import FakeEncoder, tiny_checkpoint

NO_ADVICE = EvaluationOptions(folds=0)


def brute_force(encoder, data, weights):
    """Every document scored for every query, as ir-measures takes it."""
    flags = {"return_sparse": True, "return_colbert_vecs": True}
    ids, texts = zip(*data.corpus, strict=True)
    queries = encoder.encode_queries(list(data.queries.values()), **flags)
    scores = hybrid_scores(queries, encoder.encode_documents(texts, **flags), weights)
    return {
        query: dict(zip(ids, row, strict=True))
        for query, row in zip(data.queries, scores.tolist(), strict=True)
    }


def test_measures_are_those_of_ir_measures_over_brute_force(beir):
    data, encoder = load_data(beir), FakeEncoder()
    found = evaluate(encoder, data, options=NO_ADVICE)
    assert found.queries == ("q1", "q2", "q3", "q4")
    asked = [ir_measures.parse_measure(name) for name in found.measures]
    for name, weights in (
        ("dense", (1, 0, 0)),
        ("colbert", (0, 0, 1)),
        ("dense+sparse 1/0.3", (1, 0.3, 0)),
        ("all 1/0.3/1", (1, 0.3, 1)),
        ("0.4/0.2/0.4", (0.4, 0.2, 0.4)),
    ):
        run = brute_force(encoder, data, weights)
        expected = ir_measures.calc_aggregate(asked, data.qrels, run)
        assert found[name] == pytest.approx({str(m): v for m, v in expected.items()}, abs=1e-6)


def test_each_text_is_encoded_once_for_all_settings_and_never_again(beir, tmp_path):
    encoder = FakeEncoder()
    options = EvaluationOptions(encodings=tmp_path / "kept", weights=((0.2, 0.8, 0.0),))
    first = evaluate(encoder, load_data(beir), options=options)
    assert encoder.calls == [("query", 4), ("document", 6)]
    assert first.encoded == 10
    again = evaluate(encoder, load_data(beir), options=options)
    assert (len(encoder.calls), again.encoded) == (2, 0)
    assert again.to_json() == first.to_json() | {"texts_encoded": 0}
    with pytest.raises(ValueError, match=r"the baseline can be one of dense, sparse, .*; got 'x'"):
        evaluate(encoder, load_data(beir), options=EvaluationOptions(baseline="x"))
    assert len(encoder.calls) == 2


def test_an_interrupted_run_goes_on_where_it_stopped(beir, tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "TEXTS", 2)
    options = EvaluationOptions(encodings=tmp_path / "kept", folds=0)
    whole = evaluate(FakeEncoder(), load_data(beir), options=NO_ADVICE)

    class Stopped(FakeEncoder):
        def encode_documents(self, texts, *rest, **flags):
            if sum(role == "document" for role, _ in self.calls) == 2:
                raise KeyboardInterrupt
            return super().encode_documents(texts, *rest, **flags)

    with pytest.raises(KeyboardInterrupt):
        evaluate(Stopped(), load_data(beir), options=options)
    encoder = FakeEncoder()
    assert (
        evaluate(encoder, load_data(beir), options=options).to_json()["results"]
        == (whole.to_json()["results"])
    )
    assert encoder.calls == [("document", 2)]
    # Another text is encoded anew; the collection as it was stays beside.
    corpus = beir / "corpus.jsonl"
    before = corpus.read_text("utf-8")
    corpus.write_text(before.replace("Stadt", "Burg"), "utf-8")
    evaluate(encoder, load_data(beir), options=options)
    corpus.write_text(before, "utf-8")
    evaluate(encoder, load_data(beir), options=options)
    assert encoder.calls == [("document", 2), ("document", 2)]
    # So is what a damaged file held.
    for file in (tmp_path / "kept").glob("documents-*/*"):
        file.write_bytes(file.read_bytes()[:-1])
    again = evaluate(encoder, load_data(beir), options=options)
    assert again.encoded == 6
    assert again.to_json()["results"] == whole.to_json()["results"]


def test_run_files_measure_as_what_wrote_them(beir, tmp_path):
    data = load_data(beir)
    found = evaluate(FakeEncoder(), data, options=NO_ADVICE)
    runs = {name: read_run(file) for name, file in found.write_runs(tmp_path / "runs").items()}
    assert evaluate_runs(data, runs).to_json()["results"] == found.to_json()["results"]
    beside = evaluate(FakeEncoder(), data, runs={"theirs": runs["dense"]}, options=NO_ADVICE)
    assert beside["theirs"] == found["dense"]
    assert beside.against("dense")["theirs"].p_randomisation == 1.0
    with pytest.raises(ValueError, match="two rankings are called 'dense'"):
        evaluate(FakeEncoder(), data, runs={"dense": runs["dense"]}, options=NO_ADVICE)


class ShortestFirst:
    """A reranker that prefers short documents."""

    def __init__(self):
        self.pairs = []

    def compute_score(self, pairs, show_progress=False):
        self.pairs += pairs
        return [-float(len(text)) for _, text in pairs]


def test_a_reranker_orders_the_best_documents(beir):
    data, reranker = load_data(beir), ShortestFirst()
    options = EvaluationOptions(folds=0, rerank=3, rerank_of="dense")
    found = evaluate(FakeEncoder(), data, rerankers={"short": reranker}, options=options)
    texts = dict(data.corpus)
    assert len(reranker.pairs) == 12
    before, after = found.run("dense"), found.run("dense > short")
    for query, text in data.queries.items():
        best = list(before[query])[:3]
        assert list(after[query]) == sorted(best, key=lambda key: len(texts[key]))
        assert (text, texts[best[0]]) in reranker.pairs
    with pytest.raises(ValueError, match=r"reranked can be one of dense, .*; got 'best'"):
        evaluate(FakeEncoder(), data, options=EvaluationOptions(rerank_of="best"))


def test_dense_models_are_measured_alone(beir):
    encoder = FakeEncoder(representations=["dense"])
    found = evaluate(encoder, load_data(beir))
    assert list(found.measured) == ["dense"]
    assert found.advice == ()
    with pytest.raises(MissingRepresentationError, match="sparse asked for; fake has dense"):
        evaluate(encoder, load_data(beir), options=EvaluationOptions(representations=("sparse",)))
    with pytest.raises(MissingRepresentationError, match=r"0.5/0.5/0 .* need sparse"):
        evaluate(encoder, load_data(beir), options=EvaluationOptions(weights=((0.5, 0.5, 0.0),)))


class NoisyWords(FakeEncoder):
    """Dense vectors find the right document; lexical weights and multi-vectors mislead."""

    def _encode(self, role, texts, parts, max_length, *, show_progress):
        listed = list(texts)
        reps = super()._encode(role, listed, parts, max_length, show_progress=show_progress)
        rows = np.zeros((len(listed), 40), np.float32)
        for row, text in enumerate(listed):
            rows[row, int(text.split()[0])] = 1.0
        return Representations(rows, reps.lexical_weights, reps.colbert_vecs)


def test_advice_warns_where_the_default_is_worse_than_dense_alone(tmp_path):
    # The number tells which document is meant, the words always those of another one.
    (tmp_path / "qrels").mkdir()
    documents = [{"_id": f"d{n}", "text": f"{n} " + f"word{n} thing{n} " * 3} for n in range(40)]
    queries = [
        {"_id": f"q{n}", "text": f"{n} " + f"word{(n + 7) % 40} thing{(n + 7) % 40} " * 3}
        for n in range(40)
    ]
    for name, rows in (("corpus", documents), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines, "utf-8")
    (tmp_path / "qrels" / "test.tsv").write_text(
        "".join(f"q{n}\td{n}\t1\n" for n in range(40)), "utf-8"
    )
    found = evaluate(NoisyWords(), load_data(tmp_path))
    advice, without = found.advice
    assert found["dense"]["nDCG@10"] == 1.0
    assert found["all 1/0.3/1"]["nDCG@10"] < 0.7
    assert advice.warning.startswith(
        "the default hybrid (all 1/0.3/1) is worse than dense alone: nDCG@10 0."
    )
    assert advice.best_value == advice.crossed_value == 1.0
    assert advice.arguments in advice.text
    assert f"weights=({advice.best.weights[0]:g}, " in advice.arguments
    assert advice.gain.p_randomisation < 0.001
    # Here 0.3 of lexical scores is not enough to do harm.
    assert (without.warning, without.default_value) == (None, 1.0)
    assert "rerank" not in without.arguments
    json.dumps(found.to_json())


def test_no_warning_where_the_default_is_best(beir):
    found = evaluate(FakeEncoder(), load_data(beir), options=EvaluationOptions(folds=2))
    best = max(found[name]["nDCG@10"] for name in ("dense", "sparse", "colbert"))
    every, without = found.advice
    assert (every.warning is None) == (found["all 1/0.3/1"]["nDCG@10"] >= best)
    assert (len(every.chosen), without.parts) == (2, ("dense", "sparse"))
    assert set(without.best.parts) <= {"dense", "sparse"}


def test_a_real_model_computes_each_text_once(beir, tmp_path):
    encoder = Encoder.from_pretrained(tiny_checkpoint(tmp_path / "m", positions=64), device="cpu")
    found = evaluate(encoder, load_data(beir), options=EvaluationOptions(folds=2))
    assert {"dense", "sparse", "colbert", "all 1/0.3/1"} <= set(found.measured)
    assert encoder.stats().texts == found.encoded == 10
    encoder.close()


def test_a_query_does_not_find_itself_where_asked(tmp_path):
    texts = {"1": "panda bear", "2": "panda fish", "3": "city river", "4": "city bridge"}
    data = RetrievalData(
        "own",
        texts,
        tuple(texts.items()),
        {"1": {"2": 1}, "2": {"1": 1}, "3": {"4": 1}, "4": {"3": 1}},
    )
    with_ = evaluate(FakeEncoder(), data, options=NO_ADVICE)
    assert with_["dense"]["Success@1"] == 0.0
    options = EvaluationOptions(folds=0, ignore_identical_ids=True)
    without = evaluate(FakeEncoder(), data, options=options)
    for name in ("dense", "sparse", "colbert", "all 1/0.3/1", "rrf 1/1/1"):
        assert without[name]["Success@1"] == 1.0
        assert all(query not in own for query, own in without.run(name).items())


def test_relevant_documents_that_are_absent_are_told(beir):
    with (beir / "qrels" / "test.tsv").open("a", encoding="utf-8") as file:
        file.write("q1\tgone\t1\n")
    found = evaluate(FakeEncoder(), load_data(beir), options=NO_ADVICE)
    assert "1 of 6 relevant documents are not in the collection, 'gone'" in found.notes[-1]


def test_what_the_extra_brings_is_named(beir, monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    encoder = FakeEncoder()
    with pytest.raises(MissingPackageError, match=r"pip install 'm3-retrieval\[evaluate\]'"):
        evaluate(encoder, load_data(beir))
    assert encoder.calls == []
