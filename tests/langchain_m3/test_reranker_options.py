"""Options of the rerankers: assigned after construction, and under other packages' names."""

from __future__ import annotations

import pytest
import torch
from langchain_core.documents import Document
from pydantic import ValidationError

from langchain_m3 import BGEReranker, M3CascadeReranker, M3Reranker
from m3_core import Reranker
from m3_core.testing.rerankers import tiny_reranker

QUERY = "what is a panda"
TEXTS = ["river", "a panda is a bear", "", "city model", "a panda is a bear", "water world"]
PAIRS = [(QUERY, text) for text in TEXTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_reranker(tmp_path_factory.mktemp("langchain") / "reranker")


@pytest.fixture(scope="module")
def core(folder):
    return Reranker.from_pretrained(folder, device="cpu", dtype="float32")


@pytest.fixture
def documents():
    return [Document(text, id=str(i)) for i, text in enumerate(TEXTS)]


def test_what_is_assigned_takes_effect(folder, core, documents):
    reranker = BGEReranker(model_name=str(folder), dtype="float32", device="cpu")
    plain = reranker.model_dump()
    for name, value in (
        ("max_length", 12),
        ("query_max_length", 3),
        ("query_instruction", "q: "),
        ("document_instruction", "d: "),
    ):
        setattr(reranker, name, value)
        expected = core.with_options(**{name: value})
        assert reranker._reranker.options == expected.options
        assert reranker.score([("panda", "bear")]) == pytest.approx(
            expected.compute_score([("panda", "bear")]), abs=1e-6
        )
        setattr(reranker, name, None)
        assert reranker.model_dump() == plain
        assert reranker._reranker.options == core.options
    reranker.top_n = 3
    reranker.normalize = True
    expected = core.rank(QUERY, TEXTS, 3, normalize=True)
    found = reranker.compress_documents(documents, QUERY)
    assert [int(one.id) for one in found] == [i for i, _ in expected]
    reranker.score_threshold = 2.0
    assert reranker.compress_documents(documents, QUERY) == []


def test_what_cannot_be_assigned_says_so(folder, core):
    reranker = BGEReranker(reranker=core)
    for name, value in (("top_n", 0), ("max_length", "many"), ("max_length", 10**6)):
        with pytest.raises(ValueError, match=name):
            setattr(reranker, name, value)
    for name in ("model_name", "revision", "device", "dtype", "reranker"):
        with pytest.raises(ValidationError, match="make a new object, BGEReranker"):
            setattr(reranker, name, "other")
    assert reranker._reranker.options == core.options
    assert (reranker.top_n, reranker.max_length) == (None, None)


def _same(reranker, made, documents):
    found, expected = (
        {
            one.id: one.metadata["relevance_score"]
            for one in each.compress_documents(documents, QUERY)
        }
        for each in (reranker, made)
    )
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, abs=1e-6)
    assert reranker.model_dump() == made.model_dump()


def test_a_cascade_and_m3s_scores_follow_assignments(encoder, core, documents):
    cascade = M3CascadeReranker(encoder=encoder, reranker=core)
    cascade.first, cascade.top_n, cascade.weights = 2, 1, (1, 0, 0)
    options = {"first": 2, "top_n": 1, "weights": (1, 0, 0)}
    _same(cascade, M3CascadeReranker(encoder=encoder, reranker=core, **options), documents)
    with pytest.raises(ValidationError):
        cascade.weights = (0, 0, 0)
    with pytest.raises(ValidationError):
        cascade.first = 0
    reranker = M3Reranker(encoder=encoder, weights=(1, 0, 0))
    reranker.weights, reranker.top_n = (0.4, 0.2, 0.4), 2
    _same(reranker, M3Reranker(encoder=encoder, weights=(0.4, 0.2, 0.4), top_n=2), documents)


@pytest.mark.parametrize(
    ("keywords", "dtype"),
    [
        ({"use_fp16": False}, "float32"),
        ({"use_fp16": True}, "auto"),
        ({"model_kwargs": {"device": "cpu", "max_length": 64}}, "auto"),
        ({"model_kwargs": {"automodel_args": {"torch_dtype": torch.float32}}}, "float32"),
    ],
)
def test_keywords_of_other_rerankers(folder, core, keywords, dtype):
    reranker = BGEReranker(model=str(folder), **keywords)
    assert (reranker.model_name, reranker.dtype) == (str(folder), dtype)
    assert reranker.max_length == keywords.get("model_kwargs", {}).get("max_length")
    if dtype == "float32":
        assert reranker.score(PAIRS) == pytest.approx(core.compute_score(PAIRS), abs=1e-5)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"model": "a", "model_name": "b"}, "model_name is set twice"),
        ({"model": object()}, "passed as reranker="),
        ({"use_fp16": True, "dtype": "float32"}, "dtype is set twice"),
        ({"model_kwargs": {"activation_fn": torch.nn.Sigmoid()}}, "pass normalize=True"),
        ({"model_kwargs": {"backend": "onnx"}}, "run in torch"),
        ({"model_kwargs": {"model_kwargs": {"file_name": "a"}}}, "as dtype="),
        ({"batch_size": 4}, "filled by tokens"),
        ({"top_k": 4}, "pass top_n="),
        ({"devices": ["cpu"]}, "pass the one device as device="),
    ],
)
def test_keywords_that_cannot_be_honoured_name_their_replacement(folder, keywords, message):
    with pytest.raises(ValidationError, match=message):
        BGEReranker(
            **{"model_name": str(folder)} | keywords if "model" not in keywords else keywords
        )
    with pytest.raises(TypeError, match="unknown keys: devise"):
        BGEReranker(model_kwargs={"devise": "cpu"})
