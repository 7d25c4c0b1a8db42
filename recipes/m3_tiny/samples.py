"""The texts and word lists that the vocabulary is chosen by and measured on."""

from __future__ import annotations

import gzip
import json
import random
import zipfile
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def read_sample(work: Path, per_language: int, seed: int = 0) -> dict[str, list[str]]:
    """A sample of the collected texts, and of the documents of the pairs, by language."""
    chance = random.Random(seed)
    sample: dict[str, list[str]] = {}
    seen: Counter[str] = Counter()
    for name, lang_key, text_keys in (
        ("texts", "lang", ("text",)),
        ("pairs", "lang_d", ("positive",)),
    ):
        with gzip.open(work / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                lang = record[lang_key]
                seen[lang] += 1
                kept = sample.setdefault(lang, [])
                text = " ".join(record[key] for key in text_keys)
                if len(kept) < per_language:
                    kept.append(text)
                elif (place := chance.randrange(seen[lang])) < per_language:
                    kept[place] = text
    return sample


def read_words(
    wheel: Path, langs: Iterable[str], most: int = 30_000
) -> dict[str, list[tuple[str, float]]]:
    """The most frequent words of each language with their frequencies, from wordfreq's lists."""
    import msgpack

    lists: dict[str, list[tuple[str, float]]] = {}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for lang in langs:
            found = [f"wordfreq/data/{size}_{lang}.msgpack.gz" for size in ("large", "small")]
            found = [name for name in found if name in names]
            if not found:
                continue
            buckets = msgpack.unpackb(gzip.decompress(archive.read(found[0])), raw=False)[1:]
            words = (
                (word, 10 ** (-number / 100))
                for number, bucket in enumerate(buckets)
                for word in bucket
            )
            lower = [pair for pair, _ in zip(words, range(most), strict=False)]
            # The lists are in lower case; names, German nouns and first words are not.
            share = 0.35 if lang == "de" else 0.12
            upper = [(w.capitalize(), f * share) for w, f in lower if w.capitalize() != w]
            lists[lang] = lower + upper
    return lists


def read_xquad(folder: Path) -> dict[str, list[str]]:
    """Paragraphs and questions of XQuAD by language; for measuring only."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("xquad.*.json")):
        texts = found.setdefault(path.name.split(".")[1], [])
        for article in json.loads(path.read_text("utf-8"))["data"]:
            for paragraph in article["paragraphs"]:
                texts += [
                    paragraph["context"],
                    *(question["question"] for question in paragraph["qas"]),
                ]
    return found
