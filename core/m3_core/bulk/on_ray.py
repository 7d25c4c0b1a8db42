"""Encoding shards on many machines, with Ray Data.

The plan is that of one machine: each actor reads the rows of a shard, encodes them and writes the
file, so that no vector passes through the driver or Ray's object store.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from m3_core import errors
from m3_core.bulk.encoding import encode_shards as encode_here
from m3_core.bulk.recorded import RecordedModel
from m3_core.encoder import TextEncoder
from m3_core.errors import DatasetError, M3Error
from m3_core.ray_cluster import shares

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from m3_core.bulk.inputs import Source
    from m3_core.bulk.jobs import Job
    from m3_core.bulk.options import EncodeOptions
    from m3_core.bulk.plan import Shard


# What encoding raises on purpose, here or in another process.
_EXPECTED = (M3Error, OSError, ValueError, TypeError)


@dataclass(frozen=True, slots=True)
class RayOptions:
    """Where and with how many processes Ray encodes.

    Args:
        address: ``"local"`` starts Ray on this machine and ends it; ``"auto"`` finds the cluster
            that runs here; else a cluster's address, as ``ray.init`` takes it. A Ray that the
            process is connected to already is used as it is.
        num_actors: Processes that encode, each with a model of its own; by default one a GPU of
            the cluster, or one a machine where there are none.
        num_cpus: CPUs of each; by default one beside a GPU, else its share of all.
        num_gpus: GPUs of each; by default one where there are some.
    """

    address: str = "auto"
    num_actors: int | None = None
    num_cpus: float | None = None
    num_gpus: float | None = None

    def __post_init__(self) -> None:
        if self.num_actors is not None and self.num_actors < 1:
            raise ValueError(f"num_actors must be at least 1; got {self.num_actors}")


def check(encoder: Any, source: Any) -> None:
    """Refuse what cannot be sent to other processes.

    Args:
        encoder: As of ``encode_dataset``.
        source: Likewise.

    Raises:
        TypeError: The encoder is loaded already.
        ValueError: The source is a stream.
    """
    if isinstance(encoder, TextEncoder) and not isinstance(encoder, type):
        raise TypeError(
            "with Ray each process loads its own encoder: give the name of a model, or a function "
            "that makes one"
        )
    if hasattr(source, "read"):
        raise ValueError("a stream can be read by one process alone: with Ray, give a file")


def describe(
    make: Callable[[], TextEncoder], options: EncodeOptions, ray_options: RayOptions
) -> RecordedModel:
    """Describe a model, loading it where one of the processes will be.

    Args:
        make: Loads it.
        options: Of the job.
        ray_options: Of Ray.

    Returns:
        The description.
    """
    import ray

    _, resources = shares(ray_options.num_actors, ray_options.num_cpus, ray_options.num_gpus)
    # The process ends with the task, and with it the model.
    remote = ray.remote(max_calls=1, **resources)(_describe)
    try:
        described: RecordedModel = ray.get(remote.remote(make, options.representations))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, _EXPECTED):
            raise error.cause from error
        raise
    return described


def _describe(make: Callable[[], TextEncoder], parts: Sequence[str] | None) -> RecordedModel:
    return RecordedModel.of(make(), parts)


def encode_shards(
    job: Job,
    source: Source,
    options: EncodeOptions,
    shards: Sequence[Shard],
    make: Callable[[], TextEncoder],
    ray_options: RayOptions,
) -> Iterator[int]:
    """Encode shards and write them.

    Args:
        job: The job.
        source: The corpus.
        options: Of the job.
        shards: Those to encode.
        make: Loads the encoder.
        ray_options: Of Ray.

    Yields:
        Numbers of documents, as they are written.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    actors, resources = shares(ray_options.num_actors, ray_options.num_cpus, ray_options.num_gpus)
    context = DataContext.get_current()
    shows, context.enable_progress_bars = context.enable_progress_bars, False
    try:
        numbers = [{"shard": shard.number} for shard in shards]
        written = ray.data.from_items(numbers, override_num_blocks=len(numbers)).map_batches(
            ShardEncoder,
            batch_size=1,
            compute=ActorPoolStrategy(size=min(actors, len(numbers))),
            fn_constructor_args=(make, job, source, options),
            **resources,
        )
        for row in written.iter_rows():
            if row["error"]:
                raise _error(row["error"], row["message"])
            yield int(row["documents"])
    finally:
        context.enable_progress_bars = shows


class ShardEncoder:
    """A process of Ray Data that holds a model.

    Args:
        make: Loads it.
        job: The job.
        source: The corpus.
        options: Of the job.
    """

    def __init__(
        self,
        make: Callable[[], TextEncoder],
        job: Job,
        source: Source,
        options: EncodeOptions,
    ) -> None:
        self._make = make
        self._encoder: TextEncoder | None = None
        self._job, self._source, self._options = job, source, options
        self._shards = {shard.number: shard for shard in job.shards}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Encode shards and write them.

        Args:
            batch: Their numbers under ``"shard"``.

        Returns:
            How many documents each has; and errors, of which Ray would keep no more than a text.
        """
        rows = [self._written(int(number)) for number in batch["shard"]]
        return {key: [row[key] for row in rows] for key in rows[0]}

    def _written(self, number: int) -> dict[str, Any]:
        documents, error, message = 0, "", ""
        try:
            shards = [self._shards[number]]
            encoder = self._loaded()
            for count in encode_here(self._job, self._source, self._options, shards, encoder):
                documents += count
        except _EXPECTED as raised:
            error, message = type(raised).__name__, str(raised)
        return {"documents": documents, "error": error, "message": message}

    def _loaded(self) -> TextEncoder:
        if self._encoder is None:
            encoder = self._make()
            self._job.model.check(encoder, self._job.model.representations, str(self._job.folder))
            self._encoder = encoder
        return self._encoder


def _error(kind: str, message: str) -> Exception:
    made: type[Exception] = getattr(errors, kind, getattr(builtins, kind, DatasetError))
    return made(message)
