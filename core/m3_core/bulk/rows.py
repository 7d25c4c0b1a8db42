"""Rows of input files, read from any place on."""

from __future__ import annotations

import csv
import gzip
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from m3_core.errors import DatasetError
from m3_core.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_MARK = b"\xef\xbb\xbf"
# Rows of Parquet turned into Python's objects at a time.
_ROWS = 256


@dataclass(frozen=True, slots=True)
class Position:
    """Before a row.

    Attributes:
        file: Number of the file.
        offset: Bytes of the file before it, uncompressed; with Parquet: rows.
        line: Lines of the file before it; with Parquet: rows.
        number: Rows of all files before it.
    """

    file: int = 0
    offset: int = 0
    line: int = 0
    number: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it was read.

    Attributes:
        start: Its place.
        record: Its values by column; ``None`` if it is none.
        error: Why it is none.
        raw: What was read instead.
    """

    start: Position
    record: dict[str, Any] | None
    error: str = ""
    raw: str = ""


def read_rows(files: Sequence[Path], kind: str, start: Position, root: Path) -> Iterator[Row]:
    """Read rows of all files.

    Args:
        files: The files, in order.
        kind: ``"jsonl"``, ``"csv"``, ``"parquet"`` or ``"text"``.
        start: Where to begin.
        root: Names of text files are relative to it.

    Yields:
        The rows from there on; those that cannot be read with an error.

    Raises:
        DatasetError: A file is cut or something else altogether.
    """
    at = start
    for number in range(start.file, len(files)):
        path = files[number]
        if number != at.file:
            at = Position(number, 0, 0, at.number)
        rows = _text(path, at, root) if kind == "text" else _READERS[kind](path, at)
        try:
            for row in rows:
                yield row
                at = Position(number, 0, 0, row.start.number + 1)
        except (EOFError, gzip.BadGzipFile) as error:
            raise DatasetError(f"{path} is cut or no gzip file: {error}") from error


def place(path: Path, line: int, kind: str) -> str:
    """Say where a row is.

    Args:
        path: Its file.
        line: Lines, or rows, before it.
        kind: Of the file.

    Returns:
        As ``"corpus.jsonl line 7"``.
    """
    if kind == "text":
        return str(path)
    return f"{path} {'row' if kind == 'parquet' else 'line'} {line + 1}"


def _open(path: Path) -> BinaryIO:
    # Whoever asks closes it.
    return cast("BinaryIO", gzip.GzipFile(path) if path.suffix == ".gz" else path.open("rb"))


def _json(path: Path, start: Position) -> Iterator[Row]:
    offset, line, number = start.offset, start.line, start.number
    with _open(path) as file:
        file.seek(offset)
        for raw in file:
            here = Position(start.file, offset, line, number)
            offset, line = offset + len(raw), line + 1
            content = raw.removeprefix(_MARK) if here.offset == 0 else raw
            if content.strip():
                yield _json_row(here, content)
                number += 1


def _json_row(start: Position, content: bytes) -> Row:
    try:
        record = parse_json(content.decode())
    except UnicodeDecodeError as error:
        return Row(start, None, f"it is not UTF-8: {error}", content.decode(errors="replace"))
    except ValueError as error:
        return Row(start, None, f"it is not JSON: {error}", content.decode())
    if not isinstance(record, dict):
        return Row(start, None, "it is no JSON object", content.decode())
    return Row(start, record)


class _Lines:
    """Decoded lines of a file, and how far it was read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.offset = self.line = 0
        self.wrong = ""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        raw = self._file.readline()
        if not raw:
            raise StopIteration
        content = raw.removeprefix(_MARK) if self.offset == 0 else raw
        self.offset, self.line = self.offset + len(raw), self.line + 1
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            self.wrong = f"it is not UTF-8: {error}"
            return content.decode(errors="replace")


def _csv(path: Path, start: Position) -> Iterator[Row]:
    # Python's own limit, which holds for the whole process, is 128 KiB: texts are longer.
    csv.field_size_limit(sys.maxsize)
    is_tabbed = ".tsv" in path.suffixes
    number = start.number
    with _open(path) as file:
        lines = _Lines(file)
        reader = csv.reader(lines, delimiter="\t" if is_tabbed else ",", strict=True)
        header = _header(path, lines, reader)
        if start.offset:
            file.seek(start.offset)
            lines.offset, lines.line = start.offset, start.line
        while True:
            here, lines.wrong, values = (
                Position(start.file, lines.offset, lines.line, number),
                "",
                None,
            )
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                lines.wrong = f"it is not CSV: {error}"
            if values == []:
                continue
            yield _csv_row(here, header, values, lines.wrong)
            number += 1


def _header(path: Path, lines: _Lines, reader: Any) -> list[str]:
    try:
        header: list[str] = next(reader, [])
    except csv.Error as error:
        raise DatasetError(f"{path} line 1: it is not CSV: {error}") from error
    if lines.wrong or len(set(header)) < len(header):
        wrong = lines.wrong or f"two columns have one name: {', '.join(header)}"
        raise DatasetError(f"{path} line 1: {wrong}")
    return header


def _csv_row(start: Position, header: list[str], values: list[str] | None, wrong: str) -> Row:
    raw = "" if values is None else ",".join(values)
    if wrong or values is None:
        return Row(start, None, wrong, raw)
    if len(values) != len(header):
        return Row(start, None, f"it has {len(values)} fields; the header has {len(header)}", raw)
    return Row(start, dict(zip(header, values, strict=True)))


def _parquet(path: Path, start: Position) -> Iterator[Row]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            groups: list[int] = []
            skipped = start.offset
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if not groups and skipped >= size:
                    skipped -= size
                else:
                    groups.append(group)
            row = start.offset
            for batch in file.iter_batches(_ROWS, row_groups=groups):
                part = batch.slice(skipped)
                skipped -= min(skipped, len(batch))
                for record in part.to_pylist():
                    number = start.number + row - start.offset
                    yield Row(Position(start.file, row, row, number), record)
                    row += 1
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise DatasetError(f"{path} is no whole Parquet file: {error}") from error


def _text(path: Path, start: Position, root: Path) -> Iterator[Row]:
    raw = path.read_bytes().removeprefix(_MARK)
    try:
        yield Row(start, {"id": path.relative_to(root).as_posix(), "text": raw.decode()})
    except UnicodeDecodeError as error:
        yield Row(start, None, f"it is not UTF-8: {error}", raw.decode(errors="replace"))


_READERS = {"jsonl": _json, "csv": _csv, "parquet": _parquet}
