"""Filtering, counting and writing what the readers find."""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from typing import TYPE_CHECKING

from cleaning import LANGUAGES, MAX_CHARS, EvaluationGuard, Pair, Text, fingerprint, is_language

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from messages import Item
    from sources import Source


class Writer:
    """Filters what the readers find, writes it and counts it."""

    def __init__(self, work: Path, guard: EvaluationGuard) -> None:
        self.guard = guard
        self.seen: set[int] = set()
        self.queries: Counter[int] = Counter()
        self.counts: dict[str, Counter[str]] = {}
        self.files = {
            (kind, doubtful): gzip.open(  # noqa: SIM115
                work / f"{kind}_{'doubtful' if doubtful else 'all'}.jsonl.gz",
                "wt",
                encoding="utf-8",
                compresslevel=5,
            )
            for kind in ("texts", "pairs")
            for doubtful in (False, True)
        }

    def write(self, source: Source, items: Iterable[Item]) -> None:
        """Write the good and new ones of `items`, up to the limits of `source`."""
        count = self.counts.setdefault(source.name, Counter())
        for item in items:
            if isinstance(item, Text):
                key, limit = f"texts {item.lang}", source.texts_per_language
                record = {"lang": item.lang, "source": source.name, "text": item.text}
                good = item.lang in LANGUAGES and 8 <= len(item.text) <= MAX_CHARS
                mark = fingerprint(item.lang, item.text)
                parts: tuple[str, ...] = (item.text,)
            else:
                key, limit = f"pairs {item.lang_q}-{item.lang_d}", source.pairs_per_language
                if item.lang_q != item.lang_d and "en" not in (item.lang_q, item.lang_d):
                    limit //= 5
                record = {**item._asdict(), "source": source.name}
                good = (
                    1 < len(item.query) <= MAX_CHARS
                    and 1 < len(item.positive) <= MAX_CHARS
                    and item.query != item.positive
                    and is_language(item.lang_d, item.positive)
                    and is_language(item.lang_q, item.query)
                )  # fmt: skip
                mark = fingerprint(item.query, item.positive)
                query_mark = fingerprint(item.lang_q, item.lang_d, item.query)
                good = good and self.queries[query_mark] < 4
                parts = (item.query, item.positive)
            if not good or mark in self.seen or count[key] >= limit:
                continue
            if any(self.guard.shares(part) for part in parts):
                self.guard.refused[source.name] += 1
                continue
            self.seen.add(mark)
            if isinstance(item, Pair):
                self.queries[query_mark] += 1
            count[key] += 1
            json.dump(record, self.files[key[:5], bool(source.doubtful)], ensure_ascii=False)
            self.files[key[:5], bool(source.doubtful)].write("\n")

    def close(self) -> None:
        """Finish the files."""
        for file in self.files.values():
            file.close()


def totals(counts: Iterable[Counter[str]], kind: str) -> Counter[str]:
    """Counts of texts or pairs by language (a pair counts for the language of its document)."""
    total: Counter[str] = Counter()
    for count in counts:
        for key, number in count.items():
            if key.startswith(kind):
                total[key.split()[1].split("-")[-1]] += number
    return total


def write_table(
    path: Path,
    writer: Writer,
    sources: list[Source],
    packages: dict[str, list[str]],
    licences: dict[str, Counter[str]],
) -> None:
    """Write SOURCES.md: packages with versions, licences and counts."""
    out = io.StringIO()
    out.write(
        "# Where the training text comes from\n\nWritten by `collect.py`. Licences are those of\n"
        "the text used; the second line of a cell has what the "
    )
    out.write(
        "packages' own `copyright` files name.\n"
        "A source marked **in doubt** goes to the `_doubtful` files.\n\n"
    )
    out.write(
        "| source | packages | licence | texts | pairs | texts by language |\n"
        "|---|---|---|---|---|---|\n"
    )
    for source in sources:
        count = writer.counts[source.name]
        texts, pairs = totals([count], "texts"), totals([count], "pairs")
        named = ", ".join(name for name, _ in licences.get(source.name, Counter()).most_common(6))
        licence = source.licence + (f"<br>(copyright files: {named})" if named else "")
        licence += f"<br>**in doubt**: {source.doubtful}" if source.doubtful else ""
        listed = " ".join(f"{lang} {number}" for lang, number in texts.most_common())
        out.write(
            f"| {source.name} | {', '.join(packages[source.name])} | {licence} "
            f"| {texts.total()} | {pairs.total()} | {listed} |\n"
        )
    for kind in ("texts", "pairs"):
        sure = totals((writer.counts[s.name] for s in sources if not s.doubtful), kind)
        unsure = totals((writer.counts[s.name] for s in sources if s.doubtful), kind)
        out.write(
            f"\n{kind.capitalize()} by language{' of the document' if kind == 'pairs' else ''}, "
            f"{sure.total()} in all, and {unsure.total()} in doubt:\n\n"
        )
        out.write(
            "| language | "
            + " | ".join(LANGUAGES)
            + " |\n|---" * 1
            + "|---" * len(LANGUAGES)
            + "|\n"
        )
        out.write("| certain | " + " | ".join(str(sure[lang]) for lang in LANGUAGES) + " |\n")
        out.write("| in doubt | " + " | ".join(str(unsure[lang]) for lang in LANGUAGES) + " |\n")
    out.write(f"\nRefused because they share text with XQuAD: {dict(writer.guard.refused)}.\n")
    path.write_text(out.getvalue(), "utf-8")
