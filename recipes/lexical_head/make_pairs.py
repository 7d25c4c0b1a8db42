"""Make lexical training pairs out of plain texts: words of a passage, with others mixed in.

    python recipes/lexical_head/make_pairs.py --texts material --out pairs --languages en zh de

Reads ``texts.jsonl.gz`` (``lang``, ``source``, ``text``, as recipes/m3_tiny/collect.py writes it)
and writes one file of examples a language, so that ``m3-retrieval train --same-file-batches``
contrasts passages of one language. A query holds some words of a passage and some of other
passages: a head that finds the passage has learnt which words tell passages apart.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import numpy as np

UNSPACED = ("zh", "ja", "th")


def read_groups(path: Path, languages: list[str]) -> dict[str, list[list[str]]]:
    """Texts of each language, source by source, in the file's order."""
    groups: dict[str, dict[str, list[str]]] = {lang: {} for lang in languages}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if record["lang"] in groups:
                groups[record["lang"]].setdefault(record["source"], []).append(record["text"])
    return {lang: list(sources.values()) for lang, sources in groups.items()}


def passage(rng: np.random.Generator, source: list[str], least: int) -> str:
    """Consecutive texts of a source."""
    start = int(rng.integers(len(source)))
    joined = ""
    for text in source[start : start + 40]:
        joined = f"{joined} {text}".strip()
        if len(joined) >= least:
            break
    return joined[: 2 * least]


def words_of(text: str, lang: str, rng: np.random.Generator) -> list[str]:
    """Words; in scripts without spaces runs of one to three characters."""
    if lang not in UNSPACED:
        return text.split()
    kept = text.replace(" ", "")
    cuts, at = [], 0
    while at < len(kept):
        size = int(rng.integers(1, 4))
        cuts.append(kept[at : at + size])
        at += size
    return cuts


def query(
    rng: np.random.Generator, words: list[str], others: list[str], lang: str, noise: int
) -> str:
    """Two to seven words of a stretch of 20, among up to ``noise`` of other passages."""
    start = int(rng.integers(max(len(words) - 20, 1)))
    stretch = words[start : start + 20]
    count = min(len(stretch), int(rng.integers(2, 8)))
    kept = [stretch[i] for i in sorted(rng.choice(len(stretch), count, replace=False))]
    mixed = kept + [
        others[int(i)] for i in rng.integers(0, len(others), int(rng.integers(1, noise + 1)))
    ]
    rng.shuffle(mixed)
    return ("" if lang in UNSPACED else " ").join(mixed)


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=Path, required=True, help="folder with texts.jsonl.gz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--languages", nargs="+", default=["en", "de", "es", "zh", "ru", "hi"])
    parser.add_argument("--count", type=int, default=20_000, help="passages a language")
    parser.add_argument("--queries", type=int, default=1, help="a passage")
    parser.add_argument("--noise", type=int, default=6, help="words of other passages at most")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = read_groups(arguments.texts / "texts.jsonl.gz", arguments.languages)
    for number, (lang, sources) in enumerate(found.items()):
        rng = np.random.default_rng((arguments.seed, number))
        least = 220 if lang in UNSPACED else 500
        # Larger sources come up more often, but not as much more often as they are larger.
        sizes = np.array([sum(map(len, source)) for source in sources], float) ** 0.5
        drawn = rng.choice(len(sources), arguments.count, p=sizes / sizes.sum())
        passages = [passage(rng, sources[int(i)], least) for i in drawn]
        passages = [text for text in dict.fromkeys(passages) if len(text) > least // 3]
        words = [words_of(text, lang, rng) for text in passages]
        others = [word for some in words[:: max(len(words) // 2000, 1)] for word in some]
        with (arguments.out / f"{lang}.jsonl").open("w", encoding="utf-8") as lines:
            for text, own in zip(passages, words, strict=True):
                for _ in range(arguments.queries):
                    asked = query(rng, own, others, lang, arguments.noise)
                    row = {"query": asked, "pos": [text], "neg": []}
                    lines.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
