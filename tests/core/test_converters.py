from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3_core import converters
from m3_core.encoder.cached import CachedEncoder
from m3_core.representations import LexicalWeights, Representations

WEIGHTS = {np.int32(9): np.float32(0.5), np.int64(2): np.float16(0.25), 5: 0.0}
ONE_TEXT = [
    converters.to_qdrant,
    converters.to_milvus,
    converters.to_elasticsearch,
    converters.to_vespa,
    lambda weights: converters.to_sparsevec(weights, 10),
]


@pytest.mark.parametrize("convert", ONE_TEXT)
def test_numbers_are_plain_and_zeros_left_out(convert) -> None:
    # json takes no numpy numbers.
    text = json.dumps(convert(WEIGHTS))
    assert "0.5" in text
    assert "0.0" not in text
    assert convert({}) is not None


@pytest.mark.parametrize("convert", ONE_TEXT)
@pytest.mark.parametrize("wrong", [{-1: 0.5}, {1: -0.5}, {1: float("nan")}, {1: float("inf")}])
def test_what_no_engine_scores_is_refused(convert, wrong) -> None:
    with pytest.raises(ValueError, match="got"):
        convert(wrong)


@pytest.mark.parametrize("convert", ONE_TEXT)
@pytest.mark.parametrize("wrong", [None, [0.5], "text"])
def test_what_is_no_text_is_a_type_error(convert, wrong) -> None:
    with pytest.raises(TypeError, match="a mapping of token ids to weights; got"):
        convert(wrong)
    with pytest.raises(TypeError, match="a mapping of token ids to weights"):
        converters.to_milvus_csr([wrong], 10)
    with pytest.raises(TypeError, match=r"text 0 has .* of type"):
        LexicalWeights.from_dicts([wrong])


def test_nothing_in_the_place_of_many_texts_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="list of mappings; got None"):
        converters.to_milvus_csr(None, 10)
    with pytest.raises(TypeError, match="what an encoder gives; got NoneType"):
        converters.convert_texts(None, converters.to_qdrant)


@given(st.dictionaries(st.integers(0, 999), st.floats(2**-20, 2, width=32), max_size=8))
def test_every_format_holds_the_same_weights(weights) -> None:
    pairs = sorted(weights.items())
    qdrant = converters.to_qdrant(weights)
    assert list(zip(qdrant["indices"], qdrant["values"], strict=True)) == pairs
    assert list(converters.to_milvus(weights).items()) == pairs
    by_name = {str(token): weight for token, weight in pairs}
    assert converters.to_elasticsearch(weights) == by_name
    assert converters.to_vespa(weights) == {"cells": by_name}
    cells, dimension = converters.to_sparsevec(weights, 1000)[1:].split("}/")
    parsed = [cell.split(":") for cell in cells.split(",") if cell]
    assert [(int(i) - 1, float(v)) for i, v in parsed] == pairs
    assert dimension == "1000"
    row = converters.to_milvus_csr([weights], 1000)
    assert dict(zip(row.indices.tolist(), row.data.tolist(), strict=True)) == weights


def test_readable_features_have_no_dots_and_stay_apart() -> None:
    names = {1: "a.b", 2: "a．b", 3: " ", 4: "x"}
    features = converters.to_elasticsearch({1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4, 5: 0.5}, names)
    assert features == {"a．b": 0.1, "2": 0.2, "3": 0.3, "x": 0.4, "5": 0.5}


def test_a_sparsevec_has_bounds() -> None:
    with pytest.raises(ValueError, match="token id 10"):
        converters.to_sparsevec({10: 0.5}, 10)
    with pytest.raises(ValueError, match="16000"):
        converters.to_sparsevec(dict.fromkeys(range(16_001), 0.5), 20_000)


def test_merging_needs_a_weight_a_token() -> None:
    with pytest.raises(ValueError, match="zip"):
        converters.merge_token_weights([1, 2], [0.5])


def test_an_encoders_weights_know_their_vocabulary(encoder) -> None:
    reps = encoder.encode_documents(["panda bear", "", "river"], return_sparse=True)
    lexical, size = reps.lexical_weights, encoder.vocabulary_size
    halves = Representations.concatenate([reps[:1], reps[1:]]).lexical_weights
    for weights in (lexical, lexical[[2, 0]], halves):
        assert converters.to_milvus_csr(weights).shape == (len(weights), size)
        assert weights.to_scipy().shape == (len(weights), size)
    adapter = CachedEncoder(encoder, ["sparse"])
    assert adapter.documents(["panda", "bear"]).lexical_weights.vocabulary_size == size
    texts = converters.convert_texts(reps, converters.to_sparsevec)
    assert texts == [converters.to_sparsevec(row, size) for row in lexical]
    assert texts == [converters.to_sparsevec(row, encoder) for row in lexical]
    assert texts[1] == f"{{}}/{size}"


def test_weights_without_a_model_need_a_vocabulary() -> None:
    plain = LexicalWeights.from_dicts([{7: 0.5}])
    assert plain.to_scipy().shape == (1, 8)
    for convert in (
        lambda: converters.to_milvus_csr([{7: 0.5}]),
        lambda: converters.to_milvus_csr(plain),
        lambda: converters.convert_texts(
            Representations(lexical_weights=plain), converters.to_sparsevec
        ),
    ):
        with pytest.raises(ValueError, match="give vocabulary_size, as a number or as the encoder"):
            convert()
