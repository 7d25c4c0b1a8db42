"""Batches of texts for the student and the teacher, made by worker processes from a seed."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers import Tokenizer

from m3_core.training.distillation import align_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CORE = ("en", "de", "es", "zh", "ru", "hi", "ar")
UNSPACED = ("zh", "ja", "th")
# Share of batches and roughly how many tokens their documents have.
LENGTHS = ((24, 0.15), (64, 0.2), (128, 0.3), (200, 0.25), (320, 0.1))
KINDS = (("spans", 0.55), ("mono", 0.3), ("cross", 0.15))


def read_records(path: Path, limit: int | None) -> Iterator[dict]:
    """Records of a JSON lines file, compressed or not."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if limit is not None and number >= limit:
                return
            yield json.loads(line)


@dataclass(frozen=True, slots=True)
class Pair:
    """A query, its document, and their languages."""

    query: str
    document: str
    cross: bool


class Material:
    """Texts by language and source, and pairs by kind and length.

    Args:
        folder: With texts.jsonl.gz and pairs.jsonl.gz.
        limit: Read so many records of each at most.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        groups: dict[tuple[str, str], list[str]] = {}
        for record in read_records(folder / "texts.jsonl.gz", limit):
            groups.setdefault((record["lang"], record["source"]), []).append(record["text"])
        self.langs = [lang for lang, _ in groups]
        self.groups = list(groups.values())
        sizes = np.array([sum(map(len, group)) for group in self.groups], float)
        shares: Counter[str] = Counter()
        for lang, size in zip(self.langs, sizes, strict=True):
            shares[lang] += size
        weights = [
            size / shares[lang] * math.sqrt(shares[lang]) * (2.0 if lang in CORE else 0.5)
            for lang, size in zip(self.langs, sizes, strict=True)
        ]
        self.chances = np.array(weights) / sum(weights)
        # Characters a token: about 4 in alphabets, 1.5 in scripts without spaces.
        self.density = [1.5 if lang in UNSPACED else 4.0 for lang in self.langs]
        pairs: dict[bool, list[Pair]] = {False: [], True: []}
        for r in read_records(folder / "pairs.jsonl.gz", limit):
            if min(len(r["query"]), len(r["positive"])) >= 4 and r["query"] != r["positive"]:
                cross = r["lang_q"] != r["lang_d"]
                pairs[cross].append(Pair(r["query"], r["positive"], cross))
        self.pairs = {k: sorted(v, key=lambda p: len(p.document)) for k, v in pairs.items()}
        if not self.groups:
            raise SystemExit(f"{folder} holds no texts")

    def passage(self, rng: np.random.Generator, tokens: int) -> tuple[str, str]:
        """Consecutive texts of one source and language, joined to about so many tokens."""
        at = int(rng.choice(len(self.groups), p=self.chances))
        group, wanted = self.groups[at], tokens * self.density[at]
        start = int(rng.integers(len(group)))
        parts, size = [], 0
        for text in group[start : start + 64]:
            parts.append(text)
            size += len(text) + 1
            if size >= wanted:
                break
        joined = " ".join(parts)
        return joined[: int(wanted * 1.3)], self.langs[at]

    def passages(self, rng: np.random.Generator, count: int, tokens: int) -> tuple[list, list]:
        """Passages and queries made of their own words."""
        made = [self.passage(rng, tokens) for _ in range(count)]
        return [span_query(rng, text, lang) for text, lang in made], [text for text, _ in made]

    def pairs_of(
        self, rng: np.random.Generator, count: int, *, cross: bool
    ) -> tuple[list[str], list[str]]:
        """Pairs whose documents are about equally long, the longer ones more often."""
        pool = self.pairs[cross]
        window = min(len(pool), max(count * 8, len(pool) // 16))
        start = int((len(pool) - window) * rng.random() ** 0.6)
        chosen = rng.choice(window, size=min(count, window), replace=False) + start
        found = {pool[i].document: pool[i].query for i in chosen}
        return list(found.values()), list(found)


def span_query(rng: np.random.Generator, text: str, lang: str) -> str:
    """Some words, in order, of a stretch of a text."""
    if lang in UNSPACED:
        length = int(rng.integers(6, 20))
        cuts = rng.integers(0, max(len(text) - length, 1), size=int(rng.integers(1, 3)))
        return " ".join(text[at : at + length].strip() for at in sorted(cuts)) or text
    words = text.split()
    window = int(rng.integers(6, 30))
    start = int(rng.integers(max(len(words) - window, 1)))
    stretch = words[start : start + window]
    count = min(len(stretch), int(rng.integers(3, 13)))
    kept = sorted(rng.choice(len(stretch), size=count, replace=False))
    return " ".join(stretch[i] for i in kept).strip(".,;:!?()[]\"'") or text


class BatchDataset(torch.utils.data.Dataset):
    """Batch number i, the same whenever it is asked for.

    Args:
        material: The texts.
        student: tokenizer.json of the student.
        teacher: tokenizer.json of the teacher.
        prompts: The teacher's, for queries and documents.
        seed: Of all batches.
        tokens: Tokens of a batch's documents, about.
        most: Documents a batch at most.
        steps: How many batches there are.
    """

    def __init__(
        self,
        material: Material,
        student: Path,
        teacher: Path,
        prompts: tuple[str, str],
        *,
        seed: int,
        tokens: int,
        most: int,
        steps: int,
    ) -> None:
        self.material, self.paths, self.prompts = material, (student, teacher), prompts
        self.seed, self.tokens, self.most, self.steps = seed, tokens, most, steps
        self._tokenizers: list[Tokenizer] | None = None

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> dict:
        rng = np.random.default_rng((self.seed, index))
        kind = str(rng.choice([k for k, _ in KINDS], p=[p for _, p in KINDS]))
        length = int(rng.choice([n for n, _ in LENGTHS], p=[p for _, p in LENGTHS]))
        if kind == "spans" or len(self.material.pairs[kind == "cross"]) < 2:
            kind, count = "spans", max(min(self.tokens // length, self.most), 2)
            queries, documents = self.material.passages(rng, count, length)
        else:
            count = max(min(self.tokens // 64, self.most), 2)
            queries, documents = self.material.pairs_of(rng, count, cross=kind == "cross")
        sides = {
            "query": self._side(queries, self.prompts[0], 64),
            "document": self._side(documents, self.prompts[1], int(length * 1.5) + 16),
        }
        flat = {f"{side}_{name}": t for side, made in sides.items() for name, t in made.items()}
        return flat | {"lexical": kind != "cross"}

    def _side(self, texts: list[str], prompt: str, limit: int) -> dict[str, torch.Tensor]:
        if self._tokenizers is None:
            # Opened in each worker: a tokenizer that was used must not be forked.
            self._tokenizers = [Tokenizer.from_file(str(path)) for path in self.paths]
        own, wide = self._tokenizers
        students = own.encode_batch(texts)
        teachers = wide.encode_batch([prompt + text for text in texts])
        rows = [_cut(e, limit) for e in students]
        teacher_rows = [_cut(e, limit + 8) for e in teachers]
        ids, mask = _rectangle([r for r, _ in rows], 1)
        teacher_ids, teacher_mask = _rectangle([r for r, _ in teacher_rows], 1)
        first = np.ones(ids.shape, np.int64)
        last = np.zeros(ids.shape, np.int64)
        for i, ((row, spans), (wide_row, wide_spans)) in enumerate(
            zip(rows, teacher_rows, strict=True)
        ):
            inner = spans[1:-1] + len(prompt)
            f, t = align_tokens(inner, wide_spans[1:-1])
            first[i, 1 : len(row) - 1] = f + 1
            last[i, 1 : len(row) - 1] = t + 1
            first[i, len(row) - 1] = last[i, len(row) - 1] = len(wide_row) - 1
            # Beyond the teacher's end there is nothing to learn.
            last[i][last[i] >= len(wide_row)] = 0
        return {
            "ids": torch.from_numpy(ids),
            "mask": torch.from_numpy(mask),
            "teacher_ids": torch.from_numpy(teacher_ids),
            "teacher_mask": torch.from_numpy(teacher_mask),
            "first": torch.from_numpy(first),
            "last": torch.from_numpy(last),
        }


def _cut(encoding: object, limit: int) -> tuple[list[int], np.ndarray]:
    ids, spans = encoding.ids, encoding.offsets
    if len(ids) > limit:
        ids, spans = [*ids[: limit - 1], ids[-1]], [*spans[: limit - 1], spans[-1]]
    return ids, np.array(spans, np.int64).reshape(-1, 2)


def _rectangle(rows: list[list[int]], padding: int) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(row) for row in rows])
    inside = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(inside.shape, padding, np.int64)
    ids[inside] = np.concatenate([np.array(row, np.int64) for row in rows])
    return ids, inside.astype(np.int64)
