"""Draw a balanced selection from what `collect.py` found.

Interface messages outnumber prose by far, and English outnumbers Hindi. For each language this
keeps up to a number of records, shared out among the sources by "water filling": every source
gives the same amount (prose sources several times that), unless it has less.

    python thin.py --work material --texts 50000 --pairs 40000
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import random
from collections import Counter
from pathlib import Path

from cleaning import LANGUAGES

log = logging.getLogger("thin")

PROSE = 6.0
MESSAGES = frozenset(
    [
        "libreoffice-l10n",
        "gnome-messages",
        "kde-messages",
        "other-messages",
        "chromium-messages",
        "mediawiki-messages",
        "freedict",
    ]
)


def shares(available: dict[str, int], target: int) -> dict[str, int]:
    """How many records to take from each group so that about `target` are taken in all."""
    weight = {group: 1.0 if group.split("|")[0] in MESSAGES else PROSE for group in available}
    low, high = 0.0, float(target)
    for _ in range(60):
        level = (low + high) / 2
        taken = sum(min(number, level * weight[group]) for group, number in available.items())
        low, high = (level, high) if taken < target else (low, level)
    return {group: min(number, round(high * weight[group])) for group, number in available.items()}


def group_of(record: dict[str, str]) -> tuple[str, str]:
    """Language and group of a record; pairs in one, with English and of two others count apart."""
    if "text" in record:
        return record["lang"], record["source"]
    query, document = record["lang_q"], record["lang_d"]
    kind = "same" if query == document else "english" if "en" in (query, document) else "cross"
    return document, f"{record['source']}|{kind}"


def thin(source: Path, target: Path, per_language: int, seed: int) -> Counter[str]:
    """Write the selection of `source` to `target`; returns the records of each language."""
    available: dict[str, Counter[str]] = {lang: Counter() for lang in LANGUAGES}
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        for line in lines:
            lang, group = group_of(json.loads(line))
            available[lang][group] += 1
    chance = {
        (lang, group): number / available[lang][group]
        for lang in LANGUAGES
        for group, number in shares(available[lang], per_language).items()
    }
    draw = random.Random(seed)
    kept: Counter[str] = Counter()
    with (
        gzip.open(source, "rt", encoding="utf-8") as lines,
        gzip.open(target, "wt", 6, encoding="utf-8") as out,
    ):
        for line in lines:
            key = group_of(json.loads(line))
            if draw.random() < chance[key]:
                out.write(line)
                kept[key[0]] += 1
    return kept


def main() -> None:
    """Thin texts and pairs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of collect.py's files")
    parser.add_argument("--texts", type=int, default=50_000, help="texts of each language")
    parser.add_argument(
        "--pairs", type=int, default=40_000, help="pairs of each language of the document"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for kind, number in (("texts", arguments.texts), ("pairs", arguments.pairs)):
        source, target = (
            arguments.work / f"{kind}_all.jsonl.gz",
            arguments.work / f"{kind}.jsonl.gz",
        )
        kept = thin(source, target, number, arguments.seed)
        log.info("%s: %d kept, %s", kind, kept.total(), dict(kept.most_common()))


if __name__ == "__main__":
    main()
