"""An encoder for tests that need no model: no torch, no files, the same numbers everywhere."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import numpy as np

from m3_core.encoder import EncodingMethods, TextTokens
from m3_core.errors import ClosedError, MissingRepresentationError
from m3_core.representations import LexicalWeights, MultiVectors, Representations
from m3_core.texts import check_texts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from numpy.typing import NDArray

    from m3_core.encoder import Role

_WORD = re.compile(r"\w+")


class FakeEncoder(EncodingMethods):
    """A ``TextEncoder`` that hashes words: texts that share words are similar, order aside.

    Each word has a vector of length 1 drawn from its hash. A multi-vector is these vectors, with
    one of the text's end; the dense vector is their sum, scaled to length 1; a lexical weight is 1
    for a word's first occurrence and a little more for each further one.

    Args:
        dimension: Width of dense and multi-vectors.
        representations: What it gives.
        name: What it is called.
        max_length: Words a text at most, with two for its start and end.
        query_instruction: Put before queries.
        document_instruction: Put before documents.

    Attributes:
        calls: Role and number of texts of each call that computed something.

    Example:
        >>> encoder = FakeEncoder()
        >>> reps = encoder.encode_documents(["Pandas eat bamboo.", "Bears eat fish."])
        >>> reps.dense_vecs.shape
        (2, 32)
    """

    def __init__(
        self,
        dimension: int = 32,
        *,
        representations: Collection[str] = ("dense", "sparse", "colbert"),
        name: str = "fake",
        max_length: int = 8192,
        query_instruction: str = "",
        document_instruction: str = "",
    ) -> None:
        self.dimension = dimension
        self.representations = frozenset(representations)
        self.name = name
        self.max_length = max_length
        self.query_instruction = query_instruction
        self.document_instruction = document_instruction
        self.closed = False
        self.calls: list[tuple[str, int]] = []

    @property
    def origin(self) -> FakeEncoder:
        """Itself."""
        return self

    @property
    def colbert_dimension(self) -> int:
        """Width of the multi-vectors; 0 where there are none."""
        return self.dimension if "colbert" in self.representations else 0

    def fingerprint(self, parts: Collection[str] = ("dense",), *, queries: bool = False) -> str:
        """Name everything that changes the representations of documents.

        Args:
            parts: Those that matter.
            queries: The instruction of queries counts too.

        Returns:
            A short string.
        """
        counted = (self.dimension, self.max_length, self.document_instruction, sorted(parts))
        seen = repr((*counted, self.query_instruction if queries else None))
        return f"fake-{hashlib.blake2b(seen.encode(), digest_size=8).hexdigest()}"

    def token_offsets(
        self, texts: Iterable[str], role: Role = "document", max_length: int | None = None
    ) -> list[TextTokens]:
        """Say where the words stand that are encoded, and the marks of start and end.

        Args:
            texts: The texts.
            role: Which instruction stands before them.
            max_length: Words a text at most, with two for its start and end.

        Returns:
            Of each text its tokens.
        """
        query = role == "query"
        instruction = self.query_instruction if query else self.document_instruction
        most = (max_length or self.max_length) - 2
        located: list[TextTokens] = []
        for text in check_texts(texts):
            found = list(_WORD.finditer(instruction + text))
            before = len(instruction)
            ids = [0, *(_token(one.group().lower()) for one in found[:most]), 2]
            spans = [(one.start() - before, one.end() - before) for one in found[:most]]
            places = np.array([(0, 0), *spans, (0, 0)])
            located.append(TextTokens(np.array(ids, np.int32), places, len(found) > most))
        return located

    def close(self) -> None:
        """Refuse further calls."""
        self.closed = True

    async def _aencode(
        self,
        role: Role,
        texts: Iterable[str],
        parts: tuple[str, ...],
        max_length: int | None,
        *,
        show_progress: bool,
    ) -> Representations:
        return self._encode(role, texts, parts, max_length, show_progress=show_progress)

    def _encode(
        self,
        role: Role,
        texts: Iterable[str],
        parts: tuple[str, ...],
        max_length: int | None,
        *,
        show_progress: bool,
    ) -> Representations:
        if self.closed:
            raise ClosedError(f"{self.name!r} was closed")
        if not parts:
            raise ValueError("nothing to compute: set one of the flags")
        if absent := sorted(set(parts) - self.representations):
            raise MissingRepresentationError(f"{' and '.join(absent)} asked for")
        query = role == "query"
        instruction = self.query_instruction if query else self.document_instruction
        most = (max_length or self.max_length) - 2
        words = [
            [word.lower() for word in _WORD.findall(instruction + text)[:most]]
            for text in check_texts(texts)
        ]
        if words:
            self.calls.append((role, len(words)))
        return Representations(
            dense_vecs=self._dense(words) if "dense" in parts else None,
            lexical_weights=self._weights(words) if "sparse" in parts else None,
            colbert_vecs=self._vectors(words) if "colbert" in parts else None,
        )

    def _dense(self, texts: list[list[str]]) -> NDArray[np.float32]:
        sums = [np.sum(self._rows(words), axis=0) for words in texts]
        dense = np.array(sums, np.float32).reshape(len(texts), self.dimension)
        result: NDArray[np.float32] = dense / np.linalg.norm(dense, axis=1, keepdims=True)
        return result

    def _weights(self, texts: list[list[str]]) -> LexicalWeights:
        rows: list[dict[int, float]] = []
        for words in texts:
            row: dict[int, float] = {}
            for word in words:
                token = _token(word)
                row[token] = row.get(token, 0.875) + 0.125
            rows.append(dict(sorted(row.items())))
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        ids = [token for row in rows for token in row]
        weights = [weight for row in rows for weight in row.values()]
        return LexicalWeights(
            np.array(ids, np.int32), np.array(weights, np.float32), offsets, 250_004
        )

    def _vectors(self, texts: list[list[str]]) -> MultiVectors:
        rows = [self._rows(words) for words in texts]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        empty = np.zeros((0, self.dimension), np.float32)
        return MultiVectors(np.concatenate([empty, *rows]).astype(np.float32), offsets)

    def _rows(self, words: list[str]) -> NDArray[np.float64]:
        drawn = [
            np.random.default_rng(_number(word)).standard_normal(self.dimension)
            for word in [*words, "</s>"]
        ]
        rows: NDArray[np.float64] = np.array(drawn)
        scaled: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return scaled


def _token(word: str) -> int:
    return 4 + _number(word) % 250_000


def _number(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
