"""Filtering, counting and writing what the readers find."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from typing import TYPE_CHECKING

from cleaning import LANGUAGES, MAX_CHARS, EvaluationGuard, Text, fingerprint
from sources import SOURCES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sources import Source


class Writer:
    """Filters what the readers find, writes it and counts it."""

    def __init__(self, work: Path, guard: EvaluationGuard) -> None:
        self.guard = guard
        self.seen: set[int] = set()
        self.counts: dict[str, Counter[str]] = {}
        self.file = gzip.open(  # noqa: SIM115
            work / "texts.jsonl.gz", "wt", encoding="utf-8", compresslevel=5
        )

    def write(self, source: Source, texts: Iterable[Text]) -> None:
        """Write the good and new ones of `texts`, up to the limit of `source`."""
        count = self.counts.setdefault(source.name, Counter())
        for lang, text in texts:
            mark = fingerprint(lang, text)
            good = lang in LANGUAGES and 8 <= len(text) <= MAX_CHARS
            if not good or mark in self.seen or count[lang] >= source.most:
                continue
            if self.guard.shares(text):
                self.guard.refused[source.name] += 1
                continue
            self.seen.add(mark)
            count[lang] += 1
            record = {"lang": lang, "source": source.name, "text": text}
            json.dump(record, self.file, ensure_ascii=False)
            self.file.write("\n")

    def by_language(self) -> Counter[str]:
        """How many texts were written in each language."""
        return sum(self.counts.values(), Counter())

    def close(self) -> None:
        """Finish the file."""
        self.file.close()


def write_table(
    path: Path,
    writer: Writer,
    packages: dict[str, list[str]],
    licences: dict[str, Counter[str]],
) -> None:
    """Write packages with versions, licences and counts."""
    lines = [
        "# Where the texts come from",
        "",
        "Written by `collect.py`. Licences are those of the text used; the second line of a cell",
        "has what the packages' own `copyright` files name.",
        "",
        "| source | packages | licence | texts | by language |",
        "|---|---|---|---|---|",
    ]
    for source in SOURCES:
        count = writer.counts[source.name]
        named = ", ".join(name for name, _ in licences.get(source.name, Counter()).most_common(6))
        licence = source.licence + (f"<br>(copyright files: {named})" if named else "")
        listed = " ".join(f"{lang} {number}" for lang, number in count.most_common())
        lines.append(
            f"| {source.name} | {', '.join(packages[source.name])} | {licence} "
            f"| {count.total()} | {listed} |"
        )
    listed = " ".join(f"{lang} {number}" for lang, number in writer.by_language().most_common())
    lines += ["", f"By language: {listed}.", ""]
    lines += [f"Refused because they share text with XQuAD: {dict(writer.guard.refused)}.", ""]
    path.write_text("\n".join(lines), "utf-8")
