"""Memory that does not suffice: how torch says it, and how large batches are from then on."""

from __future__ import annotations

import torch

# So many full batches fit into memory before the next ones are larger; at most, where larger ones
# failed again and again.
FULL_BATCHES = 32
MOST_FULL_BATCHES = 1024

_OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "ALLOC_FAILED")


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


class TokenBudget:
    """Tokens a batch at most: halved when memory runs out, larger again when there may be more.

    Args:
        whole: Tokens where memory suffices.

    Attributes:
        tokens: Tokens a batch at most, now.
    """

    def __init__(self, whole: int) -> None:
        self.whole = whole
        self.tokens = whole
        self._fitted = 0
        self._patience = FULL_BATCHES
        self._has_grown = False

    def halve(self, tokens: int) -> None:
        """Make batches smaller.

        Args:
            tokens: Of a batch that did not fit.
        """
        self.tokens = max(min(self.tokens, tokens) // 2, 1)
        self._fitted = 0
        if self._has_grown:
            self._has_grown = False
            self._patience = min(2 * self._patience, MOST_FULL_BATCHES)

    def fitted(self, tokens: int) -> bool:
        """Learn of a batch that fitted; of small ones nothing follows for larger ones.

        Args:
            tokens: Its tokens.

        Returns:
            Whether batches may be larger from now on: by a quarter of the whole.
        """
        if 2 * tokens <= self.tokens:
            return False
        self._fitted += 1
        if self._fitted < self._patience:
            return False
        self._fitted = 0
        if self.tokens >= self.whole:
            self._patience = FULL_BATCHES
            return False
        self.tokens = min(self.tokens + max(self.whole // 4, 1), self.whole)
        self._has_grown = True
        return True
