"""All texts of a collection, encoded once, in files: memory holds one file's worth at a time.

A file holds the representations of some hundred texts. It says what it was made of, so that an
interrupted run goes on where it stopped and a later one encodes nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.encoder import PARTS
from m3_core.errors import IndexFileError
from m3_core.files import open_tensors, write_tensors
from m3_core.representations import LexicalWeights, MultiVectors, Representations

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from m3_core.encoder import Role, TextEncoder

# As many as fill batches well; their multi-vectors stay within a gigabyte or two.
TEXTS, CHARACTERS = 512, 500_000
_FORMAT, _VERSION = "m3-evaluation-shard", "1"


@dataclass(frozen=True, slots=True)
class Shard:
    """Some texts that follow one another.

    Attributes:
        file: Where their representations are.
        start: Number of the first one.
        stop: One more than the number of the last one.
    """

    file: Path
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """Texts whose representations are in files.

    Attributes:
        ids: Of all texts, in order.
        shards: The files.
        parts: What they hold, of ``"dense"``, ``"sparse"`` and ``"colbert"``.
        encoded: How many texts were encoded for it; the others were there already.
    """

    ids: tuple[str, ...]
    shards: tuple[Shard, ...]
    parts: tuple[str, ...]
    encoded: int

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, parts: Collection[str] | None = None) -> Iterator[tuple[int, Representations]]:
        """Read the representations, file by file.

        Args:
            parts: Those that are needed; all if ``None``.

        Yields:
            Number of the first text, and the representations of it and those after it.

        Raises:
            IndexFileError: A file is damaged.
        """
        for shard in self.shards:
            yield shard.start, _read(shard.file, self.parts if parts is None else parts)

    def whole(self) -> Representations:
        """Read everything at once, for texts that are few.

        Returns:
            The representations of all texts.
        """
        return Representations.concatenate([reps for _, reps in self.read()])


def encode_texts(
    encoder: TextEncoder,
    texts: Iterable[tuple[str, str]],
    folder: Path,
    *,
    role: Role = "document",
    parts: Sequence[str] = tuple(PARTS),
    max_length: int | None = None,
    half: bool = False,
    advanced: Callable[[int], object] = lambda _: None,
) -> EncodedTexts:
    """Encode texts, all representations in one pass, into files.

    Args:
        encoder: The encoder.
        texts: Ids and texts, gone through once.
        folder: Where to; what was encoded there before, by the same model with the same options,
            is not encoded again.
        role: Which instruction stands before the texts.
        parts: What to encode, of ``"dense"``, ``"sparse"`` and ``"colbert"``.
        max_length: Tokens a text at most.
        half: Keep multi-vectors in float16: half the space, and MaxSim within 1e-3.
        advanced: Is told how many texts are done, after each file.

    Returns:
        What was encoded.

    Raises:
        ValueError: Two texts have the same id.
        OSError: A file could not be written.
    """
    parts = tuple(part for part in PARTS if part in parts)
    model = encoder.fingerprint(parts, queries=role == "query")
    name = f"{model}-{max_length or 'full'}{'-half' if half else ''}-{'+'.join(parts)}"
    safe = "".join(sign if sign.isalnum() or sign in "-+" else "_" for sign in name)
    own = folder / f"{'queries' if role == 'query' else 'documents'}-{safe}"
    own.mkdir(parents=True, exist_ok=True)
    flags = {
        "return_dense": "dense" in parts,
        "return_sparse": "sparse" in parts,
        "return_colbert_vecs": "colbert" in parts,
    }
    encode = encoder.encode_queries if role == "query" else encoder.encode_documents
    ids: list[str] = []
    shards: list[Shard] = []
    encoded = 0
    seen: set[str] = set()
    for group in _groups(texts):
        for key, _ in group:
            if key in seen:
                raise ValueError(f"two texts have the id {key!r}: ids must be different")
            seen.add(key)
        # Named by what it holds, so that other collections lie beside.
        digest = _digest([text for _, text in group])
        shard = Shard(own / f"{digest}.safetensors", len(ids), len(ids) + len(group))
        if not _is_there(shard.file, digest):
            reps = encode([text for _, text in group], max_length=max_length, **flags)
            _write(shard.file, digest, reps, half=half)
            encoded += len(group)
        ids += [key for key, _ in group]
        shards.append(shard)
        advanced(len(ids))
    return EncodedTexts(tuple(ids), tuple(shards), parts, encoded)


def _groups(texts: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    group: list[tuple[str, str]] = []
    length = 0
    for key, text in texts:
        group.append((key, text))
        length += len(text)
        if len(group) == TEXTS or length >= CHARACTERS:
            yield group
            group, length = [], 0
    if group:
        yield group


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def _is_there(file: Path, digest: str) -> bool:
    try:
        with open_tensors(file, "shard of encodings", _FORMAT, _VERSION) as tensors:
            return tensors.metadata["texts"] == digest
    except (FileNotFoundError, IndexFileError):
        return False


def _write(file: Path, digest: str, reps: Representations, *, half: bool) -> None:
    tensors: dict[str, Any] = {}
    metadata = {"format": _FORMAT, "version": _VERSION, "texts": digest}
    if reps.dense_vecs is not None:
        tensors["dense"] = reps.dense_vecs
    if (weights := reps.lexical_weights) is not None:
        tensors |= {"token_ids": weights.token_ids, "weights": weights.weights}
        tensors["token_offsets"] = weights.offsets
        metadata["vocabulary_size"] = str(weights.vocabulary_size or "")
    if (vectors := reps.colbert_vecs) is not None:
        rows = vectors.vectors.astype(np.float16, copy=False) if half else vectors.vectors
        tensors |= {"vectors": rows, "vector_offsets": vectors.offsets}
    write_tensors(file, metadata, tensors)


def _read(file: Path, parts: Collection[str]) -> Representations:
    with open_tensors(file, "shard of encodings", _FORMAT, _VERSION) as tensors:
        reps: dict[str, Any] = {}
        if "dense" in parts:
            reps["dense_vecs"] = tensors.read("dense", np.float32, (None, None))
        if "sparse" in parts:
            size = tensors.metadata["vocabulary_size"]
            reps["lexical_weights"] = LexicalWeights(
                tensors.read("token_ids", np.int32, (None,)),
                tensors.read("weights", np.float32, (None,)),
                tensors.read("token_offsets", np.int64, (None,)),
                int(size) if size else None,
            )
        if "colbert" in parts:
            dtype = tensors.dtype("vectors")
            reps["colbert_vecs"] = MultiVectors(
                tensors.read("vectors", dtype, (None, None)),
                tensors.read("vector_offsets", np.int64, (None,)),
            )
    return Representations(**reps)
