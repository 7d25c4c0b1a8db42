"""Batches through a network: the next is prepared while the device computes the current one.

A batch that does not fit into memory is handed out again in halves, and the budget stays halved.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch

from m3_core.batches import Batches
from m3_core.errors import OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from numpy.typing import NDArray

    from m3_core.batches import PackedBatch
    from m3_core.tokens import TokenBatch

P = ParamSpec("P")
T = TypeVar("T")

_OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "ALLOC_FAILED")


@dataclass(slots=True)
class _Pending:
    """Results of a batch on their way to the host."""

    batch: PackedBatch
    tensors: dict[str, torch.Tensor]
    copied: torch.cuda.Event | None

    def arrays(self) -> dict[str, NDArray[Any]]:
        if self.copied is not None:
            self.copied.synchronize()
        return {name: tensor.numpy() for name, tensor in self.tensors.items()}


class BatchRunner:
    """Runs texts through a function of batches; safe under threads.

    Args:
        device: Where the function computes.
        token_budget: Tokens a batch at most; it shrinks where memory does not suffice.
    """

    def __init__(self, device: torch.device, token_budget: int) -> None:
        self.device = device
        self.token_budget = token_budget
        self._lock = threading.Lock()

    def run(
        self,
        tokens: TokenBatch,
        compute: Callable[[PackedBatch], dict[str, torch.Tensor]],
        collect: Callable[[PackedBatch, dict[str, NDArray[Any]]], object],
        progress: Callable[[int], object] | None = None,
    ) -> None:
        """Compute all texts, the longest first.

        Args:
            tokens: The texts.
            compute: Starts the computation of a batch; one call at a time.
            collect: Takes each batch with its results on the host.
            progress: Called with the number of texts each time some are done.

        Raises:
            OutOfMemoryError: A single text does not fit into memory.
        """
        batches = Batches(tokens)
        pending: _Pending | None = None
        while pending is not None or not batches.finished:
            launched = None
            if not batches.finished:
                batch = batches.take(self.token_budget)
                launched = self._launch(batch, compute)
                if launched is None:
                    batches.put_back(batch)
                    self._shrink(batch, last_resort=pending is None)
            if pending is not None:
                collect(pending.batch, pending.arrays())
                if progress is not None:
                    progress(len(pending.batch.rows))
            pending = launched

    def _shrink(self, batch: PackedBatch, *, last_resort: bool) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(batch.rows) > 1:
            self.token_budget = max(min(self.token_budget, len(batch.ids)) // 2, 1)
        elif last_resort:
            raise OutOfMemoryError(
                f"text {batch.rows[0]} of {len(batch.ids)} tokens does not fit into the memory of "
                f"{self.device} even alone: pass a smaller max_length or split the text"
            )

    def _launch(
        self, batch: PackedBatch, compute: Callable[[PackedBatch], dict[str, torch.Tensor]]
    ) -> _Pending | None:
        """Start computing a batch; None if memory did not suffice."""
        try:
            with self._lock, torch.inference_mode():
                return self._to_host(batch, compute(batch))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Only here has the traceback let go of the failed batch's tensors.
        return None

    def _to_host(self, batch: PackedBatch, tensors: dict[str, torch.Tensor]) -> _Pending:
        on_host = {name: t.to("cpu", non_blocking=True) for name, t in tensors.items()}
        copied = None
        if self.device.type == "cuda":
            copied = torch.cuda.Event()
            copied.record(torch.cuda.current_stream(self.device))
        elif self.device.type == "mps":
            torch.mps.synchronize()
        return _Pending(batch, on_host, copied)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory did not suffice.

    Args:
        error: What torch raised.

    Returns:
        True for CUDA's and MPS's own types and for the CPU allocator's RuntimeError.

    Example:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
        True
        >>> is_out_of_memory(RuntimeError("shape mismatch"))
        False
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in _OUT_OF_MEMORY)


async def run_in_executor(
    executor: Executor, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run a blocking function in a thread, with the caller's context.

    Args:
        executor: Has the threads.
        function: The function.
        *args: Its arguments.
        **kwargs: Its keywords.

    Returns:
        Its result.
    """
    context = contextvars.copy_context()
    call = functools.partial(context.run, functools.partial(function, *args, **kwargs))
    return await asyncio.get_running_loop().run_in_executor(executor, call)
