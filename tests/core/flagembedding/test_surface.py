"""What programs read of FlagEmbedding's objects, and pairs in arrays."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from m3_core.flagembedding import FlagLLMModel, FlagReranker
from m3_core.testing import tiny_reranker

PAIRS = [("what is a panda?", "a bear"), ("what is a river?", "water on its way")]


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    folder = tiny_reranker(tmp_path_factory.mktemp("surface") / "reranker")
    return FlagReranker(str(folder), devices="cpu")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    folder = tiny_reranker(tmp_path_factory.mktemp("surface") / "llm", kind="llm")
    return FlagLLMModel(str(folder), devices="cpu", use_fp16=False)


@pytest.mark.parametrize("kind", ["m3", "bge", "reranker", "decoder"])
def test_tokenizer_and_device(request, kind):
    model = request.getfixturevalue(kind)
    assert model.device == torch.device("cpu")
    text = "a panda eats bamboo"
    own = model._loaded.tokenizer.content_ids([text], 100)[0]
    assert model.tokenizer(text, add_special_tokens=False)["input_ids"] == own
    assert model.tokenizer is model.tokenizer


@pytest.mark.parametrize("kind", ["m3", "bge", "reranker", "decoder"])
@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("model", "load the checkpoint with transformers"),
        ("encode_single_device", "call encode"),
        ("start_multi_process_pool", "runs on one device"),
        ("compute_score_single_gpu", "call compute_score"),
        ("nonsense", "has no attribute 'nonsense'$"),
    ],
)
def test_what_there_is_not_is_answered(request, kind, name, instead):
    model = request.getfixturevalue(kind)
    assert not hasattr(model, name)
    with pytest.raises(AttributeError, match=instead):
        getattr(model, name)
    assert type(copy.copy(model)) is type(model)


def test_pairs_in_arrays(m3, reranker):
    for scorer in (reranker, reranker._shared):
        np.testing.assert_allclose(
            scorer.compute_score(np.array(PAIRS)), scorer.compute_score(PAIRS), atol=1e-5
        )
    np.testing.assert_allclose(
        reranker.compute_score(np.array(PAIRS[0])), reranker.compute_score(PAIRS[0]), atol=1e-5
    )
    for pairs in (PAIRS, PAIRS[0]):
        found, expected = m3.compute_score(np.array(pairs)), m3.compute_score(pairs)
        assert found.keys() == expected.keys()
        for key in expected:
            np.testing.assert_allclose(found[key], expected[key], atol=1e-5)
