"""Reading the files of packages: documentation, catalogues of messages, a fact book, a quiz."""

from __future__ import annotations

import ast
import json
import re
import struct
from typing import TYPE_CHECKING

from cleaning import LANGUAGES, MAX_CHARS, Text, is_prose, plain, plain_message, split_long

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sources import Source

_LOCALES = {
    "zh_cn": "zh",
    "zh_hans": "zh",
    "pt_br": "pt",
    "zh_hans_cn": "zh",
    "c": "en",
    "en_us": "en",
    "ar_ma": "ar",
}
_SKIP_LOCALES = re.compile(
    r"(?i)^(zh[-_](tw|hk|hant)|zh_hant|en[-_](gb|ca|au|za|shaw)|.*@.*|.*_feminine|.*_neuter)"
)
# Sources whose pages have the same blocks in each language.
_ALIGNED = ("libreoffice-help", "gnome-user-docs")
_HTML_DROP = re.compile(
    r"(?is)<(script|style|pre|header|aside|nav|noscript|footer)\b.*?</\1>|<!--.*?-->"
)
_HTML_BLOCK = re.compile(
    r"(?is)<(h[1-6]|title|p|dd|li|td|desc|dt)\b([^>]*)>(.*?)(?=</\1>|<(?:h[1-6]|p|dd|li|td|dt|title|table|ul|ol|div)\b|</div>)"
)
_HTML_ID = re.compile(r'id="((?:par|hd)_id\w+)"')
_LOCALE_FOLDER = re.compile(
    r"/(?:help|html)/(C|[a-z]{2,3}(?:[-_@][\w@]+)?)/|[./]([a-z]{2}(?:[-_][A-Za-z]{2})?)\.html$"
)


class Aligned:
    """What packages say in several languages, by place or English message."""

    def __init__(self) -> None:
        self.table: dict[str, dict[str, str]] = {}

    def add(self, key: str, lang: str, text: str) -> None:
        """Note that what `key` names reads `text` in `lang`."""
        if 4 <= len(text) <= MAX_CHARS:
            self.table.setdefault(key, {}).setdefault(lang, text)

    def texts(self) -> Iterator[Text]:
        """What is prose, without what was left untranslated."""
        for forms in self.table.values():
            for lang, text in forms.items():
                if (lang == "en" or text != forms.get("en")) and is_prose(lang, text):
                    yield Text(lang, text)


def language_of(locale: str) -> str | None:
    """Our language code for a locale name as packages spell it; None when it is not ours."""
    if _SKIP_LOCALES.match(locale):
        return None
    locale = locale.split(".")[0].lower().replace("-", "_")
    lang = _LOCALES.get(locale) or locale.split("_")[0]
    return lang if lang in LANGUAGES and locale != "zh" else None


def language_in_path(path: str, default: str) -> str | None:
    """The language of a documentation file by its path; None when it is not one of ours."""
    found = _LOCALE_FOLDER.search(path)
    if not found:
        return default
    locale = found[1] or found[2]
    return "zh" if locale.lower() in ("zh", "zh-cn") else language_of(locale)


def _prose(lang: str, blocks: Iterable[str]) -> Iterator[Text]:
    for block in blocks:
        for text in split_long(block):
            if is_prose(lang, text):
                yield Text(lang, text)


def read_html(
    path: str, data: bytes, default: str, aligned: Aligned | None = None
) -> Iterator[Text]:
    """Paragraphs of an HTML or Mallard page; blocks that can be aligned go to `aligned` too."""
    lang = language_in_path(path, default)
    if lang is None or len(data) > 3_000_000:
        return
    page = _HTML_DROP.sub(" ", data.decode("utf-8", "replace").replace('<div class="para">', "<p>"))
    short_path = re.sub(r"^.*?/(?=text/|gnome-help/)", "", path)
    for number, block in enumerate(_HTML_BLOCK.finditer(page)):
        tag, attributes, inner = block[1].lower(), block[2], plain(block[3])
        if not inner:
            continue
        name = _HTML_ID.search(attributes)
        if aligned is not None and number % 2 and (name or path.endswith(".page")):
            aligned.add(f"{short_path}#{name[1] if name else number}", lang, inner)
        if tag[0] != "h" and tag not in ("title", "dt"):
            yield from _prose(lang, [inner])


def parse_mo(data: bytes) -> Iterator[tuple[str, str]]:
    """(msgid, msgstr) of a compiled gettext catalogue; contexts and plural forms are cut off."""
    order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
    count, ids, strings = struct.unpack_from(order + "8x3I", data)
    for i in range(count):
        length, start = struct.unpack_from(order + "2I", data, ids + 8 * i)
        msgid = data[start : start + length].split(b"\x00")[0].split(b"\x04")[-1]
        length, start = struct.unpack_from(order + "2I", data, strings + 8 * i)
        msgstr = data[start : start + length].split(b"\x00")[0]
        if msgid and msgstr:
            try:
                yield msgid.decode(), msgstr.decode()
            except UnicodeDecodeError:
                continue


def read_messages(path: str, data: bytes, aligned: Aligned) -> None:
    """Add the messages of a catalogue to `aligned`."""
    found = re.search(r"/([A-Za-z_@]+)/LC_MESSAGES/", path)
    lang = language_of(found[1]) if found else None
    if lang and lang != "en":
        for msgid, msgstr in parse_mo(data):
            aligned.add(msgid, "en", plain_message(msgid))
            aligned.add(msgid, lang, plain_message(msgstr))


def read_deb(
    source: Source, files: Iterable[tuple[str, bytes]], aligned: Aligned
) -> Iterator[Text]:
    """Texts of a package; what other packages may say in other languages goes to `aligned`."""
    for path, data in files:
        if path.endswith(".mo"):
            read_messages(path, data, aligned)
        elif path.endswith((".html", ".htm", ".page")):
            shared = aligned if source.name in _ALIGNED else None
            yield from read_html(path, data, source.lang, shared)


def _country(entry: dict) -> str:
    names = entry.get("Government", {}).get("Country name", {})
    name = plain(names.get("conventional short form", {}).get("text", ""))
    return "" if name == "none" else name


def _read_factbook(data: bytes) -> Iterator[Text]:
    entry = json.loads(data)
    if not isinstance(entry, dict) or not _country(entry):
        return
    for fields in entry.values():
        for value in fields.values() if isinstance(fields, dict) else ():
            if isinstance(value, dict):
                said = [
                    plain(part["text"])
                    for part in (value, *value.values())
                    if isinstance(part, dict) and "text" in part
                ]
                yield from _prose("en", said[:2])


def _read_quiz(data: bytes) -> Iterator[Text]:
    found = re.search(r"GK_QUESTIONS\s*=\s*(\[.*\])", data.decode(), re.S)
    for item in ast.literal_eval(found[1]) if found else ():
        yield Text("hi", plain(item["question"]))


def read_wheel(source: Source, files: Iterable[tuple[str, bytes]]) -> Iterator[Text]:
    """Texts of a package of PyPI."""
    for path, data in files:
        if source.name == "world-factbook" and "/data/" in path and path.endswith(".json"):
            yield from _read_factbook(data)
        elif source.name == "gk-hi" and path.endswith(".py"):
            yield from _read_quiz(data)
