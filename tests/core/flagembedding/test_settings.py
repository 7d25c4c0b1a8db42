"""Constructor arguments: instructions, lengths, pooling, devices, and the choice of class."""

from __future__ import annotations

import functools
import warnings
from enum import Enum

import numpy as np
import pytest
import torch

from m3_core.encoder.encoder import Encoder
from m3_core.errors import MissingRepresentationError
from m3_core.flagembedding import BGEM3FlagModel, FlagAutoModel, FlagModel, FlagReranker
from m3_core.network import TruncationWarning
from m3_core.testing import tiny_checkpoint
from m3_core.testing.rerankers import tiny_reranker

# Neighbours in a batch may change the last bit of a matrix product.
assert_close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6)

QUERIES = ["What is BGE M3?", "Defination of BM25"]
DOCUMENTS = [
    "BGE M3 is an embedding model supporting dense retrieval, lexical matching and "
    "multi-vector interaction.",
    "BM25 is a bag-of-words retrieval function that ranks a set of documents based on the "
    "query terms appearing in each document",
]


def test_no_instruction_unless_told(bge):
    # The checkpoint's folder has a known model's name, whose instruction the core would apply.
    known = Encoder.from_pretrained(bge.model_name_or_path, device="cpu", dtype="float32")
    assert known.query_instruction
    assert_close(bge.encode_queries(QUERIES), bge.encode(QUERIES))


def test_instructions_and_their_formats(bge_path):
    model = FlagModel(
        bge_path,
        use_fp16=False,
        devices="cpu",
        query_instruction_for_retrieval="find {this}",
        query_instruction_format=r"<instruct>{}\n<query>{}",
        passage_instruction_for_retrieval="passage: ",
    )
    plain = model.encode(["<instruct>find {this}\n<query>a {b}", "passage: c"])
    assert_close(model.encode_queries(["a {b}"])[0], plain[0])
    assert_close(model.encode_corpus(["c"])[0], plain[1])
    given = model.encode(["c"], instruction="passage", instruction_format="{}: {}")
    assert_close(given[0], plain[1])
    # Settings may be changed as attributes.
    model.query_instruction_for_retrieval = None
    assert_close(model.encode_queries(["passage: c"])[0], plain[1])


def test_pooling_is_the_arguments_not_the_checkpoints(tmp_path):
    path = str(tiny_checkpoint(tmp_path / "mean", kind="bge", pooling="mean"))
    cls, mean = (
        FlagModel(path, use_fp16=False, devices="cpu", pooling_method=method)
        for method in ("cls", "mean")
    )
    own = Encoder.from_pretrained(path, device="cpu", dtype="float32")
    assert_close(mean.encode(DOCUMENTS), own.encode_documents(DOCUMENTS).dense_vecs)
    assert np.abs(cls.encode(DOCUMENTS) - mean.encode(DOCUMENTS)).max() > 0.01
    with pytest.raises(ValueError, match="'max' is none of 'cls', 'mean', 'last_token'"):
        FlagModel(path, pooling_method="max")


def test_pooling_that_nobody_chose_is_the_checkpoints(tmp_path, m3_path):
    mean = str(tiny_checkpoint(tmp_path / "bge-m3", pooling="mean"))
    options = {"use_fp16": False, "devices": "cpu"}
    own = Encoder.from_pretrained(mean, device="cpu", dtype="float32")
    expected = own.encode_documents(DOCUMENTS).dense_vecs
    models = (
        BGEM3FlagModel(mean, **options),
        FlagModel(mean, **options),
        FlagAutoModel.from_finetuned(mean, **options),
        FlagAutoModel.from_finetuned(mean, model_class="encoder-only-base", **options),
    )
    for model in models:
        found = model.encode(DOCUMENTS)
        assert_close(found if isinstance(found, np.ndarray) else found["dense_vecs"], expected)
        assert model.pooling_method == "mean"
    assert BGEM3FlagModel(m3_path, **options).pooling_method == "cls"
    silent = tiny_checkpoint(tmp_path / "silent", pooling="mean")
    (silent / "1_Pooling" / "config.json").unlink()
    assert BGEM3FlagModel(str(silent), **options).pooling_method == "cls"


def test_the_packaged_model_pools_as_it_says(m3_small):
    found = BGEM3FlagModel("m3-small", use_fp16=False, devices="cpu").encode(DOCUMENTS)
    plain = m3_small.with_options(document_instruction="")
    assert_close(found["dense_vecs"], plain.encode_documents(DOCUMENTS).dense_vecs)


def test_normalisation_and_truncation(bge_path):
    plain, short = (
        FlagModel(bge_path, use_fp16=False, devices="cpu", normalize_embeddings=False, **more)
        for more in ({}, {"truncate_dim": 8})
    )
    vectors = plain.encode(DOCUMENTS)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).min() > 0.1
    assert_close(short.encode(DOCUMENTS), vectors[:, :8])
    short.normalize_embeddings = True
    np.testing.assert_allclose(np.linalg.norm(short.encode(DOCUMENTS), axis=1), 1, atol=1e-6)


def test_lengths_of_queries_and_passages(m3_path):
    model = BGEM3FlagModel(
        m3_path, use_fp16=False, devices="cpu", query_max_length=8, passage_max_length=16
    )
    text = "hello panda " * 100
    lengths = {}
    for name in ("encode_queries", "encode_corpus", "encode"):
        with pytest.warns(TruncationWarning):
            found = getattr(model, name)(text, return_colbert_vecs=True)
        lengths[name] = len(found["colbert_vecs"]) + 1
    assert lengths == {"encode_queries": 8, "encode_corpus": 16, "encode": 16}
    with pytest.warns(TruncationWarning, match="max_length=32"):
        model.encode(text, max_length=32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.compute_score([(text, text)], max_query_length=9)
    assert [str(entry.message).split("=")[1][:2] for entry in caught] == ["9 ", "16"]


def test_data_types(m3_path):
    exact = BGEM3FlagModel(m3_path, use_fp16=False, devices="cpu")
    assert exact.encoder.dtype == torch.float32
    fast = BGEM3FlagModel(m3_path, devices="cpu")
    assert fast.encoder.dtype in (torch.bfloat16, torch.float32)
    brain = BGEM3FlagModel(m3_path, use_bf16=True, devices="cpu")
    assert brain.encoder.dtype == fast.encoder.dtype
    assert fast.encode(QUERIES)["dense_vecs"].dtype == np.float32


def test_devices(bge_path):
    with pytest.warns(UserWarning, match="2 devices were named; 'cpu' alone"):
        model = FlagModel(bge_path, use_fp16=False, devices=["cpu", "cuda:7"])
    assert model.target_devices == ["cpu"]
    assert FlagModel(bge_path, use_fp16=False, device="cpu").target_devices == ["cpu"]
    for bad in ([], {"cpu"}, [None, "cpu"][:0]):
        with pytest.raises(ValueError, match="devices must be"):
            FlagModel(bge_path, devices=bad)


def test_models_share_their_weights(m3_path, m3):
    other = BGEM3FlagModel(m3_path, use_fp16=False, devices="cpu", pooling_method="mean")
    assert other.encoder.model is m3.encoder.model


def test_slips_are_errors(m3_path, bge_path):
    with pytest.raises(TypeError, match="no option 'query_instruction'"):
        FlagModel(bge_path, query_instruction="Find: ")
    with pytest.raises(ValueError, match="colbert_dim is 7"):
        BGEM3FlagModel(m3_path, colbert_dim=7)
    assert BGEM3FlagModel(m3_path, colbert_dim=32).return_dense


def test_missing_heads_are_errors(tmp_path):
    path = str(tiny_checkpoint(tmp_path / "dense", kind="dense"))
    model = BGEM3FlagModel(path, use_fp16=False, devices="cpu")
    assert model.encode(QUERIES)["dense_vecs"].shape == (2, 32)
    with pytest.raises(MissingRepresentationError):
        model.encode(QUERIES, return_sparse=True)


def test_auto_model_chooses_by_name(tmp_path, m3_path, bge_path):
    options = {"use_fp16": False, "devices": "cpu"}
    model = FlagAutoModel.from_finetuned(m3_path, return_sparse=True, **options)
    assert isinstance(model, BGEM3FlagModel)
    assert model.return_sparse
    assert isinstance(FlagAutoModel.from_finetuned(bge_path, **options), FlagModel)
    nested = tiny_checkpoint(tmp_path / "bge-m3" / "checkpoint-100")
    assert isinstance(FlagAutoModel.from_finetuned(str(nested), **options), BGEM3FlagModel)
    e5 = tiny_checkpoint(tmp_path / "multilingual-e5-large-instruct", kind="dense")
    model = FlagAutoModel.from_finetuned(str(e5), **options)
    assert (model.pooling_method, model.query_instruction_format) == (
        "mean",
        "Instruct: {}\nQuery: {}",
    )


def test_auto_model_by_class(tmp_path):
    class EmbedderModelClass(Enum):
        ENCODER_ONLY_M3 = "encoder-only-m3"

    path = str(tiny_checkpoint(tmp_path / "mine"))
    options = {"use_fp16": False, "devices": "cpu"}
    for chosen in ("encoder-only-m3", EmbedderModelClass.ENCODER_ONLY_M3):
        model = FlagAutoModel.from_finetuned(path, model_class=chosen, **options)
        assert isinstance(model, BGEM3FlagModel)
    with pytest.raises(ValueError, match="'mine' is not the name of a known encoder"):
        FlagAutoModel.from_finetuned(path)
    with pytest.raises(ValueError, match="'decoder-only-pseudo_moe' is none of"):
        FlagAutoModel.from_finetuned(path, model_class="decoder-only-pseudo_moe")
    with pytest.raises(OSError, match="from_finetuned"):
        FlagAutoModel()


def caught_by(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = call()
    return found, [str(entry.message) for entry in caught]


def test_lengths_beyond_the_model_are_lowered_with_one_warning(tmp_path):
    path = str(tiny_checkpoint(tmp_path / "short", positions=512))
    longer = "hello panda " * 400
    for name in ("encode", "encode_queries", "encode_corpus"):
        model = BGEM3FlagModel(path, use_fp16=False, devices="cpu")
        own = getattr(model, name)(QUERIES, max_length=512)["dense_vecs"]
        found, said = caught_by(lambda: getattr(model, name)(QUERIES, max_length=8192))  # noqa: B023
        assert_close(found["dense_vecs"], own)
        assert len(said) == 1
        assert "max_length is 8192" in said[0]
        assert "takes up to 512 tokens: longer texts are cut to that" in said[0]
        assert caught_by(lambda: getattr(model, name)(QUERIES, max_length=8192))[1] == []  # noqa: B023
        _, said = caught_by(
            lambda: getattr(model, name)([longer, "short"], max_length=8192, return_sparse=True)  # noqa: B023
        )
        assert len(said) == 1
        assert "1 of 2 texts were longer" in said[0]
    model = BGEM3FlagModel(path, use_fp16=False, devices="cpu")
    pair = (QUERIES[0], DOCUMENTS[0])
    asked = {"max_query_length": 8192, "max_passage_length": 8192}
    found, said = caught_by(lambda: model.compute_score(pair, **asked))
    assert found == pytest.approx(model.compute_score(pair))
    assert len(said) == 1


def test_a_dense_model_is_cut_at_its_own_length(tmp_path):
    path = str(tiny_checkpoint(tmp_path / "bge-base-en", kind="bge", positions=512))
    model = FlagModel(path, use_fp16=False, devices="cpu", passage_max_length=8192)
    found, said = caught_by(lambda: model.encode_corpus(["hello panda " * 400]))
    assert len(said) == 1
    assert_close(found, caught_by(lambda: model.encode(["hello panda " * 400], max_length=512))[0])


def test_a_reranker_is_cut_at_its_own_length(tmp_path):
    path = str(tiny_reranker(tmp_path / "reranker", kind="bert"))
    pair = ("what is a panda " * 110, "a bear " * 400)
    exact = FlagReranker(path, devices="cpu", max_length=512, query_max_length=512)
    model, said = caught_by(lambda: FlagReranker(path, devices="cpu", max_length=8192))
    assert len(said) == 1
    assert "takes up to 512 tokens" in said[0]
    with pytest.warns(TruncationWarning):
        found, expected = (one.compute_score(pair) for one in (model, exact))
    assert_close(found, expected)
