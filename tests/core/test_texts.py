"""What callers pass by mistake in the place of texts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from m3_core.texts import check_pairs, check_texts


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ("bamboo", "wrap a single text in a list"),
        (None, "got NoneType"),
        ({"a": "bamboo"}, "got dict: pass its values in a list"),
        ([SimpleNamespace(page_content="bamboo")], "must be a str: pass its page_content"),
        ([SimpleNamespace(text="bamboo")], "must be a str: pass its text"),
        (["bamboo", 7], "text 1 is of type int; it must be a str$"),
    ],
)
def test_what_is_no_text_is_an_error_that_says_what_to_pass(texts: object, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        check_texts(texts)


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (("query", "document"), "put a single pair into a list"),
        ([("a", "b", "c")], "got 3 elements"),
        ([["a"]], "got 1 elements"),
        ([7], "got int"),
    ],
)
def test_what_is_no_pair_is_an_error_that_says_why(pairs: object, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        check_pairs(pairs)
