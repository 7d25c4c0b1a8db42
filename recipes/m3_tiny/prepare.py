"""Tokenise the training material once: pairs, passages, and the texts the teacher encoded.

    python prepare.py --vocabulary vocab36k --work material

Writes prepared.npz.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
from common import Rows, read_records, read_vocabulary
from vocabulary import CORE


def read_pairs(path: Path, draw: random.Random, most: int) -> list[tuple[str, str, str, str]]:
    """Pairs with a core language: all in one language, fewer across, few with another language."""
    kept = []
    for record in read_records(path):
        query, positive = record["query"], record["positive"]
        a, b = record["lang_q"], record["lang_d"]
        if (a not in CORE and b not in CORE) or min(len(query), len(positive)) < 6:
            continue
        if query.strip().lower() == positive.strip().lower():
            continue
        chance = 1.0 if a == b else 0.75 if a in CORE and b in CORE else 0.12
        if draw.random() <= chance:
            kept.append((a, b, query[:400], positive[:700]))
    draw.shuffle(kept)
    return kept[:most]


def read_passages(path: Path, draw: random.Random, most: int) -> list[tuple[str, str]]:
    """Language and text of passages: consecutive texts of one source, of 120 to 700 characters."""
    groups: dict[tuple[str, str], list[str]] = {}
    for record in read_records(path):
        if record["lang"] in CORE and record["source"] != "freedict":
            groups.setdefault((record["lang"], record["source"]), []).append(record["text"])
    passages: list[tuple[str, str]] = []
    for (lang, _), texts in groups.items():
        found, parts, size = [], [], 0
        wanted = 0.0
        for text in texts:
            if not parts:
                wanted = draw.choice((120, 250, 450, 700)) / (3.2 if lang == "zh" else 1)
            parts.append(text)
            size += len(text)
            if size >= wanted:
                if size < 1400:
                    found.append((lang, " ".join(parts)))
                parts, size = [], 0
        draw.shuffle(found)
        passages += found[:1500]
    draw.shuffle(passages)
    kept = []
    for lang in CORE:
        own = [passage for passage in passages if passage[0] == lang]
        kept += own[: int(most * 1.4) if lang == "en" else most]
    return kept


def main() -> None:
    """Write prepared.npz."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=230_000)
    parser.add_argument("--passages", type=int, default=6500, help="of each language")
    arguments = parser.parse_args()
    tokenizer, _ = read_vocabulary(arguments.vocabulary)
    draw = random.Random(1)
    pairs = read_pairs(arguments.work / "pairs.jsonl.gz", draw, arguments.pairs)
    passages = read_passages(arguments.work / "texts.jsonl.gz", draw, arguments.passages)
    taught = json.loads((arguments.work / "teacher_texts.json").read_text(encoding="utf-8"))
    found: dict[str, np.ndarray] = {}
    for name, texts, limit in (
        ("query", [pair[2] for pair in pairs], 48),
        ("document", [pair[3] for pair in pairs], 128),
        ("passage", [text for _, text in passages], 224),
        ("taught", taught, 192),
    ):
        rows = Rows.encode(tokenizer, texts, limit)
        found[name], found[f"{name}_offsets"] = rows.flat, rows.offsets
    found["query_lang"] = np.array([pair[0] for pair in pairs])
    found["document_lang"] = np.array([pair[1] for pair in pairs])
    found["passage_lang"] = np.array([lang for lang, _ in passages])
    pieces = (tokenizer.id_to_token(i) or "" for i in range(tokenizer.get_vocab_size()))
    found["begins_word"] = np.array([piece.startswith("▁") for piece in pieces])
    np.savez(arguments.work / "prepared.npz", **found)


if __name__ == "__main__":
    main()
