"""The Parquet files of an encoded corpus: written whole or not at all, read some rows at a time."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from m3_core.bulk.columns import ABOUT, ID, TEXT
from m3_core.encoder import PARTS
from m3_core.errors import DatasetError, NonFiniteError
from m3_core.files import replacing_file
from m3_core.representations import LexicalWeights, MultiVectors, Representations

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from m3_core.bulk.columns import Metadata
    from m3_core.bulk.plan import Document
    from m3_core.bulk.recorded import RecordedModel

_DENSE, _SPARSE, _MULTI = PARTS.values()
# Each file says which of the job it is: two of equal length could be taken for each other.
_PART = b"m3-retrieval-part"
_REMEDY = "delete it, and the command that encoded the corpus writes it anew"


def shard_schema(
    model: RecordedModel, columns: Sequence[Metadata], job: str, *, keep_text: bool
) -> pa.Schema:
    """Describe the files of a job.

    Args:
        model: What it is encoded with.
        columns: Of metadata.
        job: A name for what is encoded and how.
        keep_text: There is a column of texts.

    Returns:
        The schema; its metadata names the model under ``m3-retrieval``, as JSON.
    """
    fields = [pa.field(ID, pa.string(), nullable=False)]
    if keep_text:
        fields.append(pa.field(TEXT, pa.string(), nullable=False))
    fields += [one.field() for one in columns]
    types = {
        "dense": pa.list_(pa.float32(), model.dimension),
        "sparse": pa.map_(pa.int32(), pa.float32()),
        "colbert": pa.list_(pa.list_(pa.float16(), model.colbert_dimension)),
    }
    fields += [pa.field(PARTS[part], types[part], nullable=False) for part in model.representations]
    about = {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "representations": list(model.representations),
        "query_instruction": model.query_instruction,
        "document_instruction": model.document_instruction,
        "max_length": model.max_length,
        "job": job,
    }
    return pa.schema(fields, metadata={ABOUT: json.dumps(about, ensure_ascii=False)})


def table_of(
    documents: Sequence[Document],
    reps: Representations,
    schema: pa.Schema,
    columns: Sequence[Metadata],
) -> pa.Table:
    """Make rows of documents.

    Args:
        documents: The documents.
        reps: Their representations.
        schema: Of ``shard_schema``.
        columns: Of metadata.

    Returns:
        As many rows as documents.

    Raises:
        NonFiniteError: A vector holds NaN or infinity, or does not fit into float16.
        DatasetError: The encoder gave something else than it said.
    """
    made: dict[str, pa.Array] = {ID: pa.array([one.id for one in documents], pa.string())}
    if TEXT in schema.names:
        made[TEXT] = pa.array([one.text for one in documents], pa.string())
    records = [one.metadata for one in documents]
    made |= {one.column: one.array(records) for one in columns}
    if reps.dense_vecs is not None:
        made[_DENSE] = _lists(_finite(reps.dense_vecs, np.float32), schema.field(_DENSE).type)
    if reps.lexical_weights is not None:
        made[_SPARSE] = _maps(reps.lexical_weights)
    if reps.colbert_vecs is not None:
        type = schema.field(_MULTI).type
        vectors = _lists(_finite(reps.colbert_vecs.vectors, np.float16), type.value_type)
        offsets = _small(reps.colbert_vecs.offsets)
        made[_MULTI] = pa.ListArray.from_arrays(offsets, vectors, type=type)
    if len(reps) != len(documents) or set(made) != set(schema.names):
        raise DatasetError(
            f"the encoder gave {reps!r} for {len(documents)} texts, where {schema.names} are "
            "to be written"
        )
    return pa.table([made[name] for name in schema.names], schema=schema)


def write_shard(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Write a file, which is there when it is whole.

    Args:
        path: The file.
        schema: Its schema.
        tables: Its rows; each becomes a row group.

    Returns:
        How many rows.
    """
    plain = [one.name for one in schema if one.name not in PARTS.values()]
    options: dict[str, Any] = {
        # Numbers of vectors neither repeat nor sort.
        "use_dictionary": plain,
        "write_statistics": plain,
        "compression": "zstd",
        "write_page_checksum": True,
    }
    rows = 0
    schema = schema.with_metadata({**(schema.metadata or {}), _PART: path.name.encode()})
    with replacing_file(path) as file, parquet.ParquetWriter(file, schema, **options) as writer:
        for table in tables:
            table = table.replace_schema_metadata(schema.metadata)
            writer.write_table(table, row_group_size=max(len(table), 1))
            rows += len(table)
    return rows


def check_shard(path: Path, schema: pa.Schema, rows: int) -> None:
    """Check that a file that is there belongs to a job; its rows are not read.

    Args:
        path: The file.
        schema: The job's.
        rows: How many it must have.

    Raises:
        DatasetError: It is another one, or damaged.
    """
    with _checked(path), _opened(path) as file:
        found = file.schema_arrow
        told = found.metadata or {}
        is_same = found.equals(schema) and told.get(ABOUT) == schema.metadata[ABOUT]
        is_same = is_same and _PART in told
        if not is_same or file.metadata.num_rows != rows:
            raise DatasetError(
                f"{path} was not written by this job, which has {rows} rows there: use another "
                "folder, or overwrite"
            )
        part = told[_PART].decode()
        if part != path.name:
            raise DatasetError(f"{path} holds what belongs into {part}: {_REMEDY}")


def read_tables(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Read a file some rows at a time; its checksums are compared.

    Args:
        path: The file.
        columns: What of it.

    Yields:
        Its row groups.

    Raises:
        DatasetError: It is damaged.
    """
    with _checked(path):
        file = _opened(path)
    with file:
        for group in range(file.num_row_groups):
            with _checked(path):
                table = file.read_row_group(group, columns=list(columns)).combine_chunks()
            yield table


def _opened(path: Path) -> parquet.ParquetFile:
    return parquet.ParquetFile(path, page_checksum_verification=True)


@contextmanager
def _checked(path: Path) -> Iterator[None]:
    """Say so where a file is damaged, of which pyarrow says many things."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        raise DatasetError(f"{path} is damaged ({error}): {_REMEDY}") from error


def representations_of(table: pa.Table, model: RecordedModel) -> Representations:
    """Read representations of rows.

    Args:
        table: The rows; those of the columns that are there are read.
        model: What they were encoded with.

    Returns:
        The representations.
    """
    found: dict[str, Any] = {}
    if _DENSE in table.column_names:
        flat = _numbers(_one(table, _DENSE).flatten())
        found[_DENSE] = flat.reshape(len(table), model.dimension)
    if _SPARSE in table.column_names:
        maps = _one(table, _SPARSE)
        offsets = maps.offsets.to_numpy().astype(np.int64)
        part = slice(offsets[0], offsets[-1])
        found[_SPARSE] = LexicalWeights(
            _numbers(maps.keys)[part], _numbers(maps.items)[part], offsets - offsets[0]
        )
    if _MULTI in table.column_names:
        lists = _one(table, _MULTI)
        offsets = lists.offsets.to_numpy().astype(np.int64)
        vectors = _numbers(lists.flatten().flatten()).reshape(-1, model.colbert_dimension)
        found[_MULTI] = MultiVectors(vectors, offsets - offsets[0])
    return Representations(**found)


def _one(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _numbers(values: pa.Array) -> NDArray[Any]:
    found: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return found


def _finite(vectors: NDArray[Any], dtype: type[np.floating[Any]]) -> NDArray[Any]:
    # What float16 cannot hold becomes infinite and is refused.
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(vectors, dtype)
    if not np.isfinite(cast).all():
        raise NonFiniteError(f"a vector holds NaN, infinity, or more than {dtype.__name__} can")
    return cast


def _lists(vectors: NDArray[Any], type: pa.DataType) -> pa.Array:
    if vectors.shape[1] != type.list_size:
        raise DatasetError(
            f"the encoder gave vectors of width {vectors.shape[1]} and said {type.list_size}"
        )
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=type)


def _maps(weights: LexicalWeights) -> pa.Array:
    keys, items = pa.array(weights.token_ids, pa.int32()), pa.array(weights.weights, pa.float32())
    return pa.MapArray.from_arrays(_small(weights.offsets), keys, items)


def _small(offsets: NDArray[np.int64]) -> pa.Array:
    return pa.array(offsets.astype(np.int32), pa.int32())
