"""An explanation as HTML: one piece, no script, nothing from elsewhere, every text escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.explanations.showing import escaped, named, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from m3_core.explanations.explanation import Explanation
    from m3_core.explanations.spans import Place, Span

_STYLE = """
.m3-explanation{--ink:#1b1b1f;--soft:#5b5b66;--page:#ffffff;--line:#d8d8df;--hit:255,176,32;
--heat:84,146,240;color:var(--ink);background:var(--page);font:14px/1.5 system-ui,sans-serif;
padding:1em;border:1px solid var(--line);border-radius:6px;max-width:70em;color-scheme:light dark}
@media (prefers-color-scheme:dark){.m3-explanation{--ink:#ececf1;--soft:#a5a5b3;--page:#1b1b20;
--line:#3d3d48;--hit:160,92,0;--heat:40,96,210}}
.m3-explanation h4{margin:1.2em 0 .3em;font-size:1em;color:inherit}
.m3-explanation .m3-soft{color:var(--soft)}
.m3-explanation .m3-text{white-space:pre-wrap;overflow-wrap:anywhere;max-height:24em;overflow:auto;
border-inline-start:3px solid var(--line);padding:.2em .8em;margin:.2em 0;line-height:1.8}
.m3-explanation mark{color:inherit;background:rgba(var(--hit),var(--a));border-radius:3px;
padding:.1em 0}
.m3-explanation mark.m3-lexical{text-decoration:underline;text-decoration-thickness:2px;
text-underline-offset:.2em}
.m3-explanation .m3-unseen{color:var(--soft);text-decoration:line-through}
.m3-explanation .m3-wide{overflow-x:auto}
.m3-explanation table{border-collapse:collapse;margin:.3em 0;color:inherit;background:none}
.m3-explanation caption{text-align:start;color:var(--soft)}
.m3-explanation th,.m3-explanation td{padding:.15em .6em;text-align:start;font-weight:normal;
border:0;background:none;color:inherit;white-space:nowrap}
.m3-explanation thead th{color:var(--soft)}
.m3-explanation td.m3-number{text-align:end;font-variant-numeric:tabular-nums}
.m3-explanation table.m3-heat th,.m3-explanation table.m3-heat td{padding:.2em .35em}
.m3-explanation table.m3-heat thead th{writing-mode:vertical-rl;text-align:end;
vertical-align:bottom;color:inherit;max-height:11em}
.m3-explanation table.m3-heat td{text-align:center;font-size:.85em;min-width:2.4em;
font-variant-numeric:tabular-nums;background:rgba(var(--heat),var(--a));
border:1px solid var(--page)}
.m3-explanation table.m3-heat td.m3-best{font-weight:bold;outline:2px solid var(--ink);
outline-offset:-2px}
"""
_STYLE = _STYLE.strip()

_PAGE = (
    '<!DOCTYPE html>\n<html><head><meta charset="utf-8">'
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    '<meta name="viewport" content="width=device-width">'
    '<meta name="color-scheme" content="light dark">'
    "<title>{title}</title></head><body>\n{body}\n</body></html>\n"
)
_ROWS = 40
_UNSEEN = 1000


def html_of(explanation: Explanation, *, whole: bool = False) -> str:
    """Make HTML of an explanation.

    Args:
        explanation: The explanation.
        whole: A page of its own, with a policy that forbids scripts and anything from elsewhere.

    Returns:
        HTML, which sets colours of its own for light and for dark.
    """
    parts = [
        f"<style>{_STYLE}</style>",
        _total(explanation),
        "<h4>Query</h4>",
        _text(explanation.query_spans),
        "<h4>Document</h4>",
        _text(explanation.spans),
        _legend(explanation),
        _words(explanation),
        _alignments(explanation),
        _heat(explanation),
        *(f'<p class="m3-soft">{escaped(note)}</p>' for note in explanation.notes),
    ]
    body = "\n".join(part for part in parts if part)
    body = f'<div class="m3-explanation">\n{body}\n</div>'
    if not whole:
        return body
    return _PAGE.format(title=escaped(plain(explanation.query, 80)), body=body)


def _total(explanation: Explanation) -> str:
    rows = [
        f'<tr><th scope="row">{part}</th>{_numbers(explanation.scores[part])}'
        f"{_numbers(weight)}{_numbers(explanation.contributions[part])}</tr>"
        for part, weight in explanation.weights.items()
    ]
    return (
        f"<div><strong>Score {explanation.score:.4f}</strong> "
        f'<span class="m3-soft">{escaped(explanation.model)}</span></div>'
        "<table><thead><tr><th></th>"
        f"{_heads('score', 'weight', 'part of the whole')}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _text(spans: Sequence[Span]) -> str:
    most = max((span.contribution for span in spans if span.is_word), default=0.0)
    return f'<div class="m3-text" dir="auto">{"".join(_span(span, most) for span in spans)}</div>'


def _span(span: Span, most: float) -> str:
    if not span.seen:
        text, left = span.text[:_UNSEEN], len(span.text) - _UNSEEN
        more = f" … {left} more characters" if left > 0 else ""
        title = "Behind max_length: the model did not see this"
        return f'<span class="m3-unseen" title="{title}">{escaped(text)}{more}</span>'
    if not span.is_word or span.contribution <= 0:
        return escaped(span.text)
    # Faint ones shall be seen too.
    shade = 0.12 + 0.78 * min(span.contribution / most, 1.0)
    kind = ' class="m3-lexical"' if span.sparse else ""
    title = f"lexical {span.sparse:.4f}, multi-vector {span.colbert:.4f}"
    return f'<mark{kind} style="--a:{shade:.3f}" title="{title}">{escaped(span.text)}</mark>'


def _legend(explanation: Explanation) -> str:
    said = []
    if "colbert" in explanation.scores or "sparse" in explanation.scores:
        said.append("The stronger the colour, the more of the score a word explains.")
    if "sparse" in explanation.scores:
        said.append("Underlined words are in both texts.")
    if "dense" in explanation.scores:
        said.append("The dense score is of the whole texts and has no parts.")
    if explanation.truncated or explanation.query_truncated:
        said.append("What is struck through lies behind max_length and was not seen.")
    return f'<p class="m3-soft">{" ".join(said)}</p>'


def _words(explanation: Explanation) -> str:
    if "sparse" not in explanation.scores:
        return ""
    head = f"<h4>Words in both: {explanation.scores['sparse']:.4f}</h4>"
    if not explanation.words:
        return f'{head}<p class="m3-soft">No token in common.</p>'
    rows = [
        f"<tr><td>{_word(word.query, word.query_places[0])}</td>"
        f"<td>{_word(word.document, word.document_places[0])}</td>"
        f"{_numbers(word.query_weight, word.document_weight, word.contribution)}"
        f'<td class="m3-soft">{"" if word.whole else "in part"}</td></tr>'
        for word in explanation.words[:_ROWS]
    ]
    heads = _heads("query", "document", "weight in query", "in document", "product", "")
    return head + _table(heads, rows, len(explanation.words))


def _alignments(explanation: Explanation) -> str:
    if not explanation.alignments:
        return ""
    head = f"<h4>Most similar words: {explanation.scores['colbert']:.4f}</h4>"
    rows = [
        f"<tr><td>{_word(one.query, one.query_place)}</td>"
        f"<td>{_word(one.document, one.document_place)}</td>"
        f"{_numbers(one.similarity, one.contribution)}</tr>"
        for one in explanation.alignments[:_ROWS]
    ]
    heads = _heads("query", "document", "similarity", "part of the score")
    return head + _table(heads, rows, len(explanation.alignments))


def _heat(explanation: Explanation) -> str:
    heat = explanation.heat_map
    if not heat.rows or not heat.columns:
        return ""
    values = [value for row in heat.similarities for value in row]
    low, high = min(values), max(values)
    rows = []
    for query, row in zip(heat.rows, heat.similarities, strict=True):
        best = max(row)
        cells = "".join(
            _cell(query, document, value, (value - low) / ((high - low) or 1.0), value == best)
            for document, value in zip(heat.columns, row, strict=True)
        )
        rows.append(f'<tr><th scope="row">{_word(query)}</th>{cells}</tr>')
    heads = "".join(f'<th scope="col">{_word(document)}</th>' for document in heat.columns)
    more = f" {heat.left_out} more words of the query are left out." if heat.left_out else ""
    return (
        '<h4>Alignment</h4><div class="m3-wide"><table class="m3-heat">'
        "<caption>Similarity of the query&#x27;s words, one a row, to those of the document that "
        f"most is owed to; the best of a row is framed.{more}</caption>"
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(query: str, document: str, value: float, share: float, best: bool) -> str:  # noqa: FBT001
    title = f"{escaped(plain(query))} – {escaped(plain(document))}: {value:.4f}"
    kind = ' class="m3-best"' if best else ""
    return f'<td{kind} style="--a:{0.85 * share:.3f}" title="{title}">{value:.2f}</td>'


def _word(text: str, place: Place | None = (0, 0)) -> str:
    word, what = named(text, place)
    shown = f"<bdi>{escaped(word)}</bdi>" if word else ""
    return f'{shown} <span class="m3-soft">{what}</span>'.strip() if what else shown


def _numbers(*values: float) -> str:
    return "".join(f'<td class="m3-number">{value:.4f}</td>' for value in values)


def _heads(*names: str) -> str:
    return "".join(f'<th scope="col">{name}</th>' for name in names)


def _table(heads: str, rows: Iterable[str], count: int) -> str:
    more = f'<p class="m3-soft">and {count - _ROWS} more</p>' if count > _ROWS else ""
    body = f"<tbody>{''.join(rows)}</tbody>"
    table = f"<table><thead><tr>{heads}</tr></thead>{body}</table>"
    return f'<div class="m3-wide">{table}</div>{more}'
