"""A bulk job as it stands in its folder: begun, gone on with, or begun anew."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from m3_core.bulk.columns import decoded_schema, encoded_schema
from m3_core.bulk.inputs import changes
from m3_core.bulk.plan import Shard, make_plan
from m3_core.bulk.recorded import RecordedModel
from m3_core.bulk.shards import check_shard, shard_schema
from m3_core.errors import DatasetError
from m3_core.files import remove_leftovers, replacing_file
from m3_core.json_text import parse_json
from m3_core.saved_folders import locked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

    from m3_core.bulk.columns import Metadata
    from m3_core.bulk.inputs import Source
    from m3_core.bulk.options import EncodeOptions
    from m3_core.bulk.progress import Progress

JOB, SKIPPED, STDIN = "_job.json", "_skipped.jsonl", "_stdin"
_FORMAT, _VERSION = "m3-encoded", 1


@dataclass(frozen=True, slots=True)
class Job:
    """What is encoded into a folder.

    Attributes:
        folder: The folder.
        model: What it is encoded with.
        input: The input's content, as of ``Source.described``.
        shaping: Options that change the rows, as of ``EncodeOptions.shaping``.
        id_column: Where ids are; ``None`` if documents are numbered.
        shards: All files of it.
        columns: Of metadata.
        skipped: How many rows were left out.
        name: Of what is encoded and how: equal for equal jobs.
    """

    folder: Path
    model: RecordedModel
    input: dict[str, Any]
    shaping: dict[str, Any]
    id_column: str | None
    shards: list[Shard]
    columns: list[Metadata]
    skipped: int
    name: str

    @property
    def rows(self) -> int:
        """Documents of all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def schema(self) -> pa.Schema:
        """Of all shards."""
        keep_text: bool = self.shaping["keep_text"]
        return shard_schema(self.model, self.columns, self.name, keep_text=keep_text)

    def path(self, shard: Shard) -> Path:
        """The file of a shard."""
        return self.folder / shard.name

    def missing(self) -> list[Shard]:
        """Shards that are not written yet; those that are there are checked to be this job's."""
        schema, found = self.schema, []
        for shard in self.shards:
            path = self.path(shard)
            if path.exists():
                check_shard(path, schema, shard.rows)
            else:
                found.append(shard)
        return found

    def to_json(self) -> dict[str, Any]:
        """Write it down."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "name": self.name,
            "model": self.model.to_json(),
            "input": self.input,
            "options": self.shaping,
            "id_column": self.id_column,
            "rows": self.rows,
            "skipped": self.skipped,
            "columns": encoded_schema(self.columns),
            "shards": [shard.to_json() for shard in self.shards],
        }


def read_job(folder: Path) -> Job:
    """Read the job of a folder.

    Args:
        folder: The folder.

    Returns:
        The job.

    Raises:
        FileNotFoundError: There is none.
        DatasetError: What is there is not one.
    """
    path = folder / JOB
    try:
        found = parse_json(path.read_bytes())
        if (found["format"], found["version"]) != (_FORMAT, _VERSION):
            raise ValueError(f"it is {found['format']!r} of version {found['version']!r}")
        return Job(
            folder=folder,
            model=RecordedModel.from_json(found["model"]),
            input=found["input"],
            shaping=found["options"],
            id_column=found["id_column"],
            shards=[Shard.from_json(one) for one in found["shards"]],
            columns=decoded_schema(found["columns"]),
            skipped=found["skipped"],
            name=found["name"],
        )
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder} holds no encoded corpus: there is no {JOB} in it"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} is damaged or of another version: {error}") from error


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep others from encoding into the same folder.

    Args:
        folder: The folder; made if need be.

    Yields:
        While nobody else does.

    Raises:
        DatasetError: Somebody else does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder, wait=False):
            yield
    except BlockingIOError as error:
        raise DatasetError(f"another process is encoding into {folder}") from error


def begin(
    folder: Path,
    source: Source,
    model: RecordedModel,
    options: EncodeOptions,
    progress: Progress,
    *,
    overwrite: bool,
) -> Job:
    """Begin a job, or find the one that was begun.

    Args:
        folder: Where it is written.
        source: The corpus.
        model: What it is encoded with.
        options: How.
        progress: Told how far this has come.
        overwrite: Delete what another job has written there.

    Returns:
        The job.

    Raises:
        DatasetError: Another job was begun there, or the corpus has changed since; or a row
            holds no document.
    """
    if overwrite:
        _clear(folder)
    with progress.bar("Reading", source.size(), "B") as advance:
        described = source.described(advance)
    if (folder / JOB).exists():
        job = read_job(folder)
        _check_same(job, described, model, options)
        return job
    _check_free(folder)
    with progress.bar("Checking", None, "row") as advance:
        plan = make_plan(source, options, advance)
    shaping = options.shaping()
    known = json.dumps([described, shaping, model.fingerprint], sort_keys=True)
    job = Job(
        folder,
        model,
        described,
        shaping,
        plan.id_column,
        plan.shards,
        plan.columns,
        len(plan.skipped),
        hashlib.blake2b(known.encode(), digest_size=8).hexdigest(),
    )
    if plan.skipped:
        with replacing_file(folder / SKIPPED) as file:
            for row in plan.skipped:
                line = json.dumps(asdict(row), ensure_ascii=False, default=repr)
                file.write(line.encode(errors="replace") + b"\n")
    with replacing_file(folder / JOB) as file:
        file.write(json.dumps(job.to_json(), ensure_ascii=False).encode())
    return job


def tidy(job: Job) -> None:
    """Remove what killed processes have left half written."""
    for shard in job.shards:
        remove_leftovers(job.path(shard))


def _check_same(
    job: Job, described: dict[str, Any], model: RecordedModel, options: EncodeOptions
) -> None:
    said = []
    if changed := changes(job.input, described):
        said.append(f"the input has changed since: {changed}")
    if job.model.representations != model.representations:
        before, now = (", ".join(one.representations) for one in (job.model, model))
        said.append(f"it was begun with {before}, asked for are {now}")
    elif job.model.fingerprint != model.fingerprint:
        said.append(
            f"it was begun with the model {job.model.name!r} ({job.model.fingerprint}), now it is "
            f"{model.name!r} ({model.fingerprint})"
        )
    shaping = options.shaping()
    said += [
        f"{name} was {job.shaping.get(name)!r}, now it is {value!r}"
        for name, value in shaping.items()
        if job.shaping.get(name) != value
    ]
    if said:
        raise DatasetError(
            f"{job.folder} holds another job: {'; '.join(said)}. Give the same again to go on "
            "with it, use another folder, or overwrite"
        )


def _check_free(folder: Path) -> None:
    # Of a job that was killed before it was begun.
    remove_leftovers(folder / JOB)
    remove_leftovers(folder / SKIPPED)
    others = sorted(one.name for one in folder.iterdir() if one.name not in (SKIPPED, STDIN))
    if others:
        raise DatasetError(
            f"{folder} holds no encoded corpus but {', '.join(others[:3])}: use an empty folder"
        )


def _clear(folder: Path) -> None:
    """Delete a job; what is no job's is not touched, and stands in the way."""
    if not (folder / JOB).exists():
        return
    for path in folder.glob("part-*.parquet"):
        path.unlink()
        remove_leftovers(path)
    # Last: until then it is a job that lacks shards.
    (folder / SKIPPED).unlink(missing_ok=True)
    (folder / JOB).unlink()
