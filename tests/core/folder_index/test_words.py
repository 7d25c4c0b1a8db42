from hypothesis import given
from hypothesis import strategies as st

from m3_core.folder_index import QueryWords, estimated_tokens, matches, passages_of, window
from m3_core.folder_index.blocks import html_blocks, markdown_blocks, text_blocks

TEXTS = st.text(alphabet=st.sampled_from("ab .\n#`-=>é大熊。ा🐼<p/h1"), max_size=200)


@given(TEXTS, st.integers(4, 40))
def test_passages_hold_every_word_once_and_know_their_lines(text, limit):
    for blocks in (text_blocks(text), markdown_blocks(text), html_blocks(text)):
        passages = passages_of(blocks, limit, estimated_tokens)
        bodies = "".join(
            one.text.removeprefix(one.heading) if one.heading else one.text for one in passages
        )
        assert "".join(bodies.split()) == "".join("".join(one.text for one in blocks).split())
        lines = [one.line for one in passages]
        assert lines == sorted(lines)
        assert all(1 <= one.line <= one.end_line <= text.count("\n") + 1 for one in passages)
    lines = text.split("\n")
    for one in passages_of(text_blocks(text), limit, estimated_tokens):
        first = one.text.split("\n")[0].strip()
        assert first in lines[one.line - 1]


@given(TEXTS, TEXTS, st.integers(10, 80))
def test_matched_words_are_pieces_of_the_text(query, text, width):
    spans = matches(QueryWords.of(query), text)
    ends = [place for span in spans for place in span]
    assert ends == sorted(ends)
    assert all(text[start:end].strip() for start, end in spans)
    start, end = window(text, spans, width)
    assert 0 <= start <= end <= len(text)
    assert end - start <= width + 24


def test_words_match_other_forms_and_scripts_without_spaces():
    text = "Der Fluß fließt; RIVERS flow. 東京の大熊猫"
    found = [text[a:b] for a, b in matches(QueryWords.of("river fluss 大熊猫"), text)]
    assert found == ["Fluß", "RIVERS", "大熊猫"]
