"""The check of a whole corpus before anything is encoded, and its division into shards."""

from __future__ import annotations

import hashlib
import json
from array import array
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.bulk.columns import ColumnTypes, parquet_columns
from m3_core.bulk.rows import Position, place
from m3_core.errors import DatasetError
from m3_core.values import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from m3_core.bulk.columns import Metadata
    from m3_core.bulk.inputs import Source
    from m3_core.bulk.options import EncodeOptions
    from m3_core.bulk.rows import Row

# A shard ends here too: with the widest multi-vectors some GiB.
SHARD_CHARACTERS = 1 << 22


@dataclass(frozen=True, slots=True)
class Document:
    """A row that was found good.

    Attributes:
        id: Its id.
        text: Its text.
        metadata: What is kept beside.
        content: All of it in bytes, to recognise it.
    """

    id: str
    text: str
    metadata: Mapping[str, Any]
    content: bytes


@dataclass(frozen=True, slots=True)
class Shard:
    """Some documents that follow each other, and go into one file.

    Attributes:
        number: Its place among all.
        start: Where its first row is.
        span: Rows to read, those that are left out included.
        rows: Documents.
        left_out: Numbers of rows that are left out.
        digest: Of the documents.
    """

    number: int
    start: Position
    span: int
    rows: int
    left_out: tuple[int, ...]
    digest: str

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"part-{self.number:06}.parquet"

    def to_json(self) -> list[Any]:
        """Write it down."""
        return [
            self.number,
            list(asdict(self.start).values()),
            self.span,
            self.rows,
            list(self.left_out),
            self.digest,
        ]

    @classmethod
    def from_json(cls, values: list[Any]) -> Shard:
        """Read what ``to_json`` wrote."""
        number, start, span, rows, left_out, digest = values
        return cls(number, Position(*start), span, rows, tuple(left_out), digest)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is left out.

    Attributes:
        file: Its file.
        line: Lines, or rows, before it.
        error: Why.
        row: What it is.
    """

    file: str
    line: int
    error: str
    row: Any


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be encoded.

    Attributes:
        id_column: Where ids are; ``None`` if documents are numbered.
        shards: All of them.
        columns: Of metadata.
        skipped: Rows that are left out.
    """

    id_column: str | None
    shards: list[Shard]
    columns: list[Metadata]
    skipped: list[Skipped] = field(default_factory=list)


class Reader:
    """Makes documents of rows, or says why a row is none.

    Args:
        options: Of the job.
        id_column: Where ids are; ``None`` to number documents.
    """

    def __init__(self, options: EncodeOptions, id_column: str | None) -> None:
        self._id_column = id_column
        self._texts = tuple(options.text_columns)
        kept = options.metadata_columns
        self._kept = None if kept is None else frozenset(kept)
        # Of several columns each is kept, for the text does not tell them apart.
        self.used = {id_column, *(self._texts if len(self._texts) == 1 else ())}

    def document(self, row: Row) -> Document | str:
        """Make a document of a row.

        Args:
            row: As it was read.

        Returns:
            The document, or what is wrong.
        """
        record = row.record
        if record is None:
            return row.error
        text, wrong = self._text(record)
        if wrong:
            return wrong
        one = str(row.start.number) if self._id_column is None else record.get(self._id_column)
        if isinstance(one, int) and not isinstance(one, bool):
            one = str(one)
        if not isinstance(one, str) or not one:
            is_not = "it must be a string or a whole number"
            return f"its id, {self._id_column!r}, is {shown(one)}; {is_not}"
        metadata = {key: value for key, value in record.items() if self._is_kept(key)}
        try:
            content = json.dumps([one, text, metadata], default=repr, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            return f"it holds a lone surrogate, {error.object[error.start]!r}, which no text can"
        return Document(one, text, metadata, content)

    def _text(self, record: Mapping[str, Any]) -> tuple[str, str]:
        parts = []
        for column in self._texts:
            if column not in record:
                has = ", ".join(map(repr, record)) or "none"
                return "", f"it has no column {column!r} for the text; its columns are {has}"
            value = record[column]
            if value is None and len(self._texts) > 1:
                continue
            if not isinstance(value, str):
                return "", f"its text, {column!r}, is {shown(value)}; it must be a string"
            parts.append(value)
        return " ".join(filter(None, parts)) if len(parts) > 1 else "".join(parts), ""

    def _is_kept(self, column: str) -> bool:
        return column not in self.used and (self._kept is None or column in self._kept)


def make_plan(
    source: Source, options: EncodeOptions, advance: Callable[[int], object] | None = None
) -> Plan:
    """Check all rows of a corpus, and divide it.

    Args:
        source: The corpus.
        options: Of the job.
        advance: Told of rows that were checked.

    Returns:
        What is to be encoded.

    Raises:
        DatasetError: A row holds no document, or an id comes twice, and rows are not to be
            skipped; or there is no document at all.
    """
    id_column = _id_column(source, options)
    repeated: frozenset[int] = frozenset()
    while True:
        draft = _Draft(source, options, id_column, repeated)
        for row in source.rows():
            draft.add(row)
            if advance is not None:
                advance(1)
        again = draft.repeated_ids()
        if not again:
            return draft.plan()
        # Found by their digests: now for certain, and where.
        found = _repeated_rows(source, draft.reader, again, repeated)
        if not found:
            return draft.plan()
        if options.on_error == "stop":
            first = min(found)
            raise DatasetError(
                f"{found[first]}: its id comes a second time; give documents ids of their own, or "
                'use on_error="skip"'
            )
        repeated |= found.keys()


class _Draft:
    """A plan in the making."""

    def __init__(
        self,
        source: Source,
        options: EncodeOptions,
        id_column: str | None,
        repeated: frozenset[int],
    ) -> None:
        self.reader = Reader(options, id_column)
        self._source, self._options, self._id_column = source, options, id_column
        self._repeated = repeated
        self._types = ColumnTypes()
        self._ids = array("Q")
        self._shards: list[Shard] = []
        self._skipped: list[Skipped] = []
        self._start: Position | None = None
        self._begin()

    def _begin(self) -> None:
        self._span = self._rows = self._characters = 0
        self._left_out: list[int] = []
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, row: Row) -> None:
        """Take the next row."""
        if self._start is None:
            self._start = row.start
        self._span += 1
        document = self.reader.document(row)
        if row.start.number in self._repeated:
            document = "its id comes a second time"
        if isinstance(document, str):
            self._skip(row, document)
            return
        self._digest.update(document.content)
        if self._id_column is not None:
            hashed = hashlib.blake2b(document.id.encode(), digest_size=8).digest()
            self._ids.append(int.from_bytes(hashed, "big"))
        if self._source.kind != "parquet":
            self._types.add(document.metadata)
        self._rows += 1
        self._characters += len(document.text)
        if self._rows >= self._options.shard_rows or self._characters >= SHARD_CHARACTERS:
            self._end()

    def _skip(self, row: Row, error: str) -> None:
        path = self._source.files[row.start.file]
        if self._options.on_error == "stop":
            raise DatasetError(
                f"{place(path, row.start.line, self._source.kind)}: {error}. Nothing was encoded: "
                'mend it, or use on_error="skip"'
            )
        self._left_out.append(row.start.number)
        what = row.raw if row.record is None else row.record
        self._skipped.append(Skipped(str(path), row.start.line + 1, error, what))

    def _end(self) -> None:
        if self._rows and self._start is not None:
            self._shards.append(
                Shard(
                    len(self._shards),
                    self._start,
                    self._span,
                    self._rows,
                    tuple(self._left_out),
                    self._digest.hexdigest(),
                )
            )
        self._start = None
        self._begin()

    def repeated_ids(self) -> set[int]:
        """Digests that several ids have."""
        found, counts = np.unique(np.frombuffer(self._ids, np.uint64), return_counts=True)
        return set(found[counts > 1].tolist())

    def plan(self) -> Plan:
        """Finish the plan."""
        self._end()
        if not self._shards:
            raise DatasetError(f"{self._source.root} holds no document")
        kept = self._options.metadata_columns
        columns = self._types.columns()
        if self._source.kind == "parquet":
            used = [one for one in self.reader.used if one is not None]
            found = parquet_columns(self._source.files, used)
            columns = [one for one in found if kept is None or one.name in kept]
        absent = sorted(set(kept or ()) - {one.name for one in columns} - self.reader.used)
        if absent:
            raise DatasetError(
                f"no row of {self._source.root} has the column {', '.join(map(repr, absent))}, "
                "which metadata_columns name"
            )
        return Plan(self._id_column, self._shards, columns, self._skipped)


def documents_of(shard: Shard, rows: Iterator[Row], reader: Reader) -> Iterator[Document]:
    """Read the documents of a shard, and see that they are those that were planned.

    Args:
        shard: The shard.
        rows: From its first row on; it takes no more than its own.
        reader: Makes documents of them.

    Yields:
        The documents.

    Raises:
        DatasetError: The input is no longer what it was; raised after the last one.
    """
    digest, left_out, count = hashlib.blake2b(digest_size=16), frozenset(shard.left_out), 0
    for _ in range(shard.span):
        row = next(rows, None)
        document = "it is gone" if row is None else reader.document(row)
        if row is not None and row.start.number in left_out:
            continue
        if isinstance(document, str):
            raise _changed(shard)
        digest.update(document.content)
        count += 1
        yield document
    if count != shard.rows or digest.hexdigest() != shard.digest:
        raise _changed(shard)


def _changed(shard: Shard) -> DatasetError:
    return DatasetError(
        f"the input changed while it was encoded: the rows of {shard.name} are others than those "
        "that were checked. Begin anew in another folder, or with overwrite"
    )


def _id_column(source: Source, options: EncodeOptions) -> str | None:
    if options.id_column is not None:
        return options.id_column
    first = next((row.record for row in source.rows() if row.record is not None), {})
    return "id" if "id" in first else None


def _repeated_rows(
    source: Source, reader: Reader, digests: set[int], known: frozenset[int]
) -> dict[int, str]:
    seen: set[str] = set()
    found = {}
    for row in source.rows():
        document = reader.document(row)
        if isinstance(document, str) or row.start.number in known:
            continue
        hashed = hashlib.blake2b(document.id.encode(), digest_size=8).digest()
        if int.from_bytes(hashed, "big") not in digests:
            continue
        if document.id in seen:
            path = source.files[row.start.file]
            found[row.start.number] = place(path, row.start.line, source.kind)
        seen.add(document.id)
    return found
