"""Dictionaries, wordnets, bibles, fact books and other collections of entries."""

from __future__ import annotations

import ast
import gzip
import json
import re
import struct
import zlib
from typing import TYPE_CHECKING

from cleaning import LANGUAGES, MAX_CHARS, Pair, Text, is_prose, plain, split_long

if TYPE_CHECKING:
    from collections.abc import Iterator

    from messages import Item


LANGUAGE_OF_CODE = dict(
    zip(
        [
            "eng",
            "deu",
            "spa",
            "zho",
            "rus",
            "hin",
            "ara",
            "fra",
            "jpn",
            "kor",
            "por",
            "ita",
            "pol",
            "tur",
            "vie",
            "ind",
            "tha",
            "ell",
            "ukr",
            "nld",
        ],
        LANGUAGES,
        strict=True,
    )
) | {"por": "pt", "ita": "it"}


def read_dictd(path: str, data: bytes, index: bytes) -> Iterator[Item]:
    """Entries of a dictd dictionary: (headword, what is said of it)."""
    name = path.rsplit("/", 1)[-1].split(".")[0].removeprefix("freedict-")
    codes = [LANGUAGE_OF_CODE.get(code) for code in name.split("-")]
    lang_q, lang_d = codes if len(codes) == 2 and all(codes) else ("en", "en")
    book = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    digits = {
        c: i
        for i, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    }

    def number(text: str) -> int:
        value = 0
        for char in text:
            value = value * 64 + digits[char]
        return value

    for line in index.decode("utf-8", "replace").splitlines():
        head, *place = line.split("\t")
        if len(place) < 2 or head.startswith("00"):
            continue
        start, length = number(place[0]), number(place[1])
        entry = book[start : start + min(length, 12_000)].decode("utf-8", "replace")
        text = plain(
            re.sub(
                r"\([A-Z][\w.& ]{0,30}\.\)|/[^/\n]*/|\[[^\]]*\]|[{}]|^\S.*\n", " ", entry, count=0
            )
        )
        text = re.sub(r"\s*<[^>]*>|^\W+", "", text)
        if not 2 <= len(text) <= 4 * MAX_CHARS:
            continue
        for part in split_long(text):
            if lang_q == lang_d and is_prose(lang_d, part):
                yield Text(lang_d, part)
        yield Pair(lang_q, lang_d, head, next(split_long(text))[:600])


def read_wordnet(data: bytes) -> Iterator[Item]:
    """Glosses and examples of a WordNet data file."""
    for line in data.decode("ascii", "replace").splitlines():
        fields, _, gloss = line.partition(" | ")
        parts = fields.split()
        if line.startswith("  ") or len(parts) < 6:
            continue
        words = [parts[4 + 2 * i].replace("_", " ") for i in range(int(parts[3], 16))]
        definition = gloss.split('; "')[0].strip()
        yield Pair("en", "en", ", ".join(words[:3]), definition)
        if is_prose("en", definition):
            yield Text("en", definition)
        for example in re.findall(r'"([^"]{20,})"', gloss):
            yield Text("en", example)


def read_sword(books: dict[str, bytes]) -> list[str]:
    """All verses of a compressed SWORD module, in its own order ('' where there is none)."""
    verses = []
    for part in ("ot", "nt"):
        blocks, places, packed = (books[f"{part}.bz{kind}"] for kind in "svz")
        opened: dict[int, bytes] = {}
        for i in range(len(places) // 10):
            block, start, size = struct.unpack_from("<IIH", places, 10 * i)
            if block not in opened and 12 * block < len(blocks):
                at, length, _ = struct.unpack_from("<III", blocks, 12 * block)
                opened[block] = zlib.decompress(packed[at : at + length]) if length else b""
            text = opened.get(block, b"")[start : start + size].decode("utf-8", "replace")
            text = re.sub(r"(?s)<(note|title)\b.*?</\1>|<[^<>]*>", "", text)
            verses.append(re.sub(r"\s+([,.;:!?])", r"\1", plain(text)))
    return verses


def read_fortunes(lang: str, data: bytes) -> Iterator[Item]:
    """Sayings of a fortune file."""
    for saying in data.decode("utf-8", "replace").split("\n%"):
        for text in split_long(plain(saying)):
            if is_prose(lang, text):
                yield Text(lang, text)


def read_factbook(entry: dict, country: str) -> Iterator[Item]:
    """Sections of a country's entry; the queries are made of country and section in two forms."""
    for section, fields in entry.items():
        for field, value in fields.items() if isinstance(fields, dict) else ():
            parts = (
                [
                    plain(v["text"])
                    for v in [value, *value.values()]
                    if isinstance(v, dict) and "text" in v
                ]
                if isinstance(value, dict)
                else []
            )
            for text in parts[:2]:
                for piece in split_long(text):
                    if is_prose("en", piece):
                        yield Text("en", piece)
                        question = (
                            f"What is known about {country}: {field.lower()}?"
                            if len(field) % 2
                            else f"{country} {section.lower()}, {field.lower()}"
                        )
                        yield Pair("en", "en", question, f"{country}. {field}: {piece}"[:MAX_CHARS])


def read_glosses(lang: str, data: bytes) -> Iterator[Item]:
    """Lines of headword, tabulator, gloss."""
    for line in gzip.decompress(data).decode().splitlines():
        head, _, gloss = line.partition("\t")
        gloss = plain(gloss)
        if is_prose(lang, gloss):
            yield Text(lang, gloss)
            yield Pair(lang, lang, head, gloss)


def read_quiz(lang: str, data: bytes) -> Iterator[Item]:
    """Questions with lettered options: (question, the right answer)."""
    found = re.search(r"GK_QUESTIONS\s*=\s*(\[.*\])", data.decode(), re.S)
    for item in ast.literal_eval(found[1]) if found else ():
        answer = item.get("options", {}).get(item.get("answer"), item.get("answer"))
        yield Text(lang, plain(item["question"]))
        if isinstance(answer, str) and len(answer) > 1:
            yield Pair(lang, lang, plain(item["question"]), plain(answer))


_TASHKEEL = re.compile(r"[\u064b-\u0652\u0670\u0640]")


def read_hadith(data: bytes) -> Iterator[Item]:
    """Arabic text of a collection of traditions, without vowel signs; chapter title as query."""
    book = json.loads(gzip.decompress(data))
    titles = {chapter["id"]: _TASHKEEL.sub("", chapter["arabic"]) for chapter in book["chapters"]}
    for item in book["hadiths"]:
        for text in split_long(plain(_TASHKEEL.sub("", item["arabic"]))):
            if is_prose("ar", text):
                yield Text("ar", text)
                if item.get("chapterId") in titles:
                    yield Pair("ar", "ar", titles[item["chapterId"]], text)
