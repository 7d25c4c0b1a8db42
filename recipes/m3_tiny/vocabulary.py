"""Pick a small Unigram vocabulary out of bge-m3's, for m3-tiny.

The pieces and their scores stay as they are in bge-m3's tokenizer, only most of the 250,002 are
left out, so a teacher's embedding rows can be used for the pieces that stay. Which ones stay is
decided by how many tokens each saves on the training text, with the languages balanced, in
several rounds: leaving a piece out makes its parts more frequent. The training text is mostly
about software, so half of the weight comes from wordfreq's general word frequencies (Wikipedia,
news, subtitles; a PyPI package, data CC BY-SA 4.0, needs msgpack to read).

    python vocabulary.py --tokenizer bge-m3/tokenizer.json --work material --size 36000 \
        --wordfreq material/wheels/wordfreq-3.1.1-py3-none-any.whl --out vocab36k --measure xquad
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("RAYON_NUM_THREADS", "1")

import numpy as np
from samples import read_sample, read_words, read_xquad
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger("vocabulary")

CORE = ("en", "de", "es", "zh", "ru", "hi", "ar")
SPACE = "▁"


def make_tokenizer(
    original: dict[str, Any], keep: Iterable[int], digits: int = 5
) -> tuple[str, Tokenizer]:
    """The tokenizer with only the old ids `keep` (ascending), as JSON and ready to use."""
    vocab = original["model"]["vocab"]
    pieces = [[vocab[i][0], round(vocab[i][1], digits)] for i in keep]
    small = dict(original)
    small["model"] = {**original["model"], "vocab": pieces}
    small["added_tokens"] = [
        {**token, "id": len(pieces) - 1 if token["content"] == "<mask>" else token["id"]}
        for token in original["added_tokens"]
    ]
    text = json.dumps(small, ensure_ascii=False, separators=(",", ":"))
    return text, Tokenizer.from_str(text)


def piece_weights(
    tokenizer: Tokenizer,
    sample: dict[str, list[str]],
    words: dict[str, list[tuple[str, float]]],
    temperature: float,
    core: float,
) -> np.ndarray:
    """Balanced frequency of each id.

    A language of share p counts as p ** temperature, core languages `core` fold.
    """
    size = tokenizer.get_vocab_size()
    sums: dict[str, float] = {}
    counts: dict[str, np.ndarray] = {}
    for lang, texts in sample.items():
        count = np.zeros(size)
        for start in range(0, len(texts), 2000):
            for encoding in tokenizer.encode_batch(
                texts[start : start + 2000], add_special_tokens=False
            ):
                np.add.at(count, encoding.ids, 1.0)
        sums[lang] = count.sum()
        counts[lang] = count / count.sum()
        if lang in words:
            general = np.zeros(size)
            space = tokenizer.token_to_id(SPACE)
            encodings = tokenizer.encode_batch(
                [word for word, _ in words[lang]], add_special_tokens=False
            )
            for (_, frequency), encoding in zip(words[lang], encodings, strict=True):
                ids = (
                    encoding.ids[1:]
                    if lang in ("zh", "ja") and encoding.ids[0] == space
                    else encoding.ids
                )
                np.add.at(general, ids, frequency)
            counts[lang] = (counts[lang] + general / general.sum()) / 2
    weights = np.zeros(size)
    for lang, count in counts.items():
        weights += (
            count
            * (sums[lang] / sum(sums.values())) ** temperature
            * (core if lang in CORE else 1.0)
        )
    weights /= weights.sum()
    return weights


def needed_characters(tokenizer: Tokenizer, sample: dict[str, list[str]], least: int) -> set[str]:
    """Characters, normalized, that occur `least` times in one language."""
    needed: set[str] = set()
    for texts in sample.values():
        count: Counter[str] = Counter()
        for text in texts:
            count.update(tokenizer.normalizer.normalize_str(text))
        needed.update(char for char, number in count.items() if number >= least)
    return needed


def tokens_without(piece: str, scores: dict[str, float]) -> int:
    """How many pieces `piece` falls into when it is not in the vocabulary itself."""
    best: list[tuple[float, int]] = [(0.0, 0)] + [(-1e9, 0)] * len(piece)
    for end in range(1, len(piece) + 1):
        for start in range(end):
            if (start, end) != (0, len(piece)):
                score = scores.get(piece[start:end], -30.0 if end - start == 1 else None)
                if score is not None and best[start][0] + score > best[end][0]:
                    best[end] = (best[start][0] + score, best[start][1] + 1)
    return best[-1][1]


def common_characters(vocab: list[list[Any]], han: int, hangul: int) -> set[str]:
    """The likeliest Chinese and Korean characters of the original, which is in that order."""
    ranges = (("\u4e00", "\u9fff", han), ("\uac00", "\ud7af", hangul))
    return {
        piece
        for first, last, most in ranges
        for piece in [p for p, _ in vocab if len(p) == 1 and first <= p <= last][:most]
    }


def choose(
    original: dict[str, Any],
    sample: dict[str, list[str]],
    words: dict[str, list[tuple[str, float]]],
    size: int,
    temperature: float,
    core: float,
    least: int,
    han: int,
) -> list[int]:
    """Ascending old ids of the `size` pieces to keep."""
    vocab = original["model"]["vocab"]
    last = len(vocab) - 1
    tokenizer = Tokenizer.from_str(json.dumps(original))
    characters = needed_characters(tokenizer, sample, least) | common_characters(vocab, han, 1300)
    always = {0, 1, 2, 3, last} | {
        i for i, (piece, _) in enumerate(vocab) if piece in characters or piece == SPACE
    }
    if len(always) > size:
        raise ValueError(f"{len(always)} characters do not fit into {size} pieces; raise --least")
    keep = list(range(len(vocab)))
    for target in (size * 4, size * 2, size * 3 // 2, size * 5 // 4, size):
        weights = piece_weights(tokenizer, sample, words, temperature, core)
        scores = {
            vocab[i][0]: vocab[i][1]
            for i, weight in zip(keep, weights, strict=True)
            if weight > 0 or i in always
        }
        gains = [
            (weight * (tokens_without(vocab[i][0], scores) - 1) if weight > 0 else 0.0, -i)
            for i, weight in zip(keep, weights, strict=True)
            if i not in always
        ]
        gains.sort(reverse=True)
        keep = sorted(
            always | {-i for _, i in gains[: max(0, min(target, len(keep)) - len(always))]}
        )
        _, tokenizer = make_tokenizer(original, keep)
        log.info("%d pieces kept, %d of them single characters", len(keep), len(always) - 5)
    return keep


def measure(
    name: str, full: Tokenizer, small: Tokenizer, sample: dict[str, list[str]]
) -> dict[str, dict[str, float]]:
    """Tokens in each text and share of unknown ones, by language, with both tokenizers."""
    table = {}
    for lang, texts in sorted(sample.items()):
        sums = []
        for tokenizer in (full, small):
            ids = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
            sums.append((sum(map(len, ids)), sum(row.count(3) for row in ids)))
        (a, unknown_a), (b, unknown_b) = sums
        table[lang] = {
            "tokens_full": round(a / len(texts), 2),
            "tokens": round(b / len(texts), 2),
            "growth": round(b / a, 4),
            "unk_full": round(unknown_a / a, 6),
            "unk": round(unknown_b / b, 6),
        }
        log.info("%s %s %s", name, lang, table[lang])
    return table


def main() -> None:
    """Choose, write and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", type=Path, required=True, help="bge-m3's tokenizer.json")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder with texts.jsonl.gz and pairs.jsonl.gz"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for tokenizer.json, old_to_new.npy, report.json",
    )
    parser.add_argument("--size", type=int, default=32_000)
    parser.add_argument("--sample", type=int, default=8_000, help="texts of each language to count")
    parser.add_argument(
        "--temperature", type=float, default=0.5, help="0: all languages alike, 1: as they occur"
    )
    parser.add_argument(
        "--core", type=float, default=3.0, help="how much more the seven core languages weigh"
    )
    parser.add_argument(
        "--least", type=int, default=4, help="keep a character that occurs this often in a language"
    )
    parser.add_argument(
        "--han", type=int, default=4500, help="how many of the likeliest Chinese characters to keep"
    )
    parser.add_argument(
        "--wordfreq", type=Path, help="wheel of wordfreq, for general word frequencies"
    )
    parser.add_argument("--measure", type=Path, help="folder with xquad.*.json")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    original = json.loads(arguments.tokenizer.read_text("utf-8"))
    sample = read_sample(arguments.work, arguments.sample)
    words = read_words(arguments.wordfreq, sample) if arguments.wordfreq else {}
    keep = choose(
        original,
        sample,
        words,
        arguments.size,
        arguments.temperature,
        arguments.core,
        arguments.least,
        arguments.han,
    )
    text, small = make_tokenizer(original, keep)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "tokenizer.json").write_text(text, "utf-8")
    old_to_new = np.full(len(original["model"]["vocab"]), -1, dtype=np.int32)
    old_to_new[keep] = np.arange(len(keep), dtype=np.int32)
    np.save(arguments.out / "old_to_new.npy", old_to_new)
    full = Tokenizer.from_file(str(arguments.tokenizer))
    report: dict[str, Any] = {
        "size": len(keep),
        "bytes": len(text.encode()),
        "zlib_bytes": len(zlib.compress(text.encode(), 9)),
    }
    log.info("%s", report)
    report["training_text"] = measure(
        "training", full, small, {lang: texts[:1500] for lang, texts in sample.items()}
    )
    if arguments.measure:
        report["xquad"] = measure("xquad", full, small, read_xquad(arguments.measure))
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
