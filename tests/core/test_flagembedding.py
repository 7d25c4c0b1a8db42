"""FlagEmbedding's interface: signatures, shapes, instructions; its numbers are in tests/parity."""

from __future__ import annotations

import inspect
import warnings
from enum import Enum

import numpy as np
import pytest
import torch

from m3_core.encoder import Encoder
from m3_core.errors import MissingRepresentationError
from m3_core.flagembedding import BGEM3FlagModel, FlagAutoModel, FlagModel
from m3_core.model import TruncationWarning
from m3_core.testing import tiny_checkpoint

QUERIES = ["What is BGE M3?", "Defination of BM25"]
DOCUMENTS = [
    "BGE M3 is an embedding model supporting dense retrieval, lexical matching and "
    "multi-vector interaction.",
    "BM25 is a bag-of-words retrieval function that ranks a set of documents based on the "
    "query terms appearing in each document",
]
ALL = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True}


@pytest.fixture(scope="module")
def m3_path(tmp_path_factory):
    return str(tiny_checkpoint(tmp_path_factory.mktemp("flag") / "bge-m3"))


@pytest.fixture(scope="module")
def bge_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flag") / "bge-base-en-v1.5"
    return str(tiny_checkpoint(folder, kind="bge"))


@pytest.fixture(scope="module")
def m3(m3_path):
    return BGEM3FlagModel(m3_path, use_fp16=False, devices="cpu")


@pytest.fixture(scope="module")
def bge(bge_path):
    return FlagModel(bge_path, use_fp16=False, devices="cpu")


@pytest.fixture(scope="module")
def reference(m3_path):
    return Encoder.from_pretrained(
        m3_path, device="cpu", dtype="float32", query_instruction="", document_instruction=""
    )


# FlagEmbedding 1.4.2, inference/embedder/encoder_only/{m3,base}.py.
SHARED_ARGUMENTS = {
    "normalize_embeddings": True,
    "use_fp16": True,
    "use_bf16": False,
    "query_instruction_for_retrieval": None,
    "query_instruction_format": "{}{}",
    "devices": None,
    "pooling_method": "cls",
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


def test_results_are_the_encoders(m3, reference):
    texts = [*DOCUMENTS, ""]
    found = m3.encode(texts, **ALL)
    expected = reference.encode_documents(texts, **ALL)
    np.testing.assert_allclose(found["dense_vecs"], expected.dense_vecs, atol=1e-6)
    for i in range(3):
        weights = {int(k): v for k, v in found["lexical_weights"][i].items()}
        assert weights == pytest.approx(expected.lexical_weights[i], abs=1e-6)
        np.testing.assert_allclose(found["colbert_vecs"][i], expected.colbert_vecs[i], atol=1e-6)


def test_lexical_weights_are_plain(m3):
    weights = m3.encode(DOCUMENTS, return_sparse=True)["lexical_weights"]
    assert [type(row) for row in weights] == [dict, dict]
    assert {type(key) for key in weights[0]} == {str}
    assert {type(value) for value in weights[0].values()} == {float}


def test_what_was_not_asked_for_is_none(m3):
    assert m3.encode(QUERIES)["lexical_weights"] is None
    found = m3.encode(QUERIES, return_dense=False, return_sparse=True)
    assert found["dense_vecs"] is None
    assert found["colbert_vecs"] is None
    with pytest.raises(ValueError, match="nothing to compute"):
        m3.encode(QUERIES, return_dense=False)


def test_flags_of_the_constructor_are_defaults(m3_path):
    model = BGEM3FlagModel(
        m3_path, use_fp16=False, devices="cpu", return_dense=False, return_sparse=True
    )
    for encode in (model.encode, model.encode_queries, model.encode_corpus):
        assert encode(QUERIES)["dense_vecs"] is None
        assert len(encode(QUERIES)["lexical_weights"]) == 2
        assert encode(QUERIES, return_sparse=False, return_dense=True)["lexical_weights"] is None


def test_a_single_text_comes_without_a_list(m3, bge):
    for encode in (m3.encode, m3.encode_queries, m3.encode_corpus):
        found, rows = encode(QUERIES[0], **ALL), encode(QUERIES[:1], **ALL)
        np.testing.assert_array_equal(found["dense_vecs"], rows["dense_vecs"][0])
        assert found["lexical_weights"] == rows["lexical_weights"][0]
        np.testing.assert_array_equal(found["colbert_vecs"], rows["colbert_vecs"][0])
    assert bge.encode(QUERIES[0]).shape == (32,)
    assert bge.encode_queries(QUERIES[0], convert_to_numpy=False).shape == (32,)


def test_no_texts_give_nothing(m3, bge):
    found = m3.encode([], **ALL)
    assert found["dense_vecs"].shape == (0, 32)
    assert (found["lexical_weights"], found["colbert_vecs"]) == ([], [])
    assert bge.encode([]).shape == (0, 32)
    assert bge.encode([], convert_to_numpy=False).shape == (0, 32)
    assert m3.compute_score([]) == []
    assert m3.convert_id_to_token([]) == []
    assert m3.compute_lexical_matching_score([], [{}]).shape == (0, 1)


@pytest.mark.parametrize("bad", [[None], [b"bytes"], None, 7])
def test_what_is_no_text_is_refused_also_with_an_instruction(m3, bad):
    with pytest.raises(TypeError):
        m3.encode(bad)
    with pytest.raises(TypeError):
        m3.encode(bad, instruction="Find: ")


def test_no_instruction_unless_told(bge):
    # The checkpoint's folder has a known model's name, whose instruction the core would apply.
    known = Encoder.from_pretrained(bge.model_name_or_path, device="cpu", dtype="float32")
    assert known.query_instruction
    np.testing.assert_array_equal(bge.encode_queries(QUERIES), bge.encode(QUERIES))


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
    np.testing.assert_array_equal(model.encode_queries(["a {b}"])[0], plain[0])
    np.testing.assert_array_equal(model.encode_corpus(["c"])[0], plain[1])
    given = model.encode(["c"], instruction="passage", instruction_format="{}: {}")
    np.testing.assert_array_equal(given[0], plain[1])
    # Settings may be changed as attributes.
    model.query_instruction_for_retrieval = None
    np.testing.assert_array_equal(model.encode_queries(["passage: c"])[0], plain[1])


def test_compute_score_applies_no_instruction_and_no_truncation(m3_path, m3):
    model = BGEM3FlagModel(
        m3_path,
        use_fp16=False,
        devices="cpu",
        query_instruction_for_retrieval="Find: ",
        truncate_dim=4,
    )
    assert model.encode(QUERIES)["dense_vecs"].shape == (2, 4)
    pairs = [(q, d) for q in QUERIES for d in DOCUMENTS]
    found, expected = model.compute_score(pairs), m3.compute_score(pairs)
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, abs=1e-6)


def test_compute_score_of_a_single_pair_gives_floats(m3):
    for pair in ((QUERIES[0], DOCUMENTS[0]), [QUERIES[0], DOCUMENTS[0]]):
        single, listed = m3.compute_score(pair), m3.compute_score([pair])
        assert single == {key: values[0] for key, values in listed.items()}


def test_compute_score_weights_and_the_other_scores(m3):
    query, document = QUERIES[0], DOCUMENTS[0]
    score = m3.compute_score([(query, document)], weights_for_different_modes=[0.4, 0.2, 0.5])
    q, d = m3.encode(query, **ALL), m3.encode(document, **ALL)
    dense = float(q["dense_vecs"] @ d["dense_vecs"])
    sparse = m3.compute_lexical_matching_score(q["lexical_weights"], d["lexical_weights"])
    colbert = float(m3.colbert_score(q["colbert_vecs"], d["colbert_vecs"]))
    assert score["dense"] == pytest.approx([dense], abs=1e-5)
    assert score["sparse"] == pytest.approx([sparse], abs=1e-5)
    assert score["colbert"] == pytest.approx([colbert], abs=1e-5)
    assert score["sparse+dense"] == pytest.approx([(0.2 * sparse + 0.4 * dense) / 0.6], abs=1e-5)
    total = 0.4 * dense + 0.2 * sparse + 0.5 * colbert
    assert score["colbert+sparse+dense"] == pytest.approx([total / 1.1], abs=1e-5)


def test_matching_scores_of_lists_are_a_matrix(m3):
    first, second = [{"a": 1.0, "b": 2.0}, {}], [{"b": 0.5}, {"a": 3.0, "b": 1.0}, {"c": 9.0}]
    found = m3.compute_lexical_matching_score(first, second)
    np.testing.assert_array_equal(found, [[1.0, 5.0, 0.0], [0.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="dict and list"):
        m3.compute_lexical_matching_score({}, [{}])


def test_ids_become_tokens(m3):
    weights = m3.encode("hello panda", return_sparse=True)["lexical_weights"]
    tokens = m3.convert_id_to_token(weights)
    assert set(tokens) <= {"hello", "panda"}
    assert m3.convert_id_to_token([weights]) == tokens
    assert m3.convert_id_to_token([weights, {}]) == [tokens, {}]


def test_colbert_score_takes_any_float_type(m3):
    q = np.array([[1.0, 0.0], [0.0, 1.0]], np.float16)
    d = np.array([[0.6, 0.8], [-1.0, 0.0]], np.float32)
    assert float(m3.colbert_score(q, d)) == pytest.approx(0.7)


def test_flag_model_gives_tensors_on_request(bge, bge_path):
    found = bge.encode(QUERIES, convert_to_numpy=False)
    assert isinstance(found, torch.Tensor)
    np.testing.assert_array_equal(found.numpy(), bge.encode(QUERIES))
    model = FlagModel(bge_path, use_fp16=False, devices="cpu", convert_to_numpy=False)
    assert isinstance(model.encode_corpus(DOCUMENTS), torch.Tensor)
    assert isinstance(model.encode_queries(QUERIES, convert_to_numpy=True), np.ndarray)


def test_pooling_is_the_arguments_not_the_checkpoints(tmp_path):
    path = str(tiny_checkpoint(tmp_path / "mean", kind="bge", pooling="mean"))
    cls, mean = (
        FlagModel(path, use_fp16=False, devices="cpu", pooling_method=method)
        for method in ("cls", "mean")
    )
    own = Encoder.from_pretrained(path, device="cpu", dtype="float32")
    np.testing.assert_array_equal(
        mean.encode(DOCUMENTS), own.encode_documents(DOCUMENTS).dense_vecs
    )
    assert np.abs(cls.encode(DOCUMENTS) - mean.encode(DOCUMENTS)).max() > 0.01
    with pytest.raises(ValueError, match="'max' is none of 'cls', 'mean', 'last_token'"):
        FlagModel(path, pooling_method="max")


def test_normalisation_and_truncation(bge_path):
    plain, short = (
        FlagModel(bge_path, use_fp16=False, devices="cpu", normalize_embeddings=False, **more)
        for more in ({}, {"truncate_dim": 8})
    )
    vectors = plain.encode(DOCUMENTS)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).min() > 0.1
    np.testing.assert_array_equal(short.encode(DOCUMENTS), vectors[:, :8])
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
    with pytest.raises(ValueError, match="'decoder-only-base' is none of"):
        FlagAutoModel.from_finetuned(path, model_class="decoder-only-base")
    with pytest.raises(OSError, match="from_finetuned"):
        FlagAutoModel()
