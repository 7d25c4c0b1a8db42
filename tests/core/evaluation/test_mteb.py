"""mteb on a retrieval task of its own kind, of a few local documents."""

import warnings

import pytest

from m3_core.evaluation import (
    EvaluationOptions,
    evaluate,
    load_data,
    mteb_model,
    register_mteb_models,
)
from m3_core.testing import FakeEncoder

with warnings.catch_warnings():
    # Not ours: of what it imports.
    warnings.simplefilter("ignore")
    mteb = pytest.importorskip("mteb")
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.models_protocols import EncoderProtocol, SearchProtocol

SETTINGS = {
    "dense": (1.0, 0.0, 0.0),
    "sparse": (0.0, 1.0, 0.0),
    "colbert": (0.0, 0.0, 1.0),
    "all 1/0.3/1": (1.0, 0.3, 1.0),
}


class Pandas(AbsTaskRetrieval):
    metadata = TaskMetadata(
        name="Pandas",
        description="A few documents.",
        reference=None,
        dataset={"path": "local/pandas", "revision": "1"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=("2026-01-01", "2026-01-02"),
        domains=["Written"],
        task_subtypes=[],
        license="mit",
        annotations_creators="human-annotated",
        dialect=[],
        sample_creation="created",
        bibtex_citation="",
    )
    data = None

    def load_data(self, *_, **__):
        documents = [{"id": key, "text": text, "title": ""} for key, text in self.data.corpus]
        queries = [{"id": key, "text": text} for key, text in self.data.queries.items()]
        self.dataset = {
            "default": {
                "test": {
                    "corpus": Dataset.from_list(documents),
                    "queries": Dataset.from_list(queries),
                    "relevant_docs": {key: self.data.qrels[key] for key in self.data.queries},
                    "top_ranked": None,
                }
            }
        }
        self.data_loaded = True


def scores_of(model, data):
    task = Pandas()
    task.data = data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    return found.task_results[0].scores["test"][0]


@pytest.mark.parametrize("kept", [False, True])
def test_a_task_gives_the_numbers_of_evaluate_from_one_pass(beir, tmp_path, kept):
    data, folder = load_data(beir), tmp_path / "kept" if kept else None
    options = EvaluationOptions(folds=0, measures=("nDCG@10", "R@5", "RR@10", "Success@1"))
    expected = evaluate(FakeEncoder(), data, options=options)
    encoder = FakeEncoder()
    for name, weights in SETTINGS.items():
        found = scores_of(mteb_model(encoder, weights, encodings=folder), data)
        ours = expected[name]
        assert found["ndcg_at_10"] == pytest.approx(ours["nDCG@10"], abs=1e-5)
        assert found["recall_at_5"] == pytest.approx(ours["R@5"], abs=1e-5)
        assert found["mrr_at_10"] == pytest.approx(ours["RR@10"], abs=1e-5)
        assert found["hit_rate_at_1"] == pytest.approx(ours["Success@1"], abs=1e-5)
    # One pass a text gives dense, sparse and colbert together; kept, it serves all settings.
    once = [("document", 6), ("query", 4)]
    assert encoder.calls == (once if kept else once * len(SETTINGS))


def test_a_model_is_both_of_mtebs_protocols_and_finds_among_given_documents(beir):
    data = load_data(beir)
    model = mteb_model(FakeEncoder(), (1, 0.3, 0))
    assert isinstance(model, SearchProtocol)
    assert isinstance(model, EncoderProtocol)
    vectors = model.encode(
        [{"text": ["a panda", "a bear"]}], task_metadata=None, hf_split="test", hf_subset="default"
    )
    assert model.similarity(vectors, vectors).diagonal() == pytest.approx([1.0, 1.0])
    assert model.similarity_pairwise(vectors, vectors) == pytest.approx([1.0, 1.0])
    assert (model.mteb_model_meta.model_type, model.mteb_model_meta.embed_dim) == (["hybrid"], 32)
    asked = {
        "task_metadata": Pandas.metadata,
        "hf_split": "test",
        "hf_subset": "default",
        "encode_kwargs": {},
    }
    task = Pandas()
    task.data = data
    task.load_data()
    split = task.dataset["default"]["test"]
    with pytest.raises(RuntimeError, match="after index"):
        model.search(split["queries"], top_k=2, **asked)
    model.index(split["corpus"], **asked)
    ranked = {key: ["d5", "d3", "d1"] for key in data.queries}
    found = model.search(split["queries"], top_k=2, top_ranked=ranked, **asked)
    assert all(set(own) <= {"d5", "d3", "d1"} and len(own) == 2 for own in found.values())
    assert next(iter(found["q2"])) == "d3"


def test_registered_models_load_by_name():
    names = register_mteb_models()
    assert "m3-retrieval/bge-m3-all" in names
    meta = mteb.get_model_meta("m3-retrieval/bge-m3-all")
    assert (meta.adapted_from, meta.license) == ("BAAI/bge-m3", "mit")
    model = mteb.get_model("m3-retrieval/m3-small-dense+sparse", device="cpu")
    assert model.setting.weights == (1.0, 0.3, 0.0)
    assert model.mteb_model_meta.experiment_kwargs["fusion"] == "weights"
    model.encoder.close()
