"""FlagEmbedding's signatures, and the snippets of its README."""

from __future__ import annotations

import inspect

import pytest
import torch

from m3_core.flagembedding import BGEM3FlagModel, FlagAutoModel, FlagModel

QUERIES = ["What is BGE M3?", "Defination of BM25"]
DOCUMENTS = [
    "BGE M3 is an embedding model supporting dense retrieval, lexical matching and "
    "multi-vector interaction.",
    "BM25 is a bag-of-words retrieval function that ranks a set of documents based on the "
    "query terms appearing in each document",
]
ALL = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True}


# FlagEmbedding 1.4.2, inference/embedder/encoder_only/{m3,base}.py.
SHARED_ARGUMENTS = {
    "normalize_embeddings": True,
    "use_fp16": True,
    "use_bf16": False,
    "query_instruction_for_retrieval": None,
    "query_instruction_format": "{}{}",
    "devices": None,
    # There "cls", whatever the checkpoint says; None is that of the checkpoint.
    "pooling_method": None,
    "trust_remote_code": False,
    "cache_dir": None,
}
LENGTHS = {"batch_size": 256, "query_max_length": 512, "passage_max_length": 512}
FLAGS = {"return_dense": True, "return_sparse": False, "return_colbert_vecs": False}
M3_CALL = ["batch_size", "max_length", "return_dense", "return_sparse", "return_colbert_vecs"]
SIGNATURES = [
    (
        BGEM3FlagModel.__init__,
        {**SHARED_ARGUMENTS, "colbert_dim": -1, **LENGTHS, **FLAGS, "truncate_dim": None},
    ),
    (
        FlagModel.__init__,
        {**SHARED_ARGUMENTS, **LENGTHS, "convert_to_numpy": True, "truncate_dim": None},
    ),
    (BGEM3FlagModel.encode, dict.fromkeys(M3_CALL)),
    (BGEM3FlagModel.encode_queries, dict.fromkeys(M3_CALL)),
    (BGEM3FlagModel.encode_corpus, dict.fromkeys(M3_CALL)),
    (
        BGEM3FlagModel.compute_score,
        dict.fromkeys(
            ["batch_size", "max_query_length", "max_passage_length", "weights_for_different_modes"]
        ),
    ),
    (FlagModel.encode, dict.fromkeys(["batch_size", "max_length", "convert_to_numpy"])),
    (FlagModel.encode_queries, dict.fromkeys(["batch_size", "max_length", "convert_to_numpy"])),
    (FlagModel.encode_corpus, dict.fromkeys(["batch_size", "max_length", "convert_to_numpy"])),
]


@pytest.mark.parametrize(
    ("function", "expected"), SIGNATURES, ids=[f.__qualname__ for f, _ in SIGNATURES]
)
def test_arguments_stand_in_flagembeddings_order_with_its_defaults(function, expected):
    parameters = inspect.signature(function).parameters.values()
    found = {
        p.name: p.default
        for p in parameters
        if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is not p.empty
    }
    assert list(found.items()) == list(expected.items())


# The snippets of FlagEmbedding's README for M3 and v1.5, with the import changed and the model
# named by a folder.


def test_readme_of_m3_dense(m3_path):
    model = BGEM3FlagModel(m3_path, use_fp16=True)
    embeddings_1 = model.encode(QUERIES, batch_size=12, max_length=8192)["dense_vecs"]
    embeddings_2 = model.encode(DOCUMENTS)["dense_vecs"]
    similarity = embeddings_1 @ embeddings_2.T
    assert similarity.shape == (2, 2)


def test_readme_of_m3_lexical(m3_path):
    model = BGEM3FlagModel(m3_path, use_fp16=True)
    output_1 = model.encode(
        QUERIES, return_dense=True, return_sparse=True, return_colbert_vecs=False
    )
    output_2 = model.encode(
        DOCUMENTS, return_dense=True, return_sparse=True, return_colbert_vecs=False
    )
    tokens = model.convert_id_to_token(output_1["lexical_weights"])
    assert all(isinstance(token, str) for token in tokens[0])
    score = model.compute_lexical_matching_score(
        output_1["lexical_weights"][0], output_2["lexical_weights"][0]
    )
    other = model.compute_lexical_matching_score(
        output_1["lexical_weights"][0], output_1["lexical_weights"][1]
    )
    assert isinstance(score, float)
    assert isinstance(other, float)


def test_readme_of_m3_colbert(m3_path):
    model = BGEM3FlagModel(m3_path, use_fp16=True)
    output_1 = model.encode(QUERIES, **ALL)
    output_2 = model.encode(DOCUMENTS, **ALL)
    score = model.colbert_score(output_1["colbert_vecs"][0], output_2["colbert_vecs"][0])
    assert isinstance(score, torch.Tensor)
    assert score.ndim == 0


def test_readme_of_m3_scores(m3_path):
    model = BGEM3FlagModel(m3_path, use_fp16=True)
    sentence_pairs = [[i, j] for i in QUERIES for j in DOCUMENTS]
    scores = model.compute_score(
        sentence_pairs, max_passage_length=128, weights_for_different_modes=[0.4, 0.2, 0.4]
    )
    assert list(scores) == ["colbert", "sparse", "dense", "sparse+dense", "colbert+sparse+dense"]
    assert {len(values) for values in scores.values()} == {4}


def test_readme_of_v1_5(bge_path):
    model = FlagAutoModel.from_finetuned(
        bge_path,
        query_instruction_for_retrieval="Represent this sentence for searching relevant passages:",
        use_fp16=True,
    )
    assert isinstance(model, FlagModel)
    embeddings_1 = model.encode(["I love NLP", "I love machine learning"])
    embeddings_2 = model.encode(["I love BGE", "I love text retrieval"])
    assert (embeddings_1 @ embeddings_2.T).shape == (2, 2)


def test_readme_of_v1_5_queries_and_passages(bge_path):
    model = FlagModel(
        bge_path,
        query_instruction_for_retrieval="Represent this sentence for searching relevant passages: ",
        query_instruction_format="{}{}",
        use_fp16=True,
        devices=["cpu"],
    )
    q_embeddings = model.encode_queries(["query_1", "query_2"])
    p_embeddings = model.encode_corpus(["样例文档-1", "样例文档-2"])
    assert (q_embeddings @ p_embeddings.T).shape == (2, 2)
