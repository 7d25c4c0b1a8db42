"""Choose m3-small's pieces out of bge-m3's 250,002, by counted text.

Pieces and scores stay as they are; most are left out, and a word whose piece is left out falls
into shorter ones. A piece's worth is how often it occurs times how many tokens more its text would
take without it. It is counted in wordfreq's word lists (Wikipedia, news, books, subtitles; data
CC BY-SA 4.0) and in the collected prose, which has what word lists lack: punctuation, names of
programs, Thai. All single characters, short numbers and marks stay, so a text in any
script that bge-m3 reads is still read, if in more tokens.

    python pieces.py --tokenizer TOKENIZER_JSON --wordfreq WHEEL --texts WORK --out VOCABULARY
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import random
import re
import zipfile
from pathlib import Path
from typing import Any

os.environ.setdefault("RAYON_NUM_THREADS", "1")

import msgpack
import numpy as np
from tokenizers import Tokenizer

log = logging.getLogger("pieces")

SPACE = "▁"
# How much a language's tokens count: the demo's seven, English most; then 22 others, of which
# Thai has no word list.
SHARES = {"en": 3.0, **dict.fromkeys(("de", "es", "zh", "ru", "hi", "ar"), 1.0)}
OTHERS = "fr it pt nl pl uk tr vi id ja ko th el cs sv ro hu he fa bn fi bg".split()  # noqa: SIM905
SHARES |= dict.fromkeys(OTHERS, 0.08) | {"th": 0.15}
WORDS = {**dict.fromkeys(SHARES, 10_000), **dict.fromkeys(SHARES.keys() - set(OTHERS), 100_000)}
WORDS["en"] = 200_000
# Where words are not set apart, pieces go across them: texts say more than lists do.
UNSPACED = ("zh", "ja", "th")
# Numbers and marks, which word lists lack.
UNLISTED = re.compile(rf"{SPACE}?([0-9]{{1,4}}|[^\w{SPACE}]{{1,3}})")


def read_words(wheel: Path) -> dict[str, list[tuple[str, float]]]:
    """Words of each language that wordfreq has, with their frequencies, and capitalised ones."""
    lists = {}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for lang, most in WORDS.items():
            files = [f"wordfreq/data/{size}_{lang}.msgpack.gz" for size in ("large", "small")]
            found = [name for name in files if name in names]
            if not found:
                continue
            buckets = msgpack.unpackb(gzip.decompress(archive.read(found[0])), raw=False)[1:]
            words: list[tuple[str, float]] = []
            for number, bucket in enumerate(buckets):
                # A bucket holds words of one frequency, in hundredths of a power of ten.
                frequency = 10 ** (-number / 100)
                words += [(word, frequency) for word in bucket]
                if lang == "de":
                    # The lists write ss for ß.
                    sharp = [word.replace("ss", "ß") for word in bucket if "ss" in word]
                    words += [(word, frequency / 2) for word in sharp]
                if len(words) > most:
                    break
            # The lists are in lower case. Rare words are names more often than frequent ones.
            upper = [
                (word.capitalize(), f * (0.5 if lang == "de" or f < 1e-5 else 0.15))
                for word, f in words
                if word.capitalize() != word
            ]
            lists[lang] = words + upper
    return lists


def read_texts(work: Path, most: int) -> dict[str, list[str]]:
    """Some collected texts of each language, drawn at random."""
    kept: dict[str, list[str]] = {}
    seen: dict[str, int] = {}
    chance = random.Random(0)
    with gzip.open(work / "texts.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            lang = record["lang"]
            if lang not in SHARES:
                continue
            seen[lang] = seen.get(lang, 0) + 1
            some = kept.setdefault(lang, [])
            limit = most * 4 if lang in UNSPACED else most
            if len(some) < limit:
                some.append(record["text"])
            elif (place := chance.randrange(seen[lang])) < limit:
                some[place] = record["text"]
    return kept


class Counter:
    """Counts how often each piece of the original occurs.

    Args:
        original: The tokenizer's JSON.
    """

    def __init__(self, original: dict[str, Any]) -> None:
        self.tokenizer = Tokenizer.from_str(json.dumps(original))
        self.ids = {piece: i for i, (piece, _) in enumerate(original["model"]["vocab"])}

    def count(self, lang: str, lines: list[str], weights: list[float]) -> np.ndarray:
        """Share of each piece among the tokens of some lines."""
        size = len(self.ids)
        count = np.zeros(size)
        others, weights_of_others = [], []
        for line, weight in zip(lines, weights, strict=True):
            # Most words are a piece, and nothing is likelier than a piece itself.
            whole = self.ids.get(line if lang in UNSPACED else SPACE + line)
            if whole is None:
                others.append(line)
                weights_of_others.append(weight)
            else:
                count[whole] += weight
        for start in range(0, len(others), 20_000):
            encoded = self.tokenizer.encode_batch(
                others[start : start + 20_000], add_special_tokens=False
            )
            rows = [e.ids for e in encoded]
            if lang in UNSPACED:
                # In these scripts words stand alone in a list, and hardly ever in text.
                rows = [row[1:] if row[:1] == [self.ids[SPACE]] else row for row in rows]
            each = np.repeat(weights_of_others[start : start + 20_000], [len(row) for row in rows])
            count += np.bincount(np.concatenate(rows).astype(np.int64), each, size)
        return count / max(count.sum(), 1e-9)


def parts_of(piece: str, scores: dict[str, float]) -> list[str]:
    """The likeliest pieces that a piece falls into when it is not in the vocabulary itself."""
    best: list[tuple[float, int]] = [(0.0, 0)] + [(-1e9, 0)] * len(piece)
    for end in range(1, len(piece) + 1):
        for start in range(end):
            if (start, end) != (0, len(piece)):
                score = scores.get(piece[start:end], -30.0 if end - start == 1 else None)
                if score is not None and best[start][0] + score > best[end][0]:
                    best[end] = (best[start][0] + score, start)
    parts, end = [], len(piece)
    while end:
        start = best[end][1]
        parts.append(piece[start:end])
        end = start
    return parts


def with_pieces(original: dict[str, Any], keep: list[int]) -> str:
    """The tokenizer's JSON with only some old ids, ascending, as the new ones."""
    vocab = original["model"]["vocab"]
    pieces = [[vocab[i][0], round(vocab[i][1], 4)] for i in keep]
    small = original | {"model": {**original["model"], "vocab": pieces}}
    small["added_tokens"] = [
        {**token, "id": len(pieces) - 1 if token["content"] == "<mask>" else token["id"]}
        for token in original["added_tokens"]
    ]
    return json.dumps(small, ensure_ascii=False, separators=(",", ":"))


def choose(
    original: dict[str, Any],
    words: dict[str, list[tuple[str, float]]],
    texts: dict[str, list[str]],
    size: int,
) -> tuple[list[int], np.ndarray]:
    """Ascending old ids of the pieces that stay, and how often they occur in each language."""
    vocab = original["model"]["vocab"]
    always = {0, 1, 2, 3, len(vocab) - 1} | {
        i
        for i, (piece, _) in enumerate(vocab)
        if len(piece.removeprefix(SPACE)) <= 1 or UNLISTED.fullmatch(piece)
    }
    log.info("%d pieces stay whatever is counted", len(always))
    counter = Counter(original)
    languages = list(SHARES)
    counts = np.zeros((len(languages), len(vocab)))
    for row, lang in enumerate(languages):
        listed, own = words.get(lang, []), texts.get(lang, [])
        weight = 0.0 if not listed else 1.0 if not own else 0.5 if lang in UNSPACED else 0.75
        counts[row] = weight * counter.count(lang, [w for w, _ in listed], [f for _, f in listed])
        counts[row] += (1 - weight) * counter.count(lang, own, [1.0] * len(own))
        log.info("%s: %d pieces occur", lang, np.count_nonzero(counts[row]))
    ids = counter.ids
    shares = np.array(list(SHARES.values()))
    keep = sorted(always | set(np.flatnonzero(counts.any(0)).tolist()))
    weights = counts
    for target in (size * 3 // 2, size):
        scores = dict(vocab[i] for i in keep)
        worth = shares @ weights
        gains = {
            i: worth[i] * max(len(parts_of(vocab[i][0], scores)) - 1, 0.5)
            for i in keep
            if i not in always
        }
        best = sorted(gains, key=lambda i: (-gains[i], i))
        keep = sorted(always | set(best[: target - len(always)]))
        log.info("%d pieces kept", len(keep))
        # What is left out occurs as its parts from now on: the longest first, whose parts may be
        # left out too.
        weights, kept = counts.copy(), set(keep)
        left_out = [i for i in np.flatnonzero(counts.any(0)).tolist() if i not in kept]
        for i in sorted(left_out, key=lambda i: -len(vocab[i][0])):
            for part in parts_of(vocab[i][0], scores):
                weights[:, ids.get(part, 3)] += weights[:, i]
    return keep, weights[:, keep]


def main() -> None:
    """Choose and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", type=Path, required=True, help="bge-m3's tokenizer.json")
    parser.add_argument("--wordfreq", type=Path, required=True, help="wheel of wordfreq 3.1.1")
    parser.add_argument("--texts", type=Path, required=True, help="folder of texts.jsonl.gz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=95_000)
    parser.add_argument("--sample", type=int, default=1_500, help="texts of each language")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    original = json.loads(arguments.tokenizer.read_text("utf-8"))
    words = read_words(arguments.wordfreq)
    texts = read_texts(arguments.texts, arguments.sample)
    log.info("words %s", {lang: len(some) for lang, some in words.items()})
    log.info("texts %s", {lang: len(some) for lang, some in texts.items()})
    keep, frequencies = choose(original, words, texts, arguments.size)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "tokenizer.json").write_text(with_pieces(original, keep), "utf-8")
    np.save(arguments.out / "kept.npy", np.array(keep, np.int32))
    # What the lexical head starts from.
    np.save(arguments.out / "frequencies.npy", frequencies[: len(WORDS) - len(OTHERS)])


if __name__ == "__main__":
    main()
