"""The folder of a collection: the older state is read until the newer one is complete.

``manifest.json`` names a subfolder with the data and holds a CRC-32 of each of its files:
``documents.jsonl`` (id, text, metadata), ``lexical.safetensors`` (``LexicalIndex``) and, where
there are vectors, ``vectors.safetensors``. Saving writes another subfolder, then exchanges the
manifest in one step, then removes the older subfolder.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.errors import IndexFileError
from m3_core.lexical_index.index import LexicalIndex
from m3_core.representations import MultiVectors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

FORMAT, VERSION = "m3-collection", 1
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """What a folder holds beside the lexical index.

    Attributes:
        fingerprint: Of the encoder.
        parts: What is stored of ``"dense"``, ``"sparse"`` and ``"colbert"``.
        records: Id, text and metadata of each document.
        dense: Their dense vectors. Shape: (documents, dim). Dtype: float32.
        multi: Their multi-vectors. Dtype: float16.
    """

    fingerprint: str
    parts: tuple[str, ...]
    records: Sequence[tuple[str, str, dict[str, Any]]]
    dense: NDArray[np.float32] | None
    multi: MultiVectors | None


def write_collection(path: str | os.PathLike[str], content: Content, lexical: LexicalIndex) -> None:
    """Write a folder.

    Args:
        path: The folder; made if need be.
        content: What to write.
        lexical: The lexical index.

    Raises:
        TypeError: Metadata hold something that JSON does not have.
        OSError: Something could not be written; what was there is as it was.
    """
    from safetensors.numpy import save_file

    lines = [_line(*record) for record in content.records]
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"data-{secrets.token_hex(8)}"
    manifest = folder / f".manifest-{secrets.token_hex(8)}.tmp"
    try:
        data.mkdir()
        (data / "documents.jsonl").write_bytes(b"".join(lines))
        lexical.save(data / "lexical.safetensors")
        tensors: dict[str, NDArray[Any]] = {}
        if content.dense is not None:
            tensors["dense"] = np.ascontiguousarray(content.dense)
        if content.multi is not None:
            tensors["multi"] = np.ascontiguousarray(content.multi.vectors)
            tensors["multi_offsets"] = content.multi.offsets
        if tensors:
            save_file(tensors, data / "vectors.safetensors")
        sums = {file.name: _finished(file) for file in sorted(data.iterdir())}
        described = {
            "format": FORMAT,
            "version": VERSION,
            "fingerprint": content.fingerprint,
            "parts": list(content.parts),
            "data": data.name,
            "files": sums,
        }
        manifest.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        _finished(manifest)
        manifest.replace(folder / "manifest.json")
    except BaseException:
        manifest.unlink(missing_ok=True)
        shutil.rmtree(data, ignore_errors=True)
        raise
    for old in folder.glob("data-*"):
        if old.name != data.name:
            shutil.rmtree(old, ignore_errors=True)


def read_collection(
    path: str | os.PathLike[str], fingerprint: str, parts: tuple[str, ...]
) -> tuple[Content, LexicalIndex]:
    """Read a folder and check all of it.

    Args:
        path: The folder.
        fingerprint: What the folder's must be.
        parts: What must be stored in it.

    Returns:
        What ``write_collection`` was given.

    Raises:
        FileNotFoundError: There is no such folder.
        IndexFileError: It is cut, damaged, something else, or of another model.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if (manifest["format"], manifest["version"]) != (FORMAT, VERSION):
            raise ValueError(f"it is {manifest['format']!r} version {manifest['version']!r}")
        found, stored = manifest["fingerprint"], tuple(manifest["parts"])
        data, files = folder / Path(manifest["data"]).name, dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IndexFileError(
            f"{folder} holds no saved collection, or its manifest.json is damaged: {error!r}"
        ) from error
    if found != fingerprint or stored != parts:
        raise IndexFileError(
            f"{folder} was made with another model, other options or other representations: it "
            f"has {found!r} with {', '.join(stored)}, asked for was {fingerprint!r} with "
            f"{', '.join(parts)}; use what it was made with, or encode the documents anew"
        )
    for name, checksum in files.items():
        file = data / Path(name).name
        if not file.is_file() or _checksum(file) != checksum:
            raise IndexFileError(f"{file} is absent, cut or damaged: encode the documents anew")
    return _read(data, fingerprint, parts)


def _read(data: Path, fingerprint: str, parts: tuple[str, ...]) -> tuple[Content, LexicalIndex]:
    from safetensors.numpy import load_file

    records: list[tuple[str, str, dict[str, Any]]] = []
    with (data / "documents.jsonl").open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            record = json.loads(line)
            records.append((record["id"], record["text"], record["metadata"]))
    file = data / "vectors.safetensors"
    tensors = load_file(file) if file.is_file() else {}
    multi = None
    if "multi" in tensors:
        multi = MultiVectors(tensors["multi"], tensors["multi_offsets"])
    content = Content(fingerprint, parts, records, tensors.get("dense"), multi)
    return content, LexicalIndex.load(data / "lexical.safetensors", fingerprint)


def _line(one: str, text: str, metadata: dict[str, Any]) -> bytes:
    if lost := next(_lost_keys(metadata), None):
        raise TypeError(
            f"the metadata of document {one!r} cannot be saved: the key {lost[0]!r} of type "
            f"{type(lost[0]).__name__} would come back as a string; use strings"
        )
    try:
        record = json.dumps({"id": one, "text": text, "metadata": metadata})
    except (TypeError, ValueError) as error:
        raise TypeError(f"the metadata of document {one!r} cannot be saved: {error}") from error
    return record.encode() + b"\n"


def _lost_keys(value: Any) -> Iterator[tuple[Any]]:
    """Keys that JSON would turn into strings, at any depth."""
    if isinstance(value, dict):
        yield from ((key,) for key in value if not isinstance(key, str))
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from _lost_keys(one)


def _finished(file: Path) -> int:
    """Have a file safe on the disk; its CRC-32."""
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())
    return _checksum(file)


def _checksum(file: Path) -> int:
    value = 0
    with file.open("rb") as handle:
        while block := handle.read(_CHUNK):
            value = zlib.crc32(block, value)
    return value
