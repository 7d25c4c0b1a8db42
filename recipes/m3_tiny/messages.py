"""Interface messages: catalogues of several formats, aligned across languages."""

from __future__ import annotations

import gzip
import json
import re
import struct
from itertools import pairwise
from typing import TYPE_CHECKING

from cleaning import LANGUAGES, MAX_CHARS, Pair, Text, is_prose, plain_message

if TYPE_CHECKING:
    from collections.abc import Iterator

Item = Text | Pair


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


def language_of(locale: str) -> str | None:
    """Our language code for a locale name as packages spell it; None when it is not ours."""
    if _SKIP_LOCALES.match(locale):
        return None
    locale = locale.split(".")[0].lower().replace("-", "_")
    lang = _LOCALES.get(locale) or locale.split("_")[0]
    return lang if lang in LANGUAGES and locale != "zh" else None


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


def parse_pak(data: bytes) -> Iterator[tuple[str, str]]:
    """(resource number, text) of a Chromium data pack, version 5."""
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    version, encoding, count, _ = struct.unpack_from("<IB3xHH", data)
    if version != 5 or encoding != 1:
        return
    entries = [struct.unpack_from("<HI", data, 12 + 6 * i) for i in range(count + 1)]
    for (number, start), (_, end) in pairwise(entries):
        try:
            yield str(number), data[start:end].decode()
        except UnicodeDecodeError:
            continue


def parse_json_messages(data: bytes) -> Iterator[tuple[str, str]]:
    """(key, text) of a MediaWiki i18n file."""
    for key, value in json.loads(data).items():
        if isinstance(value, str) and not key.startswith("@"):
            yield key, value


class Messages:
    """Collects the same messages in several languages; gives texts and translation pairs."""

    def __init__(self) -> None:
        self.table: dict[str, dict[str, str]] = {}

    def add(self, key: str, lang: str, message: str, *, clean: bool = True) -> None:
        """Note that the message `key` reads `message` in `lang`."""
        message = plain_message(message) if clean else message
        if 4 <= len(message) <= MAX_CHARS:
            self.table.setdefault(key, {}).setdefault(lang, message)

    def items(self) -> Iterator[Item]:
        """Texts, English-foreign pairs (direction by turns) and pairs of two foreign languages."""
        for number, forms in enumerate(self.table.values()):
            english = forms.get("en")
            for lang, text in forms.items():
                if lang != "en" and text == english:
                    continue
                if is_prose(lang, text):
                    yield Text(lang, text)
                if english and lang != "en":
                    if number % 2:
                        yield Pair("en", lang, english, text)
                    else:
                        yield Pair(lang, "en", text, english)
            others = [lang for lang in forms if lang != "en" and forms[lang] != english]
            for step, lang in enumerate(others):
                other = others[(step + 1 + number % max(1, len(others) - 1)) % len(others)]
                if other != lang and len(forms[lang]) >= 8:
                    yield Pair(lang, other, forms[lang], forms[other])


def read_messages(path: str, data: bytes, messages: Messages) -> bool:
    """Add the messages of a catalogue to `messages`; False when `path` is no catalogue."""
    if path.endswith(".mo"):
        found = re.search(r"/([A-Za-z_@]+)/LC_MESSAGES/", path) or re.search(
            r"[-/]([a-z]{2,3}(?:_[A-Z]{2})?)\.mo$", path
        )
        lang = language_of(found[1]) if found else None
        if lang and lang != "en":
            for msgid, msgstr in parse_mo(data):
                messages.add(msgid, "en", msgid)
                messages.add(msgid, lang, msgstr)
    elif path.endswith(".pak"):
        lang = language_of(re.sub(r"_MASCULINE$", "", path.rsplit("/", 1)[-1].removesuffix(".pak")))
        for key, message in parse_pak(data) if lang else ():
            messages.add(key, lang, message)
    elif "/i18n/" in path and path.endswith(".json"):
        folder, name = path.rsplit("/", 1)
        lang = language_of(name.removesuffix(".json"))
        for key, message in parse_json_messages(data) if lang else ():
            messages.add(f"{folder}:{key}", lang, message)
    else:
        return False
    return True
