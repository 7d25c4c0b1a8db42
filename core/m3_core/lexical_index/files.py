"""The file of a lexical index: a safetensors file, written whole or not at all.

Segment i has the tensors ``i.tokens``, ``i.offsets``, ``i.rows``, ``i.weights`` (posting lists),
``i.column.t`` for each token t that has a column, and ``i.ids``: bytes of JSON lines, one string a
document, ``null`` for a deleted one. The metadata hold the format, its version, the fingerprint and
a CRC-32 of each tensor, which safetensors has none of.
"""

from __future__ import annotations

import json
import os
import secrets
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.errors import IndexFileError
from m3_core.lexical_index.segments import Segment
from m3_core.representations import checked_offsets

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "m3-lexical-index"
VERSION = "1"

_PARTS: dict[str, type[np.generic]] = {
    "tokens": np.int32,
    "offsets": np.int64,
    "rows": np.int32,
    "weights": np.float32,
    "ids": np.uint8,
}
_COLUMN = ".column."
# What reading a damaged file may raise, beside safetensors' own error.
_DAMAGES = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


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
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    target = Path(path).resolve()
    tensors: dict[str, NDArray[Any]] = {}
    for number, segment in enumerate(content.segments):
        tensors |= {f"{number}.{name}": array for name, array in _tensors(segment).items()}
    metadata = {"format": FORMAT, "version": VERSION, "segments": str(len(content.segments))}
    metadata["checksums"] = json.dumps({name: _checksum(array) for name, array in tensors.items()})
    if content.fingerprint is not None:
        metadata["fingerprint"] = content.fingerprint
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            raise OSError(f"{target} cannot be written: {error}") from error
        # safetensors writes files that only their owner reads, whatever the process asks for.
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _tensors(segment: Segment) -> dict[str, NDArray[Any]]:
    deleted = set(segment.deleted.tolist())
    names = [None if row in deleted else name for row, name in enumerate(segment.ids)]
    encode = json.JSONEncoder().encode
    lines = "".join([encode(name) + "\n" for name in names]).encode()
    arrays: dict[str, NDArray[Any]] = {
        "tokens": segment.tokens,
        "offsets": segment.offsets,
        "rows": segment.rows,
        "weights": segment.weights,
        "ids": np.frombuffer(lines, np.uint8),
    }
    # One tensor a column: they are never copied into one array.
    arrays |= {f"column.{token}": column for token, column in segment.columns.items()}
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _checksum(array: NDArray[Any]) -> int:
    return zlib.crc32(array.data) if array.size else 0


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
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    # It says in one way what safetensors says in many: absent, a folder, not to be read.
    with path.open("rb"):
        pass
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            _check_format(path, metadata, fingerprint)
            segments = _read_segments(file, metadata)
        content = IndexContent(segments, metadata.get("fingerprint"))
        num_living = sum(len(segment) - len(segment.deleted) for segment in segments)
        if len(content.numbers()) != num_living:
            raise ValueError("an id comes twice")
    except (SafetensorError, *_DAMAGES) as error:
        raise IndexFileError(
            f"{path} is no lexical index, cut or damaged ({error!r}); restore it or build the "
            "index anew"
        ) from error
    return content


def _check_format(path: Path, metadata: dict[str, str], fingerprint: str | None) -> None:
    if metadata.get("format") != FORMAT:
        raise ValueError(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
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


def _read_segments(file: Any, metadata: dict[str, str]) -> tuple[Segment, ...]:
    checksums = json.loads(metadata["checksums"])
    if set(file.keys()) != set(checksums):
        raise ValueError("tensors and checksums differ in their names")

    def read(name: str, dtype: type[np.generic]) -> NDArray[Any]:
        array: NDArray[Any] = file.get_tensor(name)
        if array.dtype != dtype or array.ndim != 1:
            raise ValueError(f"tensor {name} is of type {array.dtype} and shape {array.shape}")
        if _checksum(array) != checksums[name]:
            raise ValueError(f"tensor {name} does not match its checksum")
        return array

    columns: dict[int, dict[int, NDArray[np.float32]]] = {}
    for name in checksums:
        number, mark, token = name.partition(_COLUMN)
        if mark:
            columns.setdefault(int(number), {})[int(token)] = read(name, np.float32)
    segments: list[Segment] = []
    first, count = 0, int(metadata["segments"])
    if len(checksums) != count * len(_PARTS) + sum(map(len, columns.values())):
        raise ValueError(f"{len(checksums)} tensors are not those of {count} segments")
    for index in range(count):
        arrays = {part: read(f"{index}.{part}", dtype) for part, dtype in _PARTS.items()}
        segments.append(_segment(arrays, columns.pop(index, {}), first))
        first += len(segments[-1])
    if columns:
        raise ValueError("a column belongs to no segment")
    return tuple(segments)


def _segment(
    arrays: dict[str, NDArray[Any]], columns: dict[int, NDArray[np.float32]], first_number: int
) -> Segment:
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
    if any(len(column) != len(names) for column in columns.values()):
        raise ValueError("the columns do not fit the documents")
    return Segment(
        ids=["" if name is None else name for name in names],
        numbers=np.arange(first_number, first_number + len(names)),
        tokens=tokens,
        offsets=checked_offsets(arrays["offsets"], len(rows), "postings"),
        rows=rows,
        weights=weights,
        columns=columns,
        deleted=np.array([row for row, name in enumerate(names) if name is None], np.int32),
    )
