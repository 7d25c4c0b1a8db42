"""The file of a collection: one safetensors file with texts, metadata and representations.

Row i of every tensor is about document i: ``ids``, ``texts`` and ``metadata`` (JSON) are UTF-8
with ``.offsets``; ``dense`` are vectors, ``multi`` with ``multi.offsets`` multi-vectors. Lexical
weights lie in segments of so many documents as the header's ``segments`` say, under
``lexical.i.``, as in the file of a ``LexicalIndex``. The header holds checksums of all tensors and
one of itself, so that nothing in a file can come from another one.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.collection.metadata import metadata_from_json, metadata_to_json
from m3_core.collection.snapshot import Block, DocumentSnapshot
from m3_core.collection.vectors import DenseRows, MultiRows, check_finite
from m3_core.errors import IndexFileError, NonFiniteError
from m3_core.files import (
    TensorFile,
    TensorParts,
    open_tensors,
    packed_strings,
    unpacked_strings,
    write_tensors,
)
from m3_core.lexical_index import Segment, merge, read_segment, segment_tensors
from m3_core.representations import MultiVectors

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


FORMAT, VERSION = "m3-collection", "1"
# Vectors are read so many bytes at a time.
PIECE_BYTES = 16 << 20


def is_something_else(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file that was not written as a collection, and should not be replaced.

    Args:
        path: Where a collection shall be written.

    Returns:
        False also where there is nothing.
    """
    with suppress(FileNotFoundError), Path(path).open("rb") as file:
        try:
            return TensorFile(file).metadata.get("format") != FORMAT
        except (ValueError, KeyError, AttributeError):
            return True
    return False


@dataclass(frozen=True, slots=True)
class Expected:
    """What a file must have been made with.

    Attributes:
        fingerprint: Of the encoder.
        parts: What is stored of ``"dense"``, ``"sparse"`` and ``"colbert"``.
        dimension: Width of dense vectors.
        colbert_dimension: Width of multi-vectors.
    """

    fingerprint: str
    parts: tuple[str, ...]
    dimension: int
    colbert_dimension: int


def write_collection(
    path: str | os.PathLike[str],
    snapshot: DocumentSnapshot,
    fingerprint: str,
    parts: tuple[str, ...],
) -> None:
    """Write a file, which takes the place of an older one when it is whole.

    Args:
        path: The file; the folders above it are made if need be.
        snapshot: The documents.
        fingerprint: Of the encoder.
        parts: What is stored of ``"dense"``, ``"sparse"`` and ``"colbert"``.

    Raises:
        TypeError: Metadata hold something that JSON does not have, or would change.
        OSError: Something could not be written; the older file is as it was.
    """
    records = list(snapshot.records(snapshot.living.tolist()))
    columns = {
        "ids": [one for one, _, _ in records],
        "texts": [text for _, text, _ in records],
        "metadata": [metadata_to_json(one, metadata) for one, _, metadata in records],
    }
    tensors: dict[str, NDArray[Any] | TensorParts] = {}
    for name, strings in columns.items():
        tensors[name], tensors[f"{name}.offsets"] = packed_strings(strings)
    sizes = []
    for number, block in enumerate(snapshot.blocks):
        sizes.append(len(block) - block.num_deleted)
        if "sparse" in parts:
            segment = block.lexical
            living = merge([segment]) if segment.num_deleted else segment
            tensors |= segment_tensors(living, f"lexical.{number}.")
    alive, count = snapshot.lexical.living(), len(records)
    dense, multi = snapshot.dense, snapshot.multi
    if dense is not None:
        tensors["dense"] = TensorParts(np.float32, (count, dense.width), dense.kept(alive))
    if multi is not None:
        lengths = np.concatenate([np.diff(piece.offsets) for piece in multi.pieces])[alive]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        pieces = (piece.vectors for piece in multi.kept(alive))
        shape = (int(offsets[-1]), multi.width)
        tensors["multi"], tensors["multi.offsets"] = TensorParts(np.float16, shape, pieces), offsets
    described = {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": fingerprint,
        "parts": json.dumps(parts),
        "documents": str(count),
        "segments": json.dumps(sizes),
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, described, tensors)


def read_collection(path: str | os.PathLike[str], expected: Expected) -> DocumentSnapshot:
    """Read a file and check all of it.

    Args:
        path: The file.
        expected: What it must have been made with.

    Returns:
        The documents.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be read.
        IndexFileError: It is cut, damaged, something else, or of another model.
    """
    with open_tensors(path, "saved collection", FORMAT, VERSION) as file:
        found = file.metadata["fingerprint"]
        stored = tuple(json.loads(file.metadata["parts"]))
        if found != expected.fingerprint or stored != expected.parts:
            raise IndexFileError(
                f"{path} was made with another model, other options or other representations: it "
                f"has {found!r} with {', '.join(map(str, stored))}, asked for was "
                f"{expected.fingerprint!r} with {', '.join(expected.parts)}; use what it was made "
                "with, or encode the documents anew"
            )
        try:
            return _Reader(file, expected).snapshot()
        except NonFiniteError as error:
            raise ValueError(str(error)) from error


class _Reader:
    """Makes documents of a file, or raises what ``open_tensors`` makes ``IndexFileError`` of."""

    def __init__(self, file: TensorFile, expected: Expected) -> None:
        self._file = file
        self._parts = expected.parts
        self._widths = expected.dimension, expected.colbert_dimension
        self._known: set[str] = set()
        self._sizes: list[int] = json.loads(file.metadata["segments"])
        if not all(type(size) is int and size > 0 for size in self._sizes):
            raise ValueError("a segment holds no document")
        self._count = int(file.metadata["documents"])
        if sum(self._sizes) != self._count:
            raise ValueError(f"its segments are not all of its {self._count} documents")

    def snapshot(self) -> DocumentSnapshot:
        """Read everything."""
        ids, texts, lines = (self._strings(name) for name in ("ids", "texts", "metadata"))
        if len(set(ids)) != len(ids):
            raise ValueError("an id comes twice")
        for text in texts:
            # A lone surrogate, which no text can hold.
            text.encode()
        metadatas = [metadata_from_json(line) for line in lines]
        dense = self._dense() if "dense" in self._parts else [None] * len(self._sizes)
        multi = self._multi() if "colbert" in self._parts else [None] * len(self._sizes)
        blocks, start = [], 0
        for number, size in enumerate(self._sizes):
            part = slice(start, start + size)
            start += size
            segment = self._segment(f"lexical.{number}.", ids[part])
            blocks.append(
                Block(segment, texts[part], metadatas[part], dense[number], multi[number])
            )
        unknown = sorted(self._file.names - self._known)
        if unknown:
            raise ValueError(f"it holds {unknown[:3]}, which belong to nothing")
        return DocumentSnapshot(tuple(blocks))

    def _strings(self, name: str) -> list[str]:
        self._known |= {name, f"{name}.offsets"}
        offsets = self._file.read(f"{name}.offsets", np.int64, (self._count + 1,))
        return unpacked_strings(self._file.read(name, np.uint8, (None,)), offsets)

    def _segment(self, prefix: str, ids: list[str]) -> Segment:
        if "sparse" not in self._parts:
            return Segment.of(
                ids,
                np.zeros(0, np.int32),
                np.zeros(1, np.int64),
                np.zeros(0, np.int32),
                np.zeros(0, np.float32),
                {},
            )
        self._known |= {name for name in self._file.names if name.startswith(prefix)}
        return read_segment(self._file, prefix, ids)

    def _dense(self) -> list[DenseRows | None]:
        if not self._count:
            return []
        self._known.add("dense")
        width = self._widths[0]
        most = max(PIECE_BYTES // (4 * width), 1)
        cuts = [_cuts(size, most) for size in self._sizes]
        lengths = [length for own in cuts for length in own]
        pieces = self._file.read_parts("dense", np.float32, (self._count, width), lengths)
        return [DenseRows.of(rows) for rows in _grouped(pieces, cuts, "dense vectors")]

    def _multi(self) -> list[MultiRows | None]:
        if not self._count:
            return []
        self._known |= {"multi", "multi.offsets"}
        offsets = self._file.read("multi.offsets", np.int64, (self._count + 1,))
        if offsets[0] != 0 or (np.diff(offsets) < 0).any():
            raise ValueError("the offsets of multi-vectors do not ascend")
        width = self._widths[1]
        most = max(PIECE_BYTES // (2 * width), 1)
        cuts, start = [], 0
        for size in self._sizes:
            cuts.append(_cuts_of(offsets[start : start + size + 1], most))
            start += size
        bounds = np.cumsum([0, *(rows for own in cuts for rows in own)])
        lengths = np.diff(offsets[bounds]).tolist()
        shape = (int(offsets[-1]), width)
        pieces = self._file.read_parts("multi", np.float16, shape, lengths)
        starts = iter(bounds.tolist())
        return [
            MultiRows(
                tuple(
                    MultiVectors(vectors, offsets[first : first + rows + 1] - offsets[first])
                    for vectors, rows, first in zip(group, own, starts, strict=False)
                )
            )
            for group, own in zip(_grouped(pieces, cuts, "multi-vectors"), cuts, strict=True)
        ]


def _cuts(size: int, most: int) -> list[int]:
    """Numbers of rows, at most so many each."""
    return [min(most, size - start) for start in range(0, size, most)]


def _cuts_of(offsets: NDArray[np.int64], most: int) -> list[int]:
    """Numbers of rows with at most so many items each, or a single row."""
    cuts, first = [], 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + most, side="right")) - 1
        last = max(last, first + 1)
        cuts.append(last - first)
        first = last
    return cuts


def _grouped(
    pieces: Iterator[NDArray[Any]], cuts: Sequence[Sequence[int]], what: str
) -> list[list[NDArray[Any]]]:
    """The pieces of each block, all checked."""
    read = []
    # To the end, where the checksum is compared.
    for piece in pieces:
        check_finite(piece, what)
        read.append(piece)
    rest = iter(read)
    return [[next(rest) for _ in own] for own in cuts]
