"""Where texts are cut: against an independent segmentation, and property by property."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from m3_core.explanations.words import clusters, units

# What cuts go wrong at: marks, joiners, flags, syllables, conjuncts, controls, "▁".
AWKWARD = (
    *("e\u0301", "\u0301", "n\u0303", "ﷺ", "ﬁ", "①", "㌀", "½", "Å", "Ａ", "\u2581", "▁a", "_"),
    *("👨‍👩‍👧‍👦", "👍🏽", "🇩🇪", "🇫", "❤️", "🏴\U000e0067\U000e0062\U000e007f", "\u200d", "👩‍"),
    *("שלום", "العالم", "نمی\u200cخواهم", "\u200f", "\u202e", "हिन्दी", "क्ष", "தமிழ்", "ភាសាខ្មែរ"),
    *(
        "ภาษาไทย",
        "น้ำ",
        "မြန်မာ",
        "自然语言",
        "东京都",
        "カタカナ",
        "ひらがな",
        "한국어",
        "\u1112\u1161\u11ab",
    ),
    *(
        " ",
        "  ",
        "\n",
        "\r\n",
        "\r",
        "\t",
        "\x00",
        "\x1b",
        "\u00ad",
        "\u200b",
        "\u3000",
        "\ufeff",
        "\x85",
    ),
    *(
        "Don't",
        "3.14",
        "1,000",
        "state-of-the-art",
        "Flutkatastrophe",
        "panda",
        "<b>",
        "</s>",
        "<s>",
    ),
    *("W" * 300, "x@y.de", "…", "??", "—"),
)
# Characters that this Python's Unicode has; a newer one may cut the others otherwise.
characters = st.characters(exclude_categories=("Cs", "Cn", "Co"))
texts = st.lists(st.sampled_from(AWKWARD) | st.text(characters, max_size=3), max_size=12).map(
    "".join
)


@given(texts)
def test_a_cluster_is_never_less_than_what_unicode_says(text):
    reference = [0]
    for cluster in regex.findall(r"\X", text):
        reference.append(reference[-1] + len(cluster))
    cut = clusters(text)
    assert set(cut) <= set(reference)
    assert cut == sorted(set(cut))
    assert (cut[0], cut[-1]) == (0, len(text))


@given(texts, st.data())
def test_units_tile_a_text_and_hold_its_tokens_whole(text, data):
    places = [
        sorted(data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
        for _ in range(data.draw(st.integers(0, 4)))
    ]
    truncated = data.draw(st.booleans())
    cuts = units(text, np.array(places, np.int64).reshape(-1, 2), truncated=truncated)
    assert cuts == sorted(set(cuts))
    assert (cuts[0], cuts[-1]) == (0, len(text))
    seen = max((end for _, end in places), default=0)
    inner = {at for at in cuts if not truncated or at < seen}
    for start, end in places:
        assert not any(start < at < end for at in inner)
    # No word of Latin letters is cut, wherever tokens end.
    for word in re.finditer("[a-z]+", text):
        assert not any(word.start() < at < word.end() for at in cuts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't panic", ["Don't", " ", "panic"]),
        ("3.14, 1,000.", ["3.14", ",", " ", "1,000", "."]),
        ("state-of", ["state", "-", "of"]),
        ("हिन्दी में", ["हिन्दी", " ", "में"]),
        ("نمی\u200cخواهم", ["نمی\u200cخواهم"]),
        ("한국어 문장", ["한국어", " ", "문장"]),
        ("自然ab", ["自", "然", "ab"]),
        ("👨‍👩‍👧‍👦🇩🇪", ["👨‍👩‍👧‍👦", "🇩🇪"]),
        ("a\r\n b", ["a", "\r\n ", "b"]),
        ("", []),
    ],
)
def test_words_are_those_of_the_script(text, expected):
    cuts = units(text, np.zeros((0, 2), np.int64))
    assert [text[a:b] for a, b in pairwise(cuts)] == expected
