"""A connection to Ray, for what runs on several machines."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from m3_core.extras import needs_extra

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def connected(address: str, what: str, *, namespace: str | None = None) -> Iterator[None]:
    """Connect to Ray, unless that was done before, and disconnect.

    Args:
        address: ``"local"`` starts Ray on this machine and ends it; ``"auto"`` finds the cluster
            that runs here; else a cluster's address, as ``ray.init`` takes it.
        what: What needs it, for the error.
        namespace: Of named actors.

    Yields:
        While connected.

    Raises:
        MissingPackageError: Ray is not installed.
        ConnectionError: There is no cluster of that address.
    """
    with needs_extra(what, "ray", "ray"):
        import ray
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        # What other processes print would come between the lines of this one's output.
        ray.init(
            address=address,
            namespace=namespace,
            log_to_driver=False,
            logging_level=logging.WARNING,
            **options,
        )
    except (ConnectionError, ValueError) as error:
        raise ConnectionError(
            f"there is no Ray at {address!r} ({error}): name its address, or 'local'"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def shares(
    number: int | None, num_cpus: float | None, num_gpus: float | None
) -> tuple[int, dict[str, Any]]:
    """Divide what the cluster has among processes that hold a model each.

    Args:
        number: Of processes; by default one a GPU, or one a machine where there are none.
        num_cpus: Of each; by default one beside a GPU, else its share of all.
        num_gpus: Of each; by default one where there are some.

    Returns:
        How many processes, and what each asks Ray for.

    Raises:
        ValueError: There are to be none.
    """
    import ray

    if number is not None and number < 1:
        raise ValueError(f"there must be at least one process; got {number}")
    cluster: Any = ray
    everything = cluster.cluster_resources()
    gpus = everything.get("GPU", 0.0)
    each = float(gpus >= 1) if num_gpus is None else num_gpus
    machines = len([node for node in cluster.nodes() if node["Alive"]])
    processes = number or max(int(gpus // each) if each else machines, 1)
    if num_cpus is None:
        num_cpus = 1.0 if each else float(max(everything.get("CPU", 1.0) // processes, 1))
    return processes, {"num_cpus": num_cpus, "num_gpus": each}
