"""Between host and device, so that either goes on working while the other does.

On CUDA copies go through page-locked memory: from any other the host would wait until all that was
started before has been computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


Results = dict[str, "torch.Tensor | NDArray[Any]"]


def to_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Bring an array to a device without waiting for what is computed there.

    Args:
        array: The array; it may be changed or freed right after.
        device: Where to.

    Returns:
        A tensor of its shape and type; on a CPU it shares the array's memory.
    """
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    # torch hands the page-locked copy out again only after it has been read.
    return tensor.pin_memory().to(device, non_blocking=True)


class Arriving:
    """Results on their way to the host.

    Args:
        on_host: Where they arrive.
        sources: What they are copied from: kept until then, since that memory belongs to another
            stream, which might write to it.
        copied: When all have arrived; ``None`` if they are there.
    """

    __slots__ = ("_copied", "_on_host", "_sources")

    def __init__(
        self,
        on_host: Sequence[Results],
        sources: Sequence[Results] = (),
        copied: torch.cuda.Event | None = None,
    ) -> None:
        self._on_host = on_host
        self._sources = sources
        self._copied = copied

    def arrays(self) -> list[dict[str, NDArray[Any]]]:
        """Wait for them.

        Returns:
            Arrays in page-locked memory where they come from CUDA: to be copied, not to be kept.
        """
        if self._copied is not None:
            self._copied.synchronize()
            self._sources = ()
        return [{key: _array(value) for key, value in r.items()} for r in self._on_host]


class ToHost:
    """Brings results from a device while it computes the next batch.

    Args:
        device: Where they come from.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def start(self, results: Sequence[Results]) -> Arriving:
        """Start copying what was just started to be computed.

        Args:
            results: Tensors on the device, or arrays on the host.

        Returns:
            The results on their way.
        """
        if self._stream is None:
            on_host = [_copied(result) for result in results]
            if self.device.type == "mps":
                torch.mps.synchronize()
            return Arriving(on_host)
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            on_host = [_copied(result) for result in results]
        copied = torch.cuda.Event()
        copied.record(self._stream)
        return Arriving(on_host, results, copied)


def _copied(result: Mapping[str, torch.Tensor | NDArray[Any]]) -> Results:
    # From CUDA without waiting means to page-locked memory.
    return {
        key: value.to("cpu", non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in result.items()
    }


def _array(value: torch.Tensor | NDArray[Any]) -> NDArray[Any]:
    return value.numpy() if isinstance(value, torch.Tensor) else value
