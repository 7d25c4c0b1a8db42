"""Cutting long texts by characters, with the real tokenizer: as if the whole were tokenised."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RawTokenizer

from m3_core.network.tokens import Tokenizer

LIMITS = (10, 510, 8190)
SENTENCE = "The river runs through an old city where people search for hidden documents."
ENGLISH = SENTENCE.split()
CHINESE = "模型把文本变成向量然后在很多文档里检索最相关的内容并且返回结果"
JAPANESE = "モデルはテキストをベクトルに変換して検索します"
THAI = "แบบจำลองแปลงข้อความเป็นเวกเตอร์แล้วค้นหาเอกสาร"


def drawn(pieces, separator, length):
    generator = random.Random(length)
    pieces = list(pieces)
    parts, size = [], 0
    while size < length:
        parts.append(generator.choice(pieces))
        size += len(parts[-1]) + len(separator)
    return separator.join(parts)


LONG_TEXTS = {
    "words": lambda size: drawn(ENGLISH, " ", size),
    "lines": lambda size: drawn(ENGLISH, "\n", size),
    "words without spaces": lambda size: drawn(ENGLISH, "", size),
    "letters": lambda size: drawn("abcdefghijklmnopqrstuvwxyz", "", size),
    "digits": lambda size: drawn("0123456789", "", size),
    "one letter": lambda size: "a" * size,
    "two letters": lambda size: "ab" * (size // 2),
    "one dash": lambda size: "-" * size,
    "one character": lambda size: "的" * size,
    "spaces": lambda size: " " * size,
    "spaces at last": lambda size: " " * size + "river",
    "Chinese": lambda size: drawn(CHINESE, "", size),
    "Chinese sentences": lambda size: drawn([CHINESE], "。", size),
    "Japanese": lambda size: drawn(JAPANESE, "", size),
    "halfwidth kana": lambda size: drawn("ｶﾞﾊﾟｷﾞｱｲｳ", "", size),
    "Thai": lambda size: drawn([THAI], "", size),
    "combining marks": lambda size: "e" + "\u0301\u0323" * (size // 2),
    "letters with marks": lambda size: "e\u0301o\u0323" * (size // 4),
    "jamo": lambda size: drawn(["\u1100\u1161\u11a8", "\u1112\u1161\u11ab"], "", size),
    "ligatures": lambda size: drawn("ﬁﬂ①㎞㍿ａｂ", "", size),
    "emoji": lambda size: drawn(["👩‍👩‍👧", "🚀", "😀", "👍🏽"], "", size),
    "outside the vocabulary": lambda size: drawn("𠀀𠀁𡈽", "", size),
    "word starts": lambda size: drawn(["▁", "a", "▁▁b"], "", size),
    "special tokens": lambda size: drawn(["<s>", "</s>", "<mask>", "x", " "], "", size),
    "control characters": lambda size: drawn(["\x00", "\x07", "a", "\u200b", "\ufeff"], "", size),
    "odd spaces": lambda size: drawn(["\u3000", "\u00a0", "\u2003", "ab", "\x0b"], "", size),
}


@pytest.fixture(scope="module")
def raw(real_tokenizer_folder):
    return RawTokenizer.from_file(str(real_tokenizer_folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def tokenizer(real_tokenizer_folder):
    return Tokenizer.from_folder(real_tokenizer_folder)


def assert_as_whole(tokenizer, raw, text, limits):
    whole = raw.encode(text, add_special_tokens=False).ids
    for limit in limits:
        (found,) = tokenizer.content_ids([text], limit)
        assert found[:limit] == whole[:limit]
        assert (len(found) > limit) == (len(whole) > limit)


@pytest.mark.parametrize("name", LONG_TEXTS)
def test_long_texts(tokenizer, raw, name):
    for size in (1_000, 20_003):
        assert_as_whole(tokenizer, raw, LONG_TEXTS[name](size), LIMITS)


@pytest.mark.parametrize("name", ["Chinese", "letters", "letters with marks", "spaces at last"])
def test_texts_beyond_the_longest_limit(tokenizer, raw, name):
    assert_as_whole(tokenizer, raw, LONG_TEXTS[name](140_003), LIMITS)


@pytest.mark.parametrize(
    ("name", "size"),
    [("words", 1_000_000), ("words without spaces", 1_000_000), ("Chinese sentences", 400_000)],
)
def test_megabytes(tokenizer, raw, name, size):
    text = LONG_TEXTS[name](size)
    assert len(text.encode()) > 990_000
    assert_as_whole(tokenizer, raw, text, LIMITS)


PIECES = st.sampled_from(
    [
        *ENGLISH,
        *("a", "b", "ab", "aa", "-", "--", "1", "23", ",", ".", " ", "  ", "\n", "\t", "\u3000"),
        *("模型", "文", "的", "。", "が", "か\u3099", "ﾊﾟ", "e\u0301", "\u0301", "\u0323", "한"),
        *("\u1112\u1161", "\u11ab", "ﬁ", "①", "▁", "<s>", "😀", "\u200d", "𠀀", "ไ", "้"),
    ]
)


@settings(max_examples=150)
@given(
    pieces=st.lists(PIECES, min_size=1, max_size=40),
    times=st.integers(1, 60),
    limit=st.sampled_from([1, 2, 5, 10, 40]),
)
def test_any_texts(tokenizer, raw, pieces, times, limit):
    assert_as_whole(tokenizer, raw, "".join(pieces) * times, (limit,))
