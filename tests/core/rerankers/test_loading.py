import copy
import pickle

import pytest

import m3_core
from m3_core import Reranker
from m3_core.errors import (
    ClosedError,
    CorruptCheckpointError,
    UnsupportedModelError,
)
from m3_core.testing import tiny_checkpoint
from m3_core.testing.rerankers import tiny_reranker

PAIRS = [("what is a panda", "a panda is a bear"), ("what is a panda", "hi")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("rerankers")
    return {kind: tiny_reranker(root / kind, kind=kind) for kind in ("cross-encoder", "llm")}


def test_closing(folders):
    with Reranker.from_pretrained(folders["cross-encoder"], device="cpu") as reranker:
        other = reranker.with_options(max_length=100)
        assert "max_length=512" in repr(reranker)
    assert reranker.closed
    assert other.closed
    assert "closed" in repr(other)
    reranker.close()
    with pytest.raises(ClosedError, match="was closed: load it again"):
        reranker.compute_score(PAIRS)


def test_shared_weights(folders):
    one = Reranker.shared(folders["llm"], device="cpu", max_length=100)
    two = Reranker.shared(folders["llm"], device="cpu", query_instruction="")
    assert one.model is two.model
    assert (one.max_length, two.max_length) == (100, 512)
    assert (one.query_instruction, two.query_instruction) == ("A: ", "")
    assert pickle.loads(pickle.dumps(one)).max_length == 100
    assert copy.deepcopy(one) is one
    with pytest.raises(TypeError, match="no_such"):
        Reranker.shared(folders["llm"], device="cpu", no_such=1)
    one.close()
    assert not Reranker.shared(folders["llm"], device="cpu").closed


def test_an_encoder_is_no_reranker(tmp_path):
    folder = tiny_checkpoint(tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"Encoder\.from_pretrained"):
        Reranker.from_pretrained(folder)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("cross-encoder", {"id2label": {"0": "a", "1": "b"}}, "2 classes"),
        ("cross-encoder", {"model_type": "deberta-v2"}, "deberta-v2"),
        ("llm", {"model_type": "gpt2"}, "gpt2"),
        ("layerwise", {"head_type": "complex"}, "'complex'"),
        ("lightweight", {"layer_wise": False}, "layer_wise=False"),
    ],
)
def test_other_architectures_are_refused(tmp_path, kind, change, message):
    import json

    folder = tiny_reranker(tmp_path, kind=kind)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UnsupportedModelError, match=message):
        Reranker.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["cross-encoder", "layerwise"])
def test_missing_weights_are_refused(tmp_path, kind):
    from safetensors.torch import load_file, save_file

    folder = tiny_reranker(tmp_path, kind=kind)
    path = folder / "model.safetensors"
    state = load_file(path)
    del state[next(name for name in state if name.startswith(("classifier", "lm_head")))]
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(CorruptCheckpointError, match="lack 1 tensors"):
        Reranker.from_pretrained(folder)


def test_the_package_names_it():
    assert m3_core.Reranker is Reranker
    assert "Reranker" in dir(m3_core)
