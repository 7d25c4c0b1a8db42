"""The reranker classes of the facade; the numbers are FlagEmbedding's, see tests/parity."""

import importlib.util
import inspect
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from m3_core.errors import UnsupportedModelError
from m3_core.flagembedding import (
    FlagAutoReranker,
    FlagLLMReranker,
    FlagReranker,
    LayerWiseFlagLLMReranker,
    LightWeightFlagLLMReranker,
)
from m3_core.network import TruncationWarning
from m3_core.testing import tiny_checkpoint
from m3_core.testing.rerankers import tiny_reranker

_spec = importlib.util.spec_from_file_location(
    "record_rerankers", Path(__file__).parents[2] / "parity" / "record_rerankers.py"
)
recorder = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recorder)
STORED = json.loads(recorder.STORED.read_text(encoding="utf-8"))
CLASSES = {
    "cross-encoder": FlagReranker,
    "llm": FlagLLMReranker,
    "layerwise": LayerWiseFlagLLMReranker,
    "lightweight": LightWeightFlagLLMReranker,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("flag_rerankers")
    return {kind: str(tiny_reranker(root / kind, kind=kind)) for kind in CLASSES}


@pytest.mark.parametrize("kind", CLASSES)
def test_scores_with_flagembeddings_arguments(folders, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        for stored in STORED[kind]:
            setting = {recorder._NAMES.get(k, k): v for k, v in stored["setting"].items()}
            scores = CLASSES[kind](folders[kind], devices="cpu", **setting).compute_score(
                recorder.PAIRS
            )
            assert np.shape(scores) == np.shape(stored["scores"])
            np.testing.assert_allclose(scores, stored["scores"], atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore::m3_core.network.TruncationWarning")
def test_settings_of_a_call(folders):
    reranker = LightWeightFlagLLMReranker(folders["lightweight"], devices=["cpu"])
    options = {"cutoff_layers": [4, 2], "compress_layers": [3], "compress_ratio": 4}
    pairs = recorder.PAIRS[:3]
    stored = STORED["lightweight"][3]["scores"]
    scores = reranker.compute_score(pairs, **options, batch_size=2, max_length=48)
    np.testing.assert_allclose(scores, np.array(stored)[:, :3], atol=1e-4)
    del options["compress_layers"]
    again = reranker.compute_score(pairs, **options, compress_layer=[3], max_length=48)
    assert again == scores
    with pytest.raises(TypeError, match="'no_such'"):
        reranker.compute_score(pairs, no_such=1)
    with pytest.raises(TypeError, match="'cutoff_layers'"):
        FlagReranker(folders["cross-encoder"], devices="cpu").compute_score(pairs, cutoff_layers=1)


def test_a_single_pair_and_none(folders):
    reranker = FlagReranker(
        folders["cross-encoder"], query_max_length=256, passage_max_length=512, devices=["cpu"]
    )
    one = reranker.compute_score(["what is panda?", "hi"])
    assert one == pytest.approx(reranker.compute_score([("what is panda?", "hi")]), abs=2e-6)
    assert len(one) == 1
    assert reranker.compute_score([]) == []
    normalized = reranker.compute_score(("what is panda?", "hi"), normalize=True)
    assert normalized == pytest.approx([1 / (1 + np.exp(-one[0]))])
    reranker.normalize = True
    assert reranker.compute_score(("what is panda?", "hi")) == pytest.approx(normalized, abs=2e-6)


def test_instruction_formats(folders):
    plain = FlagReranker(folders["cross-encoder"], devices="cpu")
    formatted = FlagReranker(
        folders["cross-encoder"],
        query_instruction_for_rerank="Find",
        query_instruction_format="{}: {}",
        passage_instruction_for_rerank="Text",
        passage_instruction_format=r"{}\n{}",
        devices="cpu",
    )
    expected = plain.compute_score([("Find: a {b}", "Text\nc")])
    assert formatted.compute_score([("a {b}", "c")]) == pytest.approx(expected, abs=2e-6)


def test_what_cannot_be_served_is_refused(folders):
    with pytest.raises(ValueError, match="serves llm: use FlagAutoReranker"):
        FlagLLMReranker(folders["cross-encoder"], devices="cpu")
    with pytest.raises(ValueError, match="merge_and_unload"):
        FlagLLMReranker(folders["llm"], peft_path="adapter", devices="cpu")
    with pytest.raises(TypeError, match="no option 'no_such'"):
        FlagReranker(folders["cross-encoder"], devices="cpu", no_such=1)


@pytest.mark.parametrize("kind", CLASSES)
def test_the_class_is_told_from_the_checkpoint(folders, kind):
    found = FlagAutoReranker.from_finetuned(folders[kind], devices="cpu")
    assert type(found) is CLASSES[kind]
    assert f"kind={kind!r}" in repr(found)


def test_the_class_may_be_named(folders, tmp_path):
    named = FlagAutoReranker.from_finetuned(
        folders["llm"], model_class="decoder-only-base", devices="cpu"
    )
    assert type(named) is FlagLLMReranker
    with pytest.raises(ValueError, match="'encoder-only-m3' is none of"):
        FlagAutoReranker.from_finetuned(folders["llm"], model_class="encoder-only-m3")
    with pytest.raises(UnsupportedModelError, match="XLMRobertaModel"):
        FlagAutoReranker.from_finetuned(str(tiny_checkpoint(tmp_path)))
    with pytest.raises(OSError, match="from_finetuned"):
        FlagAutoReranker()


# Names and defaults of FlagEmbedding 1.4.2's constructors.
COMMON = {
    "query_instruction_format": "{}{}",
    "passage_instruction_format": "{}{}",
    "trust_remote_code": False,
    "cache_dir": None,
    "devices": None,
    "batch_size": 128,
    "query_max_length": None,
    "max_length": 512,
    "normalize": False,
    "use_fp16": False,
}
DECODER = COMMON | {
    "peft_path": None,
    "use_bf16": False,
    "prompt": None,
    "query_instruction_for_rerank": "A: ",
    "passage_instruction_for_rerank": "B: ",
}
SIGNATURES = {
    "cross-encoder": COMMON
    | {"query_instruction_for_rerank": None, "passage_instruction_for_rerank": None},
    "llm": DECODER,
    "layerwise": DECODER | {"cutoff_layers": None},
    "lightweight": DECODER | {"cutoff_layers": None, "compress_layers": (8,), "compress_ratio": 1},
}


@pytest.mark.parametrize("kind", CLASSES)
def test_signatures(kind):
    parameters = inspect.signature(CLASSES[kind]).parameters
    assert next(iter(parameters)) == "model_name_or_path"
    defaults = {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in ("model_name_or_path", "kwargs")
    }
    assert defaults == SIGNATURES[kind]
