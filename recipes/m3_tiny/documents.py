"""Documentation: HTML pages, manual pages, Debian's package descriptions, plain text."""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING

from cleaning import Pair, Text, is_prose, plain, split_long
from messages import Item, Messages, language_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def paragraphs(lang: str, heading: str, body: list[str], title: str = "") -> Iterator[Item]:
    """Every paragraph below a heading, and (heading, paragraph) for the first two long ones."""
    taken = 0
    for raw in body:
        for text in split_long(raw):
            if not is_prose(lang, text):
                continue
            yield Text(lang, text)
            if (
                heading
                and taken < 2
                and len(text) >= (30 if lang in ("zh", "ja", "ko", "th") else 80)
            ):
                taken += 1
                query = (
                    heading
                    if not title or title in heading or taken == 1
                    else f"{title}: {heading}"
                )
                yield Pair(lang, lang, query, text)


_HTML_DROP = re.compile(
    r"(?is)<(script|style|pre|header|aside|nav|noscript|footer)\b.*?</\1>|<!--.*?-->"
)


_HTML_BLOCK = re.compile(
    r"(?is)<(h[1-6]|title|p|dd|li|td|desc|dt)\b([^>]*)>(.*?)(?=</\1>|<(?:h[1-6]|p|dd|li|td|dt|title|table|ul|ol|div)\b|</div>)"
)


_HTML_ID = re.compile(r'id="((?:par|hd)_id\w+)"')


_NUMBERING = re.compile(
    r"^(?:(?:chapter|kapitel|глава|capítulo|chapitre|第)\s*)?[\dA-Z]{1,3}(?:\.\d+)*\.?[\s\u00a0章]+|[¶\uf0c1]"
)


_LOCALE_FOLDER = re.compile(
    r"/(?:help|html|FAQ|installation-guide-amd64|developers-reference)/(C|[a-z]{2,3}(?:[-_@][\w@]+)?)/"
    r"|[./]([a-z]{2}(?:[-_][A-Za-z]{2})?)\.(?:html|txt|utf8)$|/descript/([a-z]{2}(?:_[A-Z]{2})?)/"
)


def language_in_path(path: str, default: str) -> str | None:
    """The language of a documentation file by its path; None when it is not one of ours."""
    found = _LOCALE_FOLDER.search(path)
    if not found:
        return default
    locale = found[1] or found[2] or found[3]
    return "zh" if locale.lower() in ("zh", "zh-cn") else language_of(locale)


def read_html(
    path: str, data: bytes, default: str, aligned: Messages | None = None
) -> Iterator[Item]:
    """Paragraphs of an HTML or Mallard page; blocks that can be aligned go to `aligned` too."""
    lang = language_in_path(path, default)
    if lang is None or len(data) > 3_000_000:
        return
    page = _HTML_DROP.sub(" ", data.decode("utf-8", "replace").replace('<div class="para">', "<p>"))
    title = heading = ""
    body: list[str] = []
    short_path = re.sub(r"^.*?/(?=text/|gnome-help/)", "", path)
    for number, block in enumerate(_HTML_BLOCK.finditer(page)):
        tag, attributes, inner = block[1].lower(), block[2], plain(block[3])
        if not inner:
            continue
        name = _HTML_ID.search(attributes)
        if aligned is not None and (name or path.endswith(".page")):
            key = f"{short_path}#{name[1] if name else number}"
            if number % 2:
                aligned.add(key, lang, inner, clean=False)
        if tag[0] == "h" or tag in ("title", "dt"):
            yield from paragraphs(lang, heading, body, title)
            heading, body = _NUMBERING.sub("", inner)[:200].strip(), []
            title = title or heading
        else:
            body.append(inner)
    yield from paragraphs(lang, heading, body, title)


_ROFF_ESCAPE = re.compile(
    r"\\f(?:\[\w*\]|\(\w\w|.)|\\s[+-]?\d|\\[&|^/,%:c]|\\m\[\w*\]|\\[FR]\[\w*\]"
)


_ROFF_CHAR = {
    "aq": "'",
    "oq": "'",
    "cq": "'",
    "lq": '"',
    "rq": '"',
    "dq": '"',
    "em": "—",
    "en": "–",
    "bu": "•",
    "co": "©",
    "ha": "^",
    "ti": "~",
    "rs": "\\",
    "Fo": "«",
    "Fc": "»",
    "Bq": "„",
    "lB": "[",
    "rB": "]",
}


_ROFF_NAMED = re.compile(r"\\\((..)|\\\[([^\]]*)\]")


def _unroff(line: str) -> str:
    line = _ROFF_NAMED.sub(lambda m: _ROFF_CHAR.get(m[1] or m[2], ""), _ROFF_ESCAPE.sub("", line))
    return (
        line.replace("\\-", "-")
        .replace("\\e", "\\")
        .replace("\\ ", " ")
        .replace("\\(", "(")
        .replace("\\", "")
    )


_ROFF_KIND = {
    **dict.fromkeys("nf EX TS Bd".split(), "skip"),  # noqa: SIM905
    **dict.fromkeys("fi EE TE Ed".split(), "resume"),  # noqa: SIM905
    **dict.fromkeys("SH Sh SS Ss".split(), "section"),  # noqa: SIM905
    **dict.fromkeys("PP P LP Pp TP IP It HP sp br RS RE".split(), "paragraph"),  # noqa: SIM905
    **dict.fromkeys("BR IR RB BI IB RI".split(), "joined"),  # noqa: SIM905
    **dict.fromkeys("B I Nm Fl Ar Nd Em Sy Xr".split(), "words"),  # noqa: SIM905
}


def _man_sections(source: str) -> list[tuple[str, list[str]]]:
    """Headings and paragraphs of groff source; displays and tables are left out."""
    sections, skipping = [("", [""])], False
    for line in source.splitlines():
        macro, _, rest = line[1:].strip().partition(" ")
        rest = _unroff(rest.replace('"', ""))
        kind = _ROFF_KIND.get(macro, "") if line.startswith((".", "'")) else "text"
        body = sections[-1][1]
        if kind in ("skip", "resume"):
            skipping = kind == "skip"
        elif kind == "section":
            sections.append((rest.strip(), [""]))
        elif kind == "paragraph" or not line.strip():
            body.append("")
        elif kind and not skipping:
            words = {"text": _unroff(line), "joined": rest.replace(" ", "")}.get(kind, rest)
            body[-1] += (" - " if macro == "Nd" else " ") + words
    return sections


def read_man(path: str, data: bytes) -> Iterator[Item]:
    """Paragraphs of a manual page; pairs (NAME line, description), (page section, paragraph)."""
    found = re.search(r"/man/(?:([^/]+)/)?man\d\w*/([^/]+?)\.\d\w*\.gz$", path)
    lang = language_of(found[1].replace(".UTF-8", "")) if found and found[1] else "en"
    if not found or lang is None:
        return
    try:
        sections = _man_sections(gzip.decompress(data).decode())
    except (UnicodeDecodeError, OSError):
        return
    summary = plain(" ".join(sections[1][1])).partition(" - ")[2] if len(sections) > 1 else ""
    for number, (heading, body) in enumerate(sections[2:]):
        cleaned = [plain(text) for text in body]
        good = [text for raw in cleaned for text in split_long(raw) if is_prose(lang, text)]
        if number in (1, 2) and summary and good and len(good[0]) >= 60:
            yield Pair(lang, lang, summary, good[0])
            summary = ""
        yield from paragraphs(lang, f"{found[2]} {heading.capitalize()}", cleaned)


_Description = tuple[str, list[str]]


def _parse_descriptions(tables: dict[str, str]) -> Iterator[dict[str, _Description]]:
    """The short and the long description of each package, in each language there is."""
    known: dict[str, dict[str, _Description]] = {}
    stanza_form = re.compile(r"Description-md5: (\w+)\nDescription-[\w-]+: (.*)\n((?: .*\n?)*)")
    for lang in sorted(tables, key=lambda code: code != "en"):
        for stanza in tables[lang].split("\n\n"):
            found = stanza_form.search(stanza)
            if not found or (lang != "en" and (found[1] not in known or "<trans>" in stanza)):
                continue
            parts = re.split(r"(?m)^ \.\n", found[3])
            body = [plain(part) for part in parts if not re.search(r"(?m)^  ", part)]
            known.setdefault(found[1], {})[lang] = (plain(found[2]), body)
    yield from known.values()


def _translated(number: int, forms: dict[str, _Description]) -> Iterator[Item]:
    """Pairs of a description's languages: short to long both ways, and long to long."""
    others = [lang for lang in forms if lang != "en"]
    for step, lang in enumerate(others):
        other = (["en", *others])[(step + number) % (len(others) + 1)]
        mine, theirs = forms[lang], forms[other]
        if other != lang and mine[1] and theirs[1]:
            yield Pair(lang, other, mine[0], theirs[1][0])
            yield Pair(other, lang, theirs[0], mine[1][0])
            if number % 2 and len(mine[1]) == len(theirs[1]):
                yield Pair(lang, other, mine[1][0], theirs[1][0])


def read_descriptions(tables: dict[str, str]) -> Iterator[Item]:
    """Debian package descriptions; `tables` has the Translation files by language code."""
    for number, forms in enumerate(_parse_descriptions(tables)):
        for lang, (short, body) in forms.items():
            for text in body:
                if is_prose(lang, text):
                    yield Text(lang, text)
            if lang != "en" and (short, body) == forms["en"]:
                continue
            first = next((text for text in body if is_prose(lang, text) and len(text) > 40), None)
            if first and is_prose(lang, short):
                yield Text(lang, short)
                yield Pair(lang, lang, short, first)
        yield from _translated(number, forms)


def read_lines(lang: str, data: bytes) -> Iterator[Item]:
    """Paragraphs of plain text or Markdown, a line each; short lines count as headings."""
    heading, body = "", []
    for line in data.decode("utf-8", "replace").splitlines():
        text = plain(re.sub(r"^\s*(?:[#*>-]+|\d+\.)\s+|\*\*|__", "", line))
        if line.lstrip().startswith("#") or (
            text and len(text) < 70 and text[-1] not in ".!?।。！？,;:"
        ):
            yield from paragraphs(lang, heading, body)
            heading, body = text.rstrip(":："), []
        elif text:
            body.append(text)
    yield from paragraphs(lang, heading, body)
