"""What the steps share: the student's shape, flat arrays of token ids, frequencies of pieces."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import numpy as np
import torch
from samples import read_words
from tokenizers import Tokenizer
from vocabulary import CORE, SPACE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# Hidden states are MEANING values, then two pairs (x, -x): ballast and lexical weight. The pairs
# keep the mean of a state at zero, so the layer norm takes nothing away.
HIDDEN, MEANING = 256, 252
# The last layer norm makes ballast and lexical weight so small that the mean of the states, the
# dense vector, hardly feels them; the two heads undo it.
FAINT = 0.05

OTHERS = ("fr", "ja", "ko", "pt", "it", "pl", "tr", "vi", "id", "el", "uk", "nl")


class Rows:
    """Rows of different length in one flat array.

    Args:
        flat: All rows, one after the other.
        offsets: Where they begin, and the end of the last.
    """

    def __init__(self, flat: np.ndarray, offsets: np.ndarray) -> None:
        self.flat, self.offsets = flat, offsets

    @classmethod
    def encode(cls, tokenizer: Tokenizer, texts: Sequence[str], limit: int) -> Rows:
        """Tokenise texts and cut them to `limit` tokens, the last special token kept."""
        rows: list[list[int]] = []
        for start in range(0, len(texts), 5000):
            for encoding in tokenizer.encode_batch(list(texts[start : start + 5000])):
                ids = encoding.ids
                rows.append([*ids[: limit - 1], 2] if len(ids) > limit else ids)
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        return cls(np.concatenate([np.array(row, np.int32) for row in rows]), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """Some of the rows."""
        return [self.flat[self.offsets[i] : self.offsets[i + 1]] for i in numbers]


def read_records(path: Path) -> Iterator[dict[str, str]]:
    """Records of a compressed JSON lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def read_vocabulary(folder: Path) -> tuple[Tokenizer, np.ndarray]:
    """The cut tokenizer, and the teacher's id of each of its pieces."""
    mapping = np.load(folder / "old_to_new.npy")
    return Tokenizer.from_file(str(folder / "tokenizer.json")), np.flatnonzero(mapping >= 0)


def general_frequency(tokenizer: Tokenizer, wordfreq: Path) -> np.ndarray:
    """Share of each piece among the tokens of a language in wordfreq, where it is largest."""
    size = tokenizer.get_vocab_size()
    best = np.zeros(size)
    for lang, words in read_words(wordfreq, CORE + OTHERS, 60_000).items():
        count = np.zeros(size)
        encodings = tokenizer.encode_batch([word for word, _ in words], add_special_tokens=False)
        for (_, frequency), encoding in zip(words, encodings, strict=True):
            ids = encoding.ids
            if lang in ("zh", "ja") and encoding.tokens[0] == SPACE:
                ids = ids[1:]
            np.add.at(count, ids, frequency)
        best = np.maximum(best, count / sum(frequency for _, frequency in words))
    return best


def text_frequency(
    tokenizer: Tokenizer, texts: Path, most: int = 60_000, sample: int = 12_000
) -> np.ndarray:
    """Share of each piece among the tokens of a language in the texts, where it is largest."""
    groups: dict[str, list[str]] = {lang: [] for lang in CORE}
    for record in read_records(texts):
        group = groups.get(record["lang"])
        if group is not None and len(group) < most:
            group.append(record["text"])
    best = np.zeros(tokenizer.get_vocab_size())
    draw = np.random.default_rng(0)
    for group in groups.values():
        chosen = draw.permutation(len(group))[:sample]
        count = np.zeros_like(best)
        for encoding in tokenizer.encode_batch(
            [group[i] for i in chosen], add_special_tokens=False
        ):
            np.add.at(count, encoding.ids, 1.0)
        best = np.maximum(best, count / count.sum())
    return best


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; zeros stay."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def zero_sum_basis(seed: int = 0) -> np.ndarray:
    """An orthonormal basis of the vectors whose values sum to 0. Shape: (MEANING - 1, MEANING)."""
    square = np.random.default_rng(seed).standard_normal((MEANING, MEANING))
    square[:, 0] = 1
    return np.linalg.qr(square)[0][:, 1:].T.astype(np.float32)


def whitening(rows: torch.Tensor) -> torch.Tensor:
    """The matrix after which rows have the same spread in all directions they have any in."""
    values, vectors = torch.linalg.eigh((rows.T @ rows / len(rows)).double())
    roots = torch.where(values > 1e-8, (values.clamp(min=0) + 1e-5) ** -0.5, 0.0)
    return ((vectors * roots) @ vectors.T).float()
