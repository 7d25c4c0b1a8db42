"""Explanations over real tokenizers: whole words, exact sums, all of the text."""

from __future__ import annotations

import json
import re
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from tests.core.explanations.test_words import AWKWARD, texts

import m3_core
from m3_core import Encoder, aexplain, explain
from m3_core.encoder import CachedEncoder, TextTokens
from m3_core.errors import MissingRepresentationError, UnsupportedModelError
from m3_core.explanations.spans import Located
from m3_core.explanations.words import trimmed
from m3_core.network import TruncationWarning
from m3_core.testing import FakeEncoder

PAIRS = [
    ("Was tun bei einer Flut?", "Nach der Flutkatastrophe: Die Flut im Ahrtal traf Tausende."),
    ("熊猫吃什么?", "大熊猫主要以竹子为食，野生大熊猫每天吃竹子。"),
    ("मुझे क्या खाना चाहिए?", "आपको फल खाना चाहिए 👨‍👩‍👧‍👦 🇩🇪."),
    ("איפה העיר?", "העיר נמצאת ליד הנהר, היא עיר יפה."),
    ("cafe\u0301 au lait", "Un café, s'il vous plaît!"),
    ("ที่ไหน", "ภาษาไทยไม่มีช่องว่าง"),
    ("", ""),
    ("a", " \n\t "),
    ("▁a ▁b", "a▁b </s> <s>"),
]


@pytest.fixture(scope="module")
def small() -> Encoder:
    return Encoder.from_pretrained("m3-small", device="cpu", dtype="float32")


def check(explanation, encoder):
    """What holds of every explanation."""
    query, document = explanation.query, explanation.document
    for text, spans in ((query, explanation.query_spans), (document, explanation.spans)):
        assert "".join(span.text for span in spans) == text
        assert [span.start for span in spans] == [0, *(span.end for span in spans)][: len(spans)]
        assert all(span.text == text[span.start : span.end] for span in spans)
    scores = encoder.compute_score([(query, document)])
    assert list(explanation.scores) == list(scores)
    for key, (value,) in scores.items():
        assert explanation.scores[key] == pytest.approx(value, abs=1e-5)
    assert explanation.score == pytest.approx(scores["colbert+sparse+dense"][0], abs=1e-5)
    assert sum(explanation.contributions.values()) == pytest.approx(explanation.score, abs=1e-9)
    for parts, name in ((explanation.words, "sparse"), (explanation.alignments, "colbert")):
        assert sum(part.contribution for part in parts) == pytest.approx(scores[name][0], abs=1e-5)
    for word in explanation.words:
        assert word.query_weight * word.document_weight == pytest.approx(word.contribution)
        for own, text, places in (
            (word.query, query, word.query_places),
            (word.document, document, word.document_places),
        ):
            assert places
            if places[0][0] >= 0:
                assert own in [text[start:end] for start, end in places]
    total = sum(span.colbert for span in explanation.spans)
    special = sum(
        token.contribution
        for one in explanation.alignments
        for token in one.tokens
        if token.document_place is None or token.document_place[1] <= 0
    )
    assert total + special == pytest.approx(scores["colbert"][0], abs=1e-5)
    json.dumps(explanation.to_dict())


@pytest.mark.parametrize(("query", "document"), PAIRS)
def test_parts_sum_to_the_scores_of_the_packaged_model(small, query, document):
    explanation = explain(small, query, document)
    check(explanation, small)
    # Whole words: Flut and Flutkatastrophe share tokens, and neither is ever shown in pieces.
    shown = {word.document for word in explanation.words} | {
        one.document for one in explanation.alignments
    }
    words = set(re.findall(r"[^\W\d_]+", document))
    latin = {one for one in shown if re.fullmatch("[A-Za-z]+", one)} - {"passage"}
    assert latin <= words


def test_a_piece_is_shown_as_the_word_it_stands_in(small):
    tokens = small.model.tokenizer.ids_of_tokens()
    pieces = {number: piece for piece, number in tokens.items()}
    explanation = explain(small, "Flutkatastrophen", "Die Flut war eine Katastrophe.")
    assert {word.document for word in explanation.words} <= {"Flut", "Katastrophe", ":", "."}
    matched = next(word for word in explanation.words if word.document == "Flut")
    assert matched.query == "Flutkatastrophen"
    assert "".join(pieces[one] for one in matched.token_ids).lstrip("▁") == "Flut"
    assert not matched.whole


@settings(max_examples=60)
@given(query=texts, document=texts)
def test_any_text_is_explained(encoder, query, document):
    check(explain(encoder, query, document), encoder)


@settings(max_examples=150)
@given(text=texts)
def test_spans_tile_any_text_of_the_packaged_tokenizer(small, text):
    (tokens,) = small.token_offsets([text], "document")
    assert (
        tokens.ids.tolist()
        == small.model.tokenizer.encode(
            [small.document_instruction + text], small.max_length
        ).ids.tolist()
    )
    located = Located.of(text, small.document_instruction, tokens)
    inside = [word for word in located.words if not word.in_instruction]
    assert "".join(word.text for word in inside) == text
    # Every token stands wholly in its word.
    for (start, end), number in zip(tokens.places.tolist(), located.word_of.tolist(), strict=True):
        if start < end and start >= 0:
            first, last = trimmed(text, start, end)
            word = located.words[number]
            assert word.place[0] <= first
            assert last <= word.place[1]


@pytest.mark.parametrize("text", AWKWARD)
def test_offsets_of_both_kinds_of_tokenizers(encoder, tiny_bge, text):
    dense = Encoder.from_pretrained(tiny_bge, device="cpu", dtype="float32")
    explanation = explain(dense, "panda", text)
    assert "".join(span.text for span in explanation.spans) == text
    assert explanation.scores.keys() == explanation.weights.keys() == {"dense"}
    assert (explanation.words, explanation.alignments) == ((), ())
    assert explanation.score == pytest.approx(explanation.scores["dense"])
    located = encoder.token_offsets([text, text], "query")
    assert located[0].places.tolist() == located[1].places.tolist()


def test_a_word_matched_in_other_forms_is_marked_everywhere(encoder):
    explanation = explain(encoder, "panda", "A panda. Two panda! No bear, pandas.")
    (word,) = [one for one in explanation.words if one.query == "panda"]
    assert word.document == "panda"
    places = [explanation.document[a:b] for a, b in word.document_places]
    assert places == ["panda", "panda", "pandas"]
    marked = [span.text for span in explanation.spans if span.sparse]
    assert marked == ["panda", "panda", "pandas"]


def test_weights_and_parts():
    encoder = FakeEncoder()
    pair = ("What do pandas eat?", "Pandas eat bamboo.")
    paper = explain(encoder, *pair, weights=(1, 0.3, 1))
    scores = paper.scores
    expected = scores["dense"] + 0.3 * scores["sparse"] + scores["colbert"]
    assert paper.score == pytest.approx(expected / 2.3)
    assert paper.scores["colbert+sparse+dense"] == pytest.approx(paper.score)
    sparse = explain(encoder, *pair, parts=["sparse"])
    assert (sparse.scores, sparse.weights) == ({"sparse": 2.0}, {"sparse": 1.0})
    assert sparse.alignments == ()
    two = FakeEncoder(representations=["dense", "sparse"])
    assert list(explain(two, *pair).scores) == ["sparse", "dense", "sparse+dense"]
    with pytest.raises(ValueError, match="leave nothing to score by"):
        explain(encoder, *pair, parts=["sparse"], weights=(1, 0, 1))
    with pytest.raises(ValueError, match="parts are of dense, sparse, colbert; got multi"):
        explain(encoder, *pair, parts=["multi"])
    with pytest.raises(MissingRepresentationError, match="colbert is to be explained"):
        explain(two, *pair, parts=["colbert"])
    with pytest.raises(ValueError, match="weights must be three numbers"):
        explain(encoder, *pair, weights=(1, 2))


def test_instructions_are_explained_apart():
    encoder = FakeEncoder(query_instruction="find pandas: ", document_instruction="eat ")
    explanation = explain(encoder, "what pandas eat", "Pandas eat bamboo")
    assert "".join(span.text for span in explanation.spans) == "Pandas eat bamboo"
    (before,) = [one for one in explanation.alignments if one.query == "find"]
    assert before.query_place == (-13, -9)
    assert "find (instruction)" in str(explanation)
    assert explanation.scores["sparse"] == pytest.approx(
        sum(word.contribution for word in explanation.words)
    )


def test_what_was_cut_is_marked_as_unseen(encoder):
    short = encoder.with_options(max_length=8)
    document = "panda bear river city search queries token model world"
    with pytest.warns(TruncationWarning):
        explanation = explain(short, "panda world", document)
    assert explanation.truncated
    assert not explanation.query_truncated
    seen = [span.text for span in explanation.spans if span.seen and span.is_word]
    (unseen,) = [span for span in explanation.spans if not span.seen]
    assert explanation.spans[-1] is unseen
    assert "".join(span.text for span in explanation.spans) == document
    # The last word was seen in part: it is shown whole.
    assert document.startswith(" ".join(seen))
    assert unseen.text.endswith("model world")
    assert "were not seen" in str(explanation)
    assert "m3-unseen" in explanation.to_html()


def test_long_texts_and_long_words(encoder):
    short = encoder.with_options(max_length=16)
    for document in (
        "x" * 200_000,
        "panda " * 50_000,
        " " * 100_000,
        "你" * 50_000,
        "\u0301" * 9_000,
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)
            explanation = explain(short, "panda", document)
        # All marks together are one unknown token.
        assert explanation.truncated == (document[0] != "\u0301")
        assert "".join(span.text for span in explanation.spans) == document
        assert len(explanation.to_html()) < 500_000
        assert len(str(explanation)) < 10_000


def test_texts_that_are_none():
    encoder = FakeEncoder()
    with pytest.raises(ValueError, match="lone surrogate"):
        explain(encoder, "a", "b\ud800")
    with pytest.raises(ValueError, match="lone surrogate"):
        explain(encoder, "\udfff", "b")
    with pytest.raises(TypeError, match="must be a str"):
        explain(encoder, "a", None)


async def test_asynchronously_and_through_the_cache(encoder):
    pair = PAIRS[0]
    view = CachedEncoder(encoder, ["dense"])
    found = await aexplain(view, *pair)
    assert found.scores == pytest.approx(explain(encoder, *pair).scores, abs=1e-6)
    assert found.words == explain(view, *pair).words


class _Silent:
    """An encoder that does not say where tokens stand."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        if name == "token_offsets":
            raise AttributeError(name)
        return getattr(self._inner, name)


class _Wrong(FakeEncoder):
    """One that says other tokens than it encodes."""

    def token_offsets(self, texts, role="document", max_length=None):
        return [TextTokens(one.ids[:-2], one.places[:-2]) for one in super().token_offsets(texts)]


def test_encoders_without_offsets_and_with_wrong_ones():
    silent = _Silent(FakeEncoder())
    with pytest.raises(UnsupportedModelError, match="a _Silent, does not say: give it the method"):
        explain(silent, "a", "b")
    with pytest.raises(UnsupportedModelError, match="does not say"):
        CachedEncoder(silent, ["dense"]).token_offsets(["a"])
    with pytest.raises(ValueError, match="must give exactly the tokens that are encoded"):
        explain(_Wrong(), "panda", "a panda", parts=["sparse"])
    with pytest.raises(ValueError, match="one a token but the first"):
        explain(_Wrong(), "panda", "a panda", parts=["colbert"])
    with pytest.raises(ValueError, match="3 tokens and 2 places"):
        TextTokens(np.zeros(3, np.int32), np.zeros((2, 2), np.int64))


def test_names_load_on_first_use():
    assert m3_core.explain is explain
    assert {"explain", "aexplain", "Explanation"} <= set(m3_core.__all__)
    assert "m3_core.explanations" in sys.modules
