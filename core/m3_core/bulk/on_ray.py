"""Encoding shards on many machines, with Ray Data.

The plan is that of one machine: each actor reads the rows of a shard, encodes them and writes the
file, so that no vector passes through the driver or Ray's object store.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from m3_core.bulk.encoding import encode_shards as encode_here
from m3_core.bulk.recorded import RecordedModel
from m3_core.encoder import TextEncoder
from m3_core.errors import DatasetError, M3Error
from m3_core.extras import needs_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from m3_core.bulk.inputs import Source
    from m3_core.bulk.jobs import Job
    from m3_core.bulk.options import EncodeOptions
    from m3_core.bulk.plan import Shard


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


@contextmanager
def connected(options: RayOptions) -> Iterator[None]:
    """Connect to Ray, unless that was done before.

    Args:
        options: With the address.

    Yields:
        While connected.

    Raises:
        MissingPackageError: Ray is not installed.
        DatasetError: There is no cluster of that address.
    """
    with needs_extra("encoding with Ray", "ray", "ray"):
        import ray
    if ray.is_initialized():
        yield
        return
    try:
        # What processes print would come out between the lines of the command's own output.
        ray.init(address=options.address, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise DatasetError(
            f"there is no Ray at {options.address!r} ({error}): name its address, or 'local'"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


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

    _, resources = _shares(ray_options)
    # The process ends with the task, and with it the model.
    remote = ray.remote(max_calls=1, **resources)(_describe)
    with _causes():
        described: RecordedModel = ray.get(remote.remote(make, options.representations))
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

    actors, resources = _shares(ray_options)
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
        with _causes():
            for row in written.iter_rows():
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
        self._encoder = make()
        self._job, self._source, self._options = job, source, options
        parts = job.model.representations
        job.model.check(self._encoder, parts, str(job.folder))
        self._shards = {shard.number: shard for shard in job.shards}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Encode shards and write them.

        Args:
            batch: Their numbers under ``"shard"``.

        Returns:
            How many documents each has, beside.
        """
        written = [
            sum(
                encode_here(
                    self._job,
                    self._source,
                    self._options,
                    [self._shards[int(number)]],
                    self._encoder,
                )
            )
            for number in batch["shard"]
        ]
        return {"shard": batch["shard"], "documents": written}


def _shares(options: RayOptions) -> tuple[int, dict[str, float]]:
    """How many processes, and what each gets."""
    import ray

    everything = ray.cluster_resources()
    gpus = everything.get("GPU", 0.0)
    each = options.num_gpus if options.num_gpus is not None else float(gpus >= 1)
    machines = sum(1 for node in ray.nodes() if node["Alive"])
    actors = options.num_actors or (int(gpus // each) if each else machines)
    cpus = options.num_cpus
    if cpus is None:
        cpus = 1.0 if each else float(max(everything.get("CPU", 1.0) // actors, 1))
    return max(actors, 1), {"num_cpus": cpus, "num_gpus": each}


@contextmanager
def _causes() -> Iterator[None]:
    """Raise what a process of Ray raised, not Ray's report of it."""
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        cause: BaseException | None = error
        while cause is not None:
            original = getattr(cause, "cause", None)
            for one in (original, cause):
                if isinstance(one, (M3Error, OSError, ValueError, TypeError)):
                    raise one from error
            cause = cause.__cause__
        raise DatasetError(f"Ray could not encode: {error}") from error
