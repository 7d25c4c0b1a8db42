import itertools
import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3_core.errors import EvaluationDataError
from m3_core.evaluation import MEASURES, compare_values, measure_run, read_run, write_run

QRELS = {"q1": {"a": 2, "b": 1, "c": 0}, "q2": {"d": 1}, "q3": {"e": 1}}
RUN = "q1 Q0 c 1 3.5 hand\nq1 Q0 a 2 2.5 hand\nq1 Q0 x 3 1 hand\nq2 Q0 d 1 -0.5 hand\n"


def test_hand_made_run_files_measure_as_by_hand_and_as_by_ir_measures(tmp_path):
    file = tmp_path / "hand.trec"
    file.write_text(RUN, "utf-8")
    run = read_run(file)
    assert run == {"q1": {"c": 3.5, "a": 2.5, "x": 1.0}, "q2": {"d": -0.5}}
    found = measure_run(QRELS, run)
    ideal = 2 + 1 / math.log2(3)
    # q1 finds a, of grade 2, second; q2 finds all first; q3 finds nothing.
    by_hand = {
        "nDCG@10": (2 / math.log2(3) / ideal + 1 + 0) / 3,
        "R@5": (0.5 + 1 + 0) / 3,
        "R@20": 0.5,
        "R@100": 0.5,
        "RR@10": (0.5 + 1 + 0) / 3,
        "Success@1": 1 / 3,
    }
    assert found.means == pytest.approx(by_hand, abs=1e-9)
    theirs = ir_measures.calc_aggregate(
        [ir_measures.parse_measure(name) for name in MEASURES],
        QRELS,
        ir_measures.read_trec_run(str(file)),
    )
    assert found.means == pytest.approx({str(m): v for m, v in theirs.items()}, abs=1e-12)


def test_a_run_without_documents_is_measured_as_zero():
    found = measure_run(QRELS, {"q1": {}}, ["RR@10"])
    assert found.values["RR@10"].tolist() == [0.0, 0.0, 0.0]


SCORES = st.floats(-1e6, 1e6, width=32)
IDS = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=6)


@settings(deadline=None)
@given(run=st.dictionaries(IDS, st.dictionaries(IDS, SCORES, min_size=1), min_size=1))
def test_run_files_give_back_what_was_written(tmp_path_factory, run):
    file = tmp_path_factory.mktemp("runs") / "a" / "run.trec"
    write_run(file, run, "any name")
    assert read_run(file) == run
    for line in file.read_text("utf-8").splitlines():
        assert line.split()[5] == "any_name"


def test_run_files_that_are_none_are_told(tmp_path):
    file = tmp_path / "run.trec"
    with pytest.raises(ValueError, match="id 'a b' is empty or holds white space"):
        write_run(file, {"q": {"a b": 1.0}})
    assert not file.exists()
    for content, message in (
        ("q Q0 d one\n", "run.trec:1: a line of a run is"),
        ("q Q0 d 1 high x\n", "run.trec:1: a line of a run is"),
        ("q Q0 d 1 1 x\nq Q0 d 2 0 x\n", "run.trec:2: document 'd' comes twice for 'q'"),
        ("", "holds no run"),
    ):
        file.write_text(content, "utf-8")
        with pytest.raises(EvaluationDataError, match=message):
            read_run(file)


def test_measures_that_are_none_are_told():
    for name in ("nDCG@ten", "quality", "__import__('os')"):
        with pytest.raises(ValueError, match="is not one of ir-measures, such as nDCG@10"):
            measure_run(QRELS, {}, [name])


def test_randomisation_is_the_share_of_signs_that_give_as_much():
    differences = np.array([0.5, 0.25, 0.25, 0.0, -0.125, 0.125, 0.0, 0.5])
    found = compare_values(differences + 1, np.ones(8))
    sums = [abs(differences @ signs) for signs in itertools.product((1, -1), repeat=8)]
    assert found.p_randomisation == pytest.approx(np.mean(np.array(sums) >= differences.sum()))
    assert (found.better, found.worse, found.equal) == (5, 1, 2)
    assert found.mean == pytest.approx(differences.mean())
    assert found.low < found.mean < found.high
    turned = compare_values(np.ones(8), differences + 1)
    assert (turned.mean, turned.p_ttest) == pytest.approx((-found.mean, found.p_ttest))


def test_runs_without_difference_and_with_one():
    same = compare_values([0.5, 1.0], [0.5, 1.0])
    assert (same.p_randomisation, same.p_ttest, same.mean) == (1.0, 1.0, 0.0)
    assert compare_values([1.0, 0.5], [0.5, 0.5]).p_randomisation == 1.0
    assert compare_values([1.0], [0.5]).p_ttest == 1.0
    assert compare_values([1.0] * 9, [0.5] * 9).p_randomisation == pytest.approx(2 / 2**9)
    with pytest.raises(ValueError, match="compared on the same queries"):
        compare_values([1.0], [1.0, 0.5])


def test_many_queries_are_sampled_and_always_alike():
    rng = np.random.default_rng(1)
    first = rng.random(300)
    second = first - rng.normal(0.02, 0.1, 300)
    found = compare_values(first, second)
    assert found == compare_values(first, second)
    assert found.p_randomisation == pytest.approx(found.p_ttest, abs=0.02)
