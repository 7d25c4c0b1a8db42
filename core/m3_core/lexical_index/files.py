"""The file of a lexical index: a safetensors file, written whole or not at all.

Format 1: the layout of https://huggingface.co/docs/safetensors, any reader of which can open it.
Segment i has the tensors ``i.tokens``, ``i.offsets``, ``i.rows``, ``i.weights`` (posting lists),
``i.column_tokens``, ``i.columns`` (columns) and ``i.ids``: bytes of JSON lines, one string a
document, ``null`` for a deleted one. The metadata hold the format, its version, the fingerprint and
a CRC-32 of each tensor.
"""

from __future__ import annotations

import json
import os
import secrets
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from m3_core.errors import IndexFileError
from m3_core.lexical_index.segments import Segment
from m3_core.representations import checked_offsets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FORMAT = "m3-lexical-index"
VERSION = "1"

_DTYPES: dict[str, type[np.generic]] = {
    "I64": np.int64,
    "I32": np.int32,
    "F32": np.float32,
    "U8": np.uint8,
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_PARTS = {
    "tokens": "I32",
    "offsets": "I64",
    "rows": "I32",
    "weights": "F32",
    "column_tokens": "I32",
    "columns": "F32",
    "ids": "U8",
}


@dataclass(frozen=True, slots=True, eq=False)
class IndexContent:
    """What a file holds.

    Attributes:
        segments: In the order of adding.
        fingerprint: The model's, or ``None``.
    """

    segments: tuple[Segment, ...]
    fingerprint: str | None

    def numbers(self) -> dict[str, int]:
        """Number of each living document by its id, in the order of adding."""
        found: dict[str, int] = {}
        for segment in self.segments:
            deleted = set(segment.deleted.tolist())
            pairs = zip(segment.ids, segment.numbers.tolist(), strict=True)
            found |= {
                name: number for row, (name, number) in enumerate(pairs) if row not in deleted
            }
        return found


def write_index(path: str | os.PathLike[str], content: IndexContent) -> None:
    """Write a file beside ``path`` and, once it is safe on the disk, put it in its place.

    Args:
        path: The file; if it is a link, what it points to is replaced.
        content: What to write.

    Raises:
        OSError: Something could not be written; ``path`` is as it was.
    """
    target = Path(path).resolve()
    # Blocks stay apart: columns are written one after another, never copied into one array.
    tensors: dict[str, tuple[list[int], list[NDArray[Any]]]] = {}
    for number, segment in enumerate(content.segments):
        for name, (shape, blocks) in _tensors(segment).items():
            tensors[f"{number}.{name}"] = (shape, blocks)
    # Wide types first, so that every tensor is aligned.
    order = sorted(tensors, key=lambda name: -tensors[name][1][0].itemsize)
    header: dict[str, Any] = {}
    checksums: dict[str, int] = {}
    position = 0
    for name in order:
        shape, blocks = tensors[name]
        end = position + sum(block.nbytes for block in blocks)
        header[name] = {
            "dtype": _NAMES[blocks[0].dtype],
            "shape": shape,
            "data_offsets": [position, end],
        }
        checksums[name] = _checksum(blocks)
        position = end
    metadata = {"format": FORMAT, "version": VERSION, "segments": str(len(content.segments))}
    metadata["checksums"] = json.dumps(checksums)
    if content.fingerprint is not None:
        metadata["fingerprint"] = content.fingerprint
    text = json.dumps({"__metadata__": metadata, **header}).encode()
    text += b" " * (-len(text) % 8)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in order:
                for block in tensors[name][1]:
                    file.write(block.data.cast("B") if block.size else b"")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _tensors(segment: Segment) -> dict[str, tuple[list[int], list[NDArray[Any]]]]:
    deleted = set(segment.deleted.tolist())
    names = [None if row in deleted else name for row, name in enumerate(segment.ids)]
    encode = json.JSONEncoder().encode
    lines = "".join([encode(name) + "\n" for name in names]).encode()
    columns: list[NDArray[Any]] = list(segment.columns.values())
    arrays: dict[str, NDArray[Any]] = {
        "tokens": segment.tokens,
        "offsets": segment.offsets,
        "rows": segment.rows,
        "weights": segment.weights,
        "column_tokens": np.fromiter(segment.columns, np.int32),
        "ids": np.frombuffer(lines, np.uint8),
    }
    whole = {name: ([len(array)], [array]) for name, array in arrays.items()}
    blocks = columns or [np.zeros(0, np.float32)]
    return whole | {"columns": ([len(columns), len(segment)], blocks)}


def _checksum(blocks: Sequence[NDArray[Any]]) -> int:
    value = 0
    for block in blocks:
        value = zlib.crc32(block.data, value)
    return value


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself survive a power cut, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_index(path: str | os.PathLike[str], fingerprint: str | None) -> IndexContent:
    """Read a file and check all of it.

    Args:
        path: The file.
        fingerprint: What the file's must be; ``None``: anything.

    Returns:
        Segments that are as safe to search as when they were written.

    Raises:
        OSError: The file is absent or cannot be read.
        IndexFileError: The file is cut, damaged or something else, or the fingerprint differs.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            header, start = _read_header(file)
            metadata = header.pop("__metadata__")
            if metadata["format"] != FORMAT:
                raise ValueError(f"its format is {metadata['format']!r}, not {FORMAT!r}")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise IndexFileError(
                f"{path} is no lexical index, or its beginning is damaged: {error!r}"
            ) from error
        if metadata["version"] != VERSION:
            raise IndexFileError(
                f"{path} is a lexical index of format {metadata['version']!r}; this version of "
                f"the package reads format {VERSION!r}: build the index anew or use the version "
                "that wrote it"
            )
        found = metadata.get("fingerprint")
        if fingerprint is not None and found != fingerprint:
            raise IndexFileError(
                f"{path} was made with another model or other options: its fingerprint is "
                f"{found!r}, expected was {fingerprint!r}; load the model that it was made with "
                "or build the index anew"
            )
        try:
            content = IndexContent(_read_segments(file, header, metadata, start), found)
            num_living = sum(len(segment) - len(segment.deleted) for segment in content.segments)
            if len(content.numbers()) != num_living:
                raise ValueError("an id comes twice")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise IndexFileError(
                f"{path} is cut or damaged ({error}); restore it or build the index anew"
            ) from error
    return content


def _read_header(file: IO[bytes]) -> tuple[dict[str, Any], int]:
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= size - 8:
        raise ValueError("it does not begin with the length of a safetensors header")
    return json.loads(file.read(length)), 8 + length


def _read_segments(
    file: IO[bytes], header: dict[str, Any], metadata: dict[str, str], start: int
) -> tuple[Segment, ...]:
    checksums = json.loads(metadata["checksums"])
    if set(header) != set(checksums):
        raise ValueError("tensors and checksums differ in their names")
    size = os.fstat(file.fileno()).st_size - start
    expected = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size != expected:
        raise ValueError(f"{size} bytes of data, expected {expected}")
    segments: list[Segment] = []
    first = 0
    for number in range(int(metadata["segments"])):
        arrays = {}
        for part, dtype in _PARTS.items():
            name = f"{number}.{part}"
            if header[name]["dtype"] != dtype:
                raise ValueError(f"tensor {name} is of type {header[name]['dtype']}")
            begin, end = header[name]["data_offsets"]
            file.seek(start + begin)
            count = (end - begin) // np.dtype(_DTYPES[dtype]).itemsize
            array = np.fromfile(file, _DTYPES[dtype], count)
            if array.nbytes != end - begin or zlib.crc32(array.data) != checksums[name]:
                raise ValueError(f"tensor {name} does not match its checksum")
            arrays[part] = array.reshape(header[name]["shape"])
        segments.append(_segment(arrays, first))
        first += len(segments[-1])
    return tuple(segments)


def _segment(arrays: dict[str, NDArray[Any]], first_number: int) -> Segment:
    # JSON holds no raw line feed, so the lines are one array's elements: read at once, it is fast.
    lines = arrays["ids"].tobytes().decode().removesuffix("\n").replace("\n", ",")
    names = json.loads(f"[{lines}]")
    if not all(name is None or isinstance(name, str) for name in names):
        raise ValueError("an id is no string")
    tokens, rows, weights = arrays["tokens"], arrays["rows"], arrays["weights"]
    if len(tokens) and (tokens[0] < 0 or (np.diff(tokens) <= 0).any()):
        raise ValueError("the token ids of the posting lists do not ascend")
    if len(arrays["offsets"]) != len(tokens) + 1 or rows.shape != weights.shape:
        raise ValueError("the posting lists do not fit their token ids")
    if len(rows) and (rows.min() < 0 or rows.max() >= len(names)):
        raise ValueError("a posting list names a document that is not there")
    columns = arrays["columns"]
    if columns.shape != (len(arrays["column_tokens"]), len(names)):
        raise ValueError("the columns do not fit the documents")
    return Segment(
        ids=["" if name is None else name for name in names],
        numbers=np.arange(first_number, first_number + len(names)),
        tokens=tokens,
        offsets=checked_offsets(arrays["offsets"], len(rows), "postings"),
        rows=rows,
        weights=weights,
        columns=dict(zip(arrays["column_tokens"].tolist(), columns, strict=True)),
        deleted=np.array([row for row, name in enumerate(names) if name is None], np.int32),
    )
