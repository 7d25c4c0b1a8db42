"""An explanation in a terminal, plain and in colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m3_core.explanations.showing import named, on_one_line, padded, plain, width

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from m3_core.explanations.explanation import Explanation
    from m3_core.explanations.spans import Place, Span

# A line is pieces of text, each with a style of rich.
Line = list[tuple[str, str]]

_ROWS = 20
_CHARACTERS = 1200
_BAR = 20


def text_of(lines: Sequence[Line]) -> str:
    """Join lines without their styles.

    Args:
        lines: Of ``lines_of``.

    Returns:
        Several lines of text.
    """
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines)


def rich_of(lines: Sequence[Line]) -> Any:
    """Join lines for ``rich``.

    Args:
        lines: Of ``lines_of``.

    Returns:
        A ``rich.text.Text``; what stands in square brackets is no markup in it.
    """
    from rich.text import Text

    whole = Text()
    for number, line in enumerate(lines):
        whole.append("\n" if number else "")
        for text, style in line:
            whole.append(text, style or None)
    return whole


def lines_of(explanation: Explanation) -> list[Line]:
    """Put an explanation into lines.

    Args:
        explanation: The explanation.

    Returns:
        The lines; long texts are cut to what matters most.
    """
    lines = [_total(explanation), []]
    lines.append([("query     ", "dim"), *_marked(explanation.query_spans)])
    lines.append([("document  ", "dim"), *_marked(explanation.spans)])
    if explanation.query_truncated:
        lines.append([("          the query's end was cut: max_length", "yellow")])
    if explanation.truncated:
        unseen = sum(span.end - span.start for span in explanation.spans if not span.seen)
        lines.append(
            [(f"          the last {unseen} characters were not seen: max_length", "yellow")]
        )
    lines += _words(explanation)
    lines += _alignments(explanation)
    lines += [[(note, "italic")] for note in explanation.notes]
    return lines


def _total(explanation: Explanation) -> Line:
    sums = " + ".join(
        f"{weight:.3g} x {part} {explanation.scores[part]:.4f}"
        for part, weight in explanation.weights.items()
    )
    return [
        (f"score {explanation.score:.4f}", "bold"),
        (f" = {sums}", ""),
        (f"   {plain(explanation.model)}", "dim"),
    ]


def _words(explanation: Explanation) -> Iterator[Line]:
    if "sparse" not in explanation.scores:
        return
    yield []
    yield [
        ("lexical", "bold"),
        (f" {explanation.scores['sparse']:.4f}: words in both, ", ""),
        ("weight in the query x weight in the document", "dim"),
    ]
    if not explanation.words:
        yield [("  no token in common", "dim")]
    shown = explanation.words[:_ROWS]
    names = [
        (_name(word.query, word.query_places[0]), _name(word.document, word.document_places[0]))
        for word in shown
    ]
    first, second = (max((width(name[i]) for name in names), default=0) for i in (0, 1))
    for word, (query, document) in zip(shown, names, strict=True):
        yield [
            (f"  {padded(query, first)}  {padded(document, second)}  ", ""),
            (f"{word.query_weight:.4f} x {word.document_weight:.4f} = ", "dim"),
            (f"{word.contribution:.4f}", "bold"),
            ("" if word.whole else "  in part", "dim"),
        ]
    yield from _more(len(explanation.words))


def _alignments(explanation: Explanation) -> Iterator[Line]:
    if "colbert" not in explanation.scores:
        return
    yield []
    yield [
        ("multi-vector", "bold"),
        (f" {explanation.scores['colbert']:.4f}: ", ""),
        ("each word's most similar word, similarity, part of the score", "dim"),
    ]
    shown = explanation.alignments[:_ROWS]
    names = [
        (_name(one.query, one.query_place), _name(one.document, one.document_place))
        for one in shown
    ]
    first, second = (max((width(name[i]) for name in names), default=0) for i in (0, 1))
    for one, (query, document) in zip(shown, names, strict=True):
        bar = "█" * round(_BAR * min(max(one.similarity, 0.0), 1.0))
        yield [
            (f"  {padded(query, first)}  {padded(document, second)}  {one.similarity:7.4f} ", ""),
            (f"{one.contribution:7.4f} ", "bold"),
            (bar, "cyan"),
        ]
    yield from _more(len(explanation.alignments))


def _name(text: str, place: Place | None) -> str:
    return " ".join(filter(None, named(text, place)))


def _more(count: int) -> Iterator[Line]:
    if count > _ROWS:
        yield [(f"  and {count - _ROWS} more", "dim")]


def _marked(spans: Sequence[Span]) -> Line:
    """The text with its words marked, or what surrounds the word that matters most."""
    best = max(range(len(spans)), key=lambda n: spans[n].contribution, default=0)
    most = max((span.contribution for span in spans), default=0.0)
    first = last = best
    while True:
        size = spans[last].end - spans[first].start if spans else 0
        grown = (max(first - 1, 0), min(last + 1, len(spans) - 1))
        if size > _CHARACTERS or grown == (first, last) or not spans:
            break
        first, last = grown
    line: Line = [("… ", "dim")] if first else []
    for span in spans[first : last + 1]:
        text = on_one_line(span.text)
        cut = text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]}…"
        line.append((cut, _style(span, most)))
    return [*line, (" …", "dim")] if last < len(spans) - 1 else line


def _style(span: Span, most: float) -> str:
    if not span.seen:
        return "strike dim"
    if not span.is_word or span.contribution <= 0:
        return ""
    strong = span.contribution > most / 2
    return f"{'bold ' if strong else ''}{'underline ' if span.sparse else ''}cyan".strip()
