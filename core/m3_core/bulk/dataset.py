"""An encoded corpus as it lies in its folder."""

from __future__ import annotations

import datetime
import decimal
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3_core.bulk.columns import ID, TEXT
from m3_core.bulk.jobs import read_job
from m3_core.bulk.shards import check_shard, read_tables, representations_of
from m3_core.encoder import PARTS
from m3_core.errors import DatasetError, MissingRepresentationError

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterator, Sequence

    from m3_core.bulk.jobs import Job
    from m3_core.bulk.recorded import RecordedModel
    from m3_core.representations import Representations


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """Some documents of an encoded corpus.

    Attributes:
        ids: Their ids.
        texts: Their texts; ``None`` if these were not kept.
        metadatas: What is known about each; what a row lacked or had as null is left out.
        representations: What was asked for.
    """

    ids: list[str]
    texts: list[str] | None
    metadatas: list[dict[str, Any]]
    representations: Representations

    def __len__(self) -> int:
        return len(self.ids)


class EncodedDataset:
    """An encoded corpus, whole; made by ``EncodedDataset.open``.

    Args:
        job: The job that wrote it.
    """

    def __init__(self, job: Job) -> None:
        self._job = job

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> EncodedDataset:
        """Open what ``encode_dataset`` has written.

        Args:
            folder: The folder.

        Returns:
            The corpus.

        Raises:
            FileNotFoundError: There is none.
            DatasetError: It is not complete, or a file belongs to another one.
        """
        job = read_job(Path(folder).absolute())
        missing = job.missing()
        if missing:
            raise DatasetError(
                f"{folder} lacks {len(missing)} of {len(job.shards)} files, the first is "
                f"{missing[0].name}: encode it to its end, by the same command again"
            )
        return cls(job)

    def __len__(self) -> int:
        return self._job.rows

    def __repr__(self) -> str:
        return (
            f"EncodedDataset({str(self.folder)!r}, documents={len(self)}, "
            f"model={self.model.name!r}, representations={self.representations})"
        )

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self._job.folder

    @property
    def files(self) -> list[Path]:
        """Its Parquet files, in the order of the documents."""
        return [self._job.path(shard) for shard in self._job.shards]

    @property
    def model(self) -> RecordedModel:
        """What it was encoded with."""
        return self._job.model

    @property
    def representations(self) -> tuple[str, ...]:
        """What it holds of ``"dense"``, ``"sparse"`` and ``"colbert"``."""
        return self.model.representations

    @property
    def skipped(self) -> int:
        """How many rows of the input were left out."""
        return self._job.skipped

    @property
    def has_texts(self) -> bool:
        """Whether the texts were kept."""
        return bool(self._job.shaping["keep_text"])

    def parts(self, asked: Collection[str] | None) -> tuple[str, ...]:
        """Choose among the representations.

        Args:
            asked: Which; ``None`` for all.

        Returns:
            These, in the usual order.

        Raises:
            MissingRepresentationError: One was not encoded.
        """
        wanted = set(self.representations if asked is None else asked)
        if absent := sorted(wanted - set(self.representations)):
            raise MissingRepresentationError(
                f"{' and '.join(absent)} asked for, but {self.folder} holds "
                f"{', '.join(self.representations)}"
            )
        return tuple(part for part in PARTS if part in wanted)

    def batches(self, parts: Sequence[str] | None = None) -> Iterator[EncodedBatch]:
        """Read the documents, some hundred at a time.

        Args:
            parts: Representations to read; by default all.

        Yields:
            All documents, in the order of the input.

        Raises:
            MissingRepresentationError: A representation was not encoded.
            DatasetError: A file is damaged.
        """
        job = self._job
        names = [ID, *([TEXT] if self.has_texts else []), *(one.column for one in job.columns)]
        names += [PARTS[part] for part in self.parts(parts)]
        for shard in job.shards:
            check_shard(job.path(shard), job.schema, shard.rows)
            for table in read_tables(job.path(shard), names):
                columns = {one.name: one.values(table.column(one.column)) for one in job.columns}
                yield EncodedBatch(
                    table.column(ID).to_pylist(),
                    table.column(TEXT).to_pylist() if self.has_texts else None,
                    [
                        {
                            name: _plain(values[row], name)
                            for name, values in columns.items()
                            if values[row] is not None
                        }
                        for row in range(len(table))
                    ],
                    representations_of(table, job.model),
                )


def _plain(value: Any, name: str) -> Any:
    """What JSON has of a value of Parquet."""
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (uuid.UUID, datetime.timedelta)):
        return str(value)
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, bytes):
        raise DatasetError(
            f"the metadata {name!r} are bytes, which stores cannot keep: leave them out by "
            "metadata_columns when encoding"
        )
    if isinstance(value, list):
        return [_plain(one, name) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one, name) for key, one in value.items()}
    return value
