"""The Arrow columns of an encoded corpus: what a shard's schema is, and how values go in and out.

``id`` and ``text`` are strings, ``dense_vecs`` fixed-size lists of float32, ``lexical_weights``
maps from int32 token ids to float32, ``colbert_vecs`` lists of fixed-size lists of float16. Every
other column is metadata: of its own type where all rows agree on one, else JSON.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from m3_core.encoder import PARTS
from m3_core.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

ID, TEXT = "id", "text"
_RESERVED = {ID, TEXT, *PARTS.values()}
# The key of what we know about a shard or a column.
ABOUT = b"m3-retrieval"
# Above it, a whole number is not the same as a float.
_EXACT = 1 << 53
_PLAIN = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "large": pa.int64(),
    "float": pa.float64(),
    "str": pa.string(),
}


@dataclass(frozen=True, slots=True)
class Metadata:
    """A column of metadata.

    Attributes:
        name: As the input calls it.
        column: As shards call it.
        type: Its Arrow type.
        is_json: Values are written as JSON.
    """

    name: str
    column: str
    type: pa.DataType
    is_json: bool = False

    @classmethod
    def of(cls, name: str, type: pa.DataType, *, is_json: bool = False) -> Metadata:
        """Name a column so that it takes no other's place."""
        column = f"metadata.{name}" if name in _RESERVED else name
        return cls(name, column, type, is_json)

    def field(self) -> pa.Field:
        """The column as a part of a schema."""
        about = json.dumps({"name": self.name, "json": self.is_json})
        return pa.field(self.column, self.type, metadata={ABOUT: about})

    @classmethod
    def read(cls, field: pa.Field) -> Metadata:
        """Read what ``field`` gave."""
        about = json.loads(field.metadata[ABOUT])
        return cls(about["name"], field.name, field.type, about["json"])

    def array(self, records: Sequence[Mapping[str, Any]]) -> pa.Array:
        """Make the column of rows; what a row lacks is null."""
        values: list[Any] = [record.get(self.name) for record in records]
        if self.is_json:
            values = [
                None if one is None else json.dumps(one, ensure_ascii=False) for one in values
            ]
        return pa.array(values, self.type)

    def values(self, column: pa.Array | pa.ChunkedArray) -> list[Any]:
        """Read the column."""
        values: list[Any] = column.to_pylist()
        if self.is_json:
            return [None if one is None else json.loads(one) for one in values]
        return values


class ColumnTypes:
    """Finds one type a column for the values of all rows."""

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = {}

    def add(self, metadata: Mapping[str, Any]) -> None:
        """Look at a row.

        Args:
            metadata: What is kept of it.
        """
        for name, value in metadata.items():
            self._seen.setdefault(name, set()).add(_kind(value))

    def columns(self) -> list[Metadata]:
        """Give the columns, in the order of their first rows."""
        return distinct(_column(name, kinds - {"null"}) for name, kinds in self._seen.items())


def parquet_columns(files: Iterable[Path], left_out: Iterable[str]) -> list[Metadata]:
    """Take the metadata columns of Parquet files as they are.

    Args:
        files: The files.
        left_out: Columns that are no metadata.

    Returns:
        The columns.

    Raises:
        DatasetError: A column has several types.
    """
    from pyarrow import parquet

    schemas = [parquet.read_schema(path).remove_metadata() for path in files]
    try:
        schema = pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        raise DatasetError(f"the Parquet files have columns of several types: {error}") from error
    out = set(left_out)
    return distinct(Metadata.of(f.name, f.type) for f in schema if f.name not in out)


def distinct(columns: Iterable[Metadata]) -> list[Metadata]:
    """Check that no two columns have one name.

    Args:
        columns: The columns.

    Returns:
        The same.

    Raises:
        DatasetError: Two have.
    """
    listed = list(columns)
    names = {one.column for one in listed}
    if len(names) < len(listed):
        raise DatasetError(
            f"two columns of metadata would be called the same: {sorted(o.name for o in listed)}; "
            "rename one, or leave it out of metadata_columns"
        )
    return listed


def encoded_schema(columns: Sequence[Metadata]) -> str:
    """Write columns of metadata as a string."""
    schema = pa.schema([one.field() for one in columns])
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def decoded_schema(text: str) -> list[Metadata]:
    """Read what ``encoded_schema`` wrote."""
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
    return [Metadata.read(field) for field in schema]


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if abs(value) <= _EXACT else "large" if -(2**63) <= value < 2**63 else "json"
    if isinstance(value, (float, str)):
        return type(value).__name__
    if isinstance(value, list):
        inner = {_kind(one) for one in value}
        one = inner.pop() if len(inner) == 1 else "none" if not inner else "json"
        return f"list {one}" if one in (*_PLAIN, "none") else "json"
    return "json"


def _column(name: str, kinds: set[str]) -> Metadata:
    lists = {kind.removeprefix("list ") for kind in kinds if kind.startswith("list ")}
    if lists and len(lists) == len(kinds):
        inner = _common(lists - {"none"})
        if inner is not None:
            return Metadata.of(name, pa.list_(inner))
    elif not lists:
        common = _common(kinds)
        if common is not None:
            return Metadata.of(name, common)
    return Metadata.of(name, pa.string(), is_json=True)


def _common(kinds: set[str]) -> pa.DataType | None:
    if not kinds:
        return pa.null()
    if kinds <= {"int", "large"}:
        return pa.int64()
    if len(kinds) == 1:
        return _PLAIN.get(next(iter(kinds)))
    # Equal numbers, unless a whole one is too large for a float.
    return pa.float64() if kinds == {"int", "float"} else None
