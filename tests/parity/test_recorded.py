"""What others recorded of the real models; see tests/data/README.md.

Token ids need the tokenizer alone. Numbers need the weights: ``M3_WEIGHTS=/models pytest -m
weights`` with folders such as ``/models/bge-m3`` and ``/models/bge-base-en-v1.5``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from m3_core.encoder.encoder import Encoder
from m3_core.network.tokens import Tokenizer

ENTRIES = json.loads(
    (Path(__file__).parent.parent / "data" / "recorded.json").read_text(encoding="utf-8")
)
TOKENIZER_KINDS = ("tokenizer_ids", "tokenizer_tokens")
# Of the rerankers.
RERANK_KINDS = ("rerank_logits", "rerank_sigmoid")


def entries(kinds):
    return [
        pytest.param(entry, id=f"{number}-{entry['model'].partition('/')[2]}-{entry['kind']}")
        for number, entry in enumerate(ENTRIES)
        if entry["kind"] in kinds
    ]


@pytest.fixture(scope="session")
def tokenizer(real_tokenizer_folder):
    return Tokenizer.from_folder(real_tokenizer_folder)


@pytest.mark.parametrize("entry", entries(TOKENIZER_KINDS))
def test_token_ids(tokenizer, entry):
    expected = entry["expected"]
    batch = tokenizer.encode([entry["inputs"]["text"]], 8192)
    assert batch.ids.tolist() == expected.get("ids_hub_tokenizer_json", expected["ids"])


def test_the_real_special_tokens(tokenizer):
    assert (tokenizer.prefix, tokenizer.suffix) == ((0,), (2,))
    assert tokenizer.unweighted_ids.tolist() == [0, 1, 2, 3]
    assert tokenizer.vocabulary_size == 250002


@pytest.fixture(scope="module")
def encoders():
    """Loads a real checkpoint in float32, or skips with the reason."""
    loaded = {}

    def load(model):
        root = os.environ.get("M3_WEIGHTS")
        if not root:
            pytest.skip("M3_WEIGHTS names no folder with real checkpoints")
        folder = Path(root) / model.partition("/")[2]
        if not folder.is_dir():
            pytest.skip(f"there is no {folder}")
        if model not in loaded:
            loaded[model] = Encoder.from_pretrained(
                folder, dtype="float32", query_instruction="", document_instruction=""
            )
        return loaded[model]

    yield load
    for encoder in loaded.values():
        encoder.close()


def texts_of(inputs):
    return inputs["texts"] if "texts" in inputs else [inputs["text"]]


def rows(value):
    return value if isinstance(value, list) else [value]


def assert_weights(found, expected, near):
    keys = found.keys() | expected.keys()
    # A weight within the tolerance of 0 may be there or not.
    assert [found.get(key, 0.0) for key in keys] == near([expected.get(key, 0.0) for key in keys])


def check_lexical_weights(encoder, inputs, expected, near):
    found = encoder.encode_documents(texts_of(inputs), False, True).lexical_weights
    for i, row in enumerate(rows(expected)):
        assert_weights(found[i], {int(key): value for key, value in row.items()}, near)


def check_lexical_weights_tokens(encoder, inputs, expected, near):
    found = encoder.encode_documents(texts_of(inputs), False, True).lexical_weights
    for i, row in enumerate(expected):
        assert_weights(encoder.decode_weights(found[i]), row, near)


def similarities(encoder, inputs, queries, documents):
    instruction = inputs.get("query_instruction", "")
    asking = encoder.with_options(query_instruction=instruction)
    left, right = asking.encode_queries(queries), encoder.encode_documents(documents)
    return left.dense_vecs @ right.dense_vecs.T


def check_dense_similarity(encoder, inputs, expected, near):
    found = similarities(encoder, inputs, inputs["a"], inputs["b"])
    assert found.flatten().tolist() == near(np.array(expected).flatten().tolist())


def check_search_top3(encoder, inputs, expected, near):
    found = similarities(encoder, inputs, inputs["queries"], inputs["corpus"])
    best = np.argsort(-found, axis=1)[:, :3]
    assert best.tolist() == expected["ids"]
    scores = np.take_along_axis(found, best, axis=1).flatten().tolist()
    assert scores == near(np.array(expected["scores"]).flatten().tolist())


def check_dense(encoder, inputs, expected, near):
    found = encoder.encode_documents(texts_of(inputs)).dense_vecs
    for vector, numbers in zip(found, expected, strict=True):
        assert vector[: len(numbers)].tolist() == near(numbers)


def check_dense_value_sum(encoder, inputs, expected, near):
    found = encoder.encode_documents(texts_of(inputs)).dense_vecs
    assert found.sum(axis=1).tolist() == near(expected)


def assert_ends(vector, ends, near):
    count = len(ends["first"])
    assert vector[:count].tolist() == near(ends["first"])
    assert vector[-count:].tolist() == near(ends["last"])


def check_dense_prefix_suffix(encoder, inputs, expected, near):
    found = encoder.encode_documents(texts_of(inputs)).dense_vecs
    for vector, ends in zip(found, expected, strict=True):
        assert_ends(vector, ends, near)


def check_colbert_prefix_suffix(encoder, inputs, expected, near):
    found = encoder.encode_documents(texts_of(inputs), False, False, True).colbert_vecs
    for i, ends in enumerate(expected):
        count = len(ends["tokens_first"])
        vectors = [*found[i][:count], *found[i][-count:]]
        for vector, part in zip(vectors, ends["tokens_first"] + ends["tokens_last"], strict=True):
            assert_ends(vector, part, near)


def pair_scores(encoder, inputs):
    return encoder.compute_score(
        [tuple(pair) for pair in inputs["pairs"]],
        weights=inputs.get("weights_for_different_modes", (1.0, 1.0, 1.0)),
    )


def check_compute_score(encoder, inputs, expected, near):
    found = pair_scores(encoder, inputs)
    for key, values in expected.items():
        assert found[key] == near(values)


def check_lexical_matching_score(encoder, inputs, expected, near):
    assert pair_scores(encoder, inputs)["sparse"] == near(expected)


def check_colbert_score(encoder, inputs, expected, near):
    assert pair_scores(encoder, inputs)["colbert"] == near(expected)


def check_hybrid_score_equal_thirds(encoder, inputs, expected, near):
    assert pair_scores(encoder, inputs)["colbert+sparse+dense"] == near(expected)


def check_hybrid_score(encoder, inputs, expected, near):
    found = pair_scores(encoder, inputs)
    for key, name in (("dense", "dense"), ("sparse", "lexical"), ("colbert", "colbert")):
        assert found[key] == near([expected[name]])


CHECKS = {
    "lexical_weights": check_lexical_weights,
    "lexical_weights_tokens": check_lexical_weights_tokens,
    "dense_similarity": check_dense_similarity,
    "search_top3": check_search_top3,
    "dense_prefix": check_dense,
    "dense_full": check_dense,
    "dense_value_sum": check_dense_value_sum,
    "dense_prefix_suffix": check_dense_prefix_suffix,
    "colbert_prefix_suffix": check_colbert_prefix_suffix,
    "compute_score": check_compute_score,
    "lexical_matching_score": check_lexical_matching_score,
    "colbert_score": check_colbert_score,
    "hybrid_score_equal_thirds": check_hybrid_score_equal_thirds,
    "hybrid_score": check_hybrid_score,
}


@pytest.mark.weights
@pytest.mark.parametrize("entry", entries(CHECKS))
def test_numbers_of_the_real_models(encoders, entry):
    hint = entry["tolerance_hint"]
    # Printed numbers are rounded, and a relative tolerance says nothing about a printed 0.
    tolerance = {"rel": hint.get("rel", 0.0), "abs": hint.get("abs", 1e-6)}

    def near(values):
        return pytest.approx(values, **tolerance)

    check = CHECKS[entry["kind"]]
    check(encoders(entry["model"]), entry["inputs"], entry["expected"], near)


def test_every_recorded_entry_is_used():
    known = {*TOKENIZER_KINDS, *RERANK_KINDS, *CHECKS}
    assert {entry["kind"] for entry in ENTRIES} <= known
