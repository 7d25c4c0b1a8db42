"""How explanations are shown: texts are data there, never markup nor orders."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console
from tests.core.explanations.test_words import texts

from m3_core import explain
from m3_core.explanations.showing import visible
from m3_core.testing import FakeEncoder

HOSTILE = (
    *("<script>alert(1)</script>", "</style><style>*{display:none}", "</div></div>", "<!--", "-->"),
    *('"><img src=x onerror=alert(1)>', "' onmouseover='x", "&lt;b&gt;", "&#60;", "&amp", "]]>"),
    *(
        "--a:url(//x)",
        ";background:url(x)",
        "</title><base href=//x>",
        "<?php",
        "<plaintext>",
        "{body}",
    ),
    *("\x1b[31mred", "\x1b]8;;http://x\x07", "\x9b2J", "\u202eevil", "[bold]x[/bold]", "[/]", "%s"),
)
hostile = st.lists(st.sampled_from(HOSTILE) | texts, max_size=4).map("panda ".join)
TAGS = {
    *("style", "div", "span", "strong", "h4", "p", "mark", "bdi"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("html", "head", "meta", "title", "body"),
}
ATTRIBUTES = {"class", "style", "title", "dir", "scope", "charset", "http-equiv", "content", "name"}


class Reader(HTMLParser):
    """What a browser would make of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.strange: list[str] = []
        self.tooltips: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag in ("td", "mark") and "style" in dict(attrs):
            self.tooltips.append(dict(attrs)["title"])
        if tag != "meta":
            self._open.append(dict(attrs).get("class") or tag)
        if self._open[-1:] == ["m3-text"]:
            self.texts.append("")

    def handle_endtag(self, tag):
        self._open.pop()

    def handle_data(self, data):
        if "m3-text" in self._open:
            self.texts[-1] += data

    def handle_comment(self, data):
        self.strange.append(data)

    unknown_decl = handle_pi = handle_comment


@given(query=hostile, document=hostile)
def test_texts_are_data_in_html(query, document):
    check_html(explain(FakeEncoder(name="<i>&'\""), query, document))


@settings(max_examples=40)
@given(query=hostile, document=hostile)
@example(query='"> panda <img', document="panda \"'><img src=x onerror=alert(1)>")
def test_signs_are_data_in_tables(encoder, query, document):
    # Signs are tokens here, and so stand in tables and tooltips.
    check_html(explain(encoder, query, document))


def check_html(explanation):
    for html in (explanation._repr_html_(), explanation.to_html()):
        read = Reader(html)
        assert set(read.tags) <= TAGS
        assert {name for name, _ in read.attributes} <= ATTRIBUTES
        assert not read.strange
        for name, value in read.attributes:
            if name == "style":
                assert re.fullmatch(r"--a:-?\d\.\d{3}", value)
            if name == "class":
                assert value.startswith("m3-")
        for tooltip in read.tooltips:
            assert re.fullmatch(
                r"(?s)lexical [\d.]+, multi-vector -?[\d.]+|.+ – .+: -?\d\.\d{4}", tooltip
            )
        # All of both texts is there, once.
        assert read.texts == [visible(explanation.query), visible(explanation.document)]
        assert not read._open


@given(query=hostile, document=hostile)
def test_texts_give_a_terminal_no_orders(query, document):
    explanation = explain(FakeEncoder(), query, document)
    console = Console(width=200, color_system=None, record=True, file=io.StringIO())
    console.print(explanation)
    for shown in (str(explanation), console.export_text()):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    assert str(explanation).startswith(f"score {explanation.score:.4f} = 0.333 x dense")


def test_html_loads_nothing_and_has_both_schemes():
    html = explain(FakeEncoder(), "pandas", "Pandas eat.").to_html()
    assert html.startswith("<!DOCTYPE html>")
    assert "default-src 'none'" in html
    assert "prefers-color-scheme:dark" in html
    assert not re.search(r"https?:|//|<script|<link|<img|@import|url\(", html.split("</head>")[1])


def test_html_shows_words_alignment_and_directions():
    html = explain(FakeEncoder(), "שלום panda", "panda שלום עולם")._repr_html_()
    assert html.count('dir="auto"') == 2
    assert "<bdi>שלום</bdi>" in html
    marks = re.findall(r"<mark class=\"m3-lexical\"[^>]*>(\w+)</mark>", html)
    assert marks == ["שלום", "panda", "panda", "שלום"]
    assert html.count('<td class="m3-best"') == 2
    assert 'title="panda – panda: 1.0000"' in html


def test_texts_in_a_terminal():
    shown = str(explain(FakeEncoder(), "What do pandas eat?", "Pandas eat bamboo."))
    lines = shown.splitlines()
    assert lines[2:4] == ["query     What do pandas eat?", "document  Pandas eat bamboo."]
    assert "  pandas  Pandas  1.0000 x 1.0000 = 1.0000" in lines
    assert any(line.split()[:3] == ["pandas", "Pandas", "1.0000"] for line in lines[10:])
    nothing = str(explain(FakeEncoder(), "panda", "nothing", parts=["sparse"]))
    assert "no token in common" in nothing
    assert "multi-vector" not in nothing


@pytest.mark.parametrize("words", [1, 5_000])
def test_long_texts_are_cut_to_what_matters_in_a_terminal(words):
    document = "word " * words + "panda" + " other" * words
    shown = str(explain(FakeEncoder(), "panda", document))
    (line,) = [one for one in shown.splitlines() if one.startswith("document")]
    assert "panda" in line
    assert len(line) < 1_400
    assert line.startswith("document  … " if words > 1 else "document  word panda other")
