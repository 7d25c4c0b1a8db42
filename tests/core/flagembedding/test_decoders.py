"""Classes for decoders: signatures, settings, the choice by name; numbers are in tests/parity."""

from __future__ import annotations

import inspect
import json
import shutil

import numpy as np
import pytest
import torch
from tests.parity.record_decoders import TEXTS, write_checkpoint

from m3_core.encoder.encoder import Encoder
from m3_core.errors import UnsupportedModelError
from m3_core.flagembedding import FlagAutoModel, FlagICLModel, FlagLLMModel
from m3_core.network import TruncationWarning
from m3_core.testing import tiny_checkpoint

EXACT = {"use_fp16": False, "devices": "cpu"}
# FlagEmbedding 1.4.2, inference/embedder/decoder_only/{base,icl}.py.
FIRST = {
    "normalize_embeddings": True,
    "use_fp16": True,
    "use_bf16": False,
    "query_instruction_for_retrieval": None,
}
LAST = {
    "trust_remote_code": False,
    "cache_dir": None,
    "batch_size": 256,
    "query_max_length": 512,
    "passage_max_length": 512,
    "convert_to_numpy": True,
    "truncate_dim": None,
}
SIGNATURES = {
    FlagLLMModel: {
        **FIRST,
        "query_instruction_format": "Instruct: {}\nQuery: {}",
        "devices": None,
        **LAST,
    },
    FlagICLModel: {
        **FIRST,
        "query_instruction_format": "<instruct>{}\n<query>{}",
        "suffix": "\n<response>",
        "devices": None,
        "examples_for_task": None,
        "examples_instruction_format": "<instruct>{}\n<query>{}\n<response>{}",
        **LAST,
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("decoders") / "mine", "gemma2")


@pytest.mark.parametrize("kind", SIGNATURES)
def test_arguments_stand_in_flagembeddings_order_with_its_defaults(kind):
    parameters = inspect.signature(kind.__init__).parameters.values()
    found = [(p.name, p.default) for p in parameters if p.default is not p.empty]
    assert found == list(SIGNATURES[kind].items())


def test_shapes_and_types(folder):
    model = FlagLLMModel(str(folder), **EXACT)
    assert model.encode("panda").shape == (32,)
    assert model.encode([]).shape == (0, 32)
    assert model.encode(TEXTS).dtype == np.float32
    tensor = model.encode_queries(["panda"], convert_to_numpy=False)
    assert (type(tensor), tuple(tensor.shape)) == (torch.Tensor, (1, 32))
    model.truncate_dim = 8
    np.testing.assert_allclose(np.linalg.norm(model.encode(TEXTS), axis=1), 1, atol=1e-6)


def test_objects_share_one_network(folder):
    models = [FlagLLMModel(str(folder), **EXACT), FlagICLModel(str(folder), **EXACT)]
    assert models[0]._model is models[1]._model


def test_examples_go_before_queries_only(folder):
    model = FlagICLModel(str(folder), **EXACT)
    plain = model.encode_queries(TEXTS), model.encode_corpus(TEXTS)
    model.set_examples([{"instruct": "a", "query": "b", "response": "c"}])
    assert model.prefix == "<instruct>a\n<query>b\n<response>c\n\n"
    assert np.abs(model.encode_queries(TEXTS) - plain[0]).max() > 0.01
    np.testing.assert_allclose(model.encode_corpus(TEXTS), plain[1], atol=1e-6)
    model.set_examples()
    np.testing.assert_allclose(model.encode_queries(TEXTS), plain[0], atol=1e-6)


def test_lengths_beyond_the_model_are_lowered(folder):
    model = FlagLLMModel(str(folder), **EXACT)
    longer = "the river of the city " * 200
    with pytest.warns(TruncationWarning, match="takes up to 512 tokens: 1 of 2 texts") as caught:
        found = model.encode([longer, "short"], max_length=8192)
    assert len(caught) == 1
    with pytest.warns(TruncationWarning, match="max_length=512"):
        np.testing.assert_allclose(found[:1], model.encode([longer]), atol=1e-6)


def test_what_cannot_be_honoured_is_an_error(folder, tmp_path):
    with pytest.raises(ValueError, match="decoders have 'last_token' only"):
        FlagLLMModel(str(folder), pooling_method="mean", **EXACT)
    with pytest.raises(TypeError, match="no option 'query_instruction'"):
        FlagICLModel(str(folder), query_instruction="x", **EXACT)
    with pytest.raises(TypeError, match="no option 'instruction'"):
        FlagICLModel(str(folder), **EXACT).encode_queries(["a"], instruction="x")
    with pytest.raises(ValueError, match="no room for the query"):
        FlagICLModel(str(folder), **EXACT).encode_queries(["a"], max_length=4)
    with pytest.raises(UnsupportedModelError, match="Encoders load with FlagModel"):
        FlagLLMModel(str(tiny_checkpoint(tmp_path / "encoder")), **EXACT)
    with pytest.raises(UnsupportedModelError, match="FlagLLMModel and FlagICLModel"):
        Encoder.from_pretrained(folder)
    for name, change, says in (
        ("both-ways", {"is_causal": False}, "attend to later ones"),
        ("own-code", {"auto_map": {"AutoModel": "modeling.Model"}}, "brings model code"),
    ):
        other = tmp_path / name
        shutil.copytree(folder, other)
        config = json.loads((other / "config.json").read_text("utf-8")) | change
        (other / "config.json").write_text(json.dumps(config), "utf-8")
        with pytest.raises(UnsupportedModelError, match=says):
            FlagLLMModel(str(other), trust_remote_code=True, **EXACT)


def test_auto_model_chooses_decoders(folder, tmp_path):
    for name, kind, template in (
        ("bge-multilingual-gemma2", FlagLLMModel, "<instruct>{}\n<query>{}"),
        ("bge-en-icl", FlagICLModel, "<instruct>{}\n<query>{}"),
        ("Qwen3-Embedding-0.6B", FlagLLMModel, "Instruct: {}\nQuery:{}"),
    ):
        shutil.copytree(folder, tmp_path / name)
        model = FlagAutoModel.from_finetuned(str(tmp_path / name), **EXACT)
        assert type(model) is kind
        assert model.query_instruction_format == template
        assert model.pooling_method == "last_token"
    model = FlagAutoModel.from_finetuned(str(folder), model_class="decoder-only-icl", **EXACT)
    assert type(model) is FlagICLModel
    with pytest.raises(UnsupportedModelError, match="code of its own"):
        FlagAutoModel.from_finetuned("Alibaba-NLP/gte-Qwen2-7B-instruct", **EXACT)


def test_the_configuration_says_which_tokens_surround_a_text(folder, tmp_path):
    other = tmp_path / "flags"
    shutil.copytree(folder, other)
    path = other / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(config | {"add_eos_token": False, "add_bos_token": True}), "utf-8")
    tokenizers = [FlagLLMModel(str(one), **EXACT)._model.tokenizer for one in (folder, other)]
    assert [(one.prefix, one.suffix) for one in tokenizers] == [((2,), (1,)), ((2,), ())]
