"""How long a token takes, and so how much work is done within a given time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Pace:
    """Learns from the batches that one device computes, one after the other.

    Args:
        device: Which one.
        seconds: How long a batch shall take.
        least_tokens: Tokens of such a batch at least.
    """

    def __init__(self, device: torch.device, seconds: float, least_tokens: int) -> None:
        self.seconds = seconds
        self.least_tokens = least_tokens
        # The first batch says nothing where it loads the device's kernels.
        self._skips_next = device.type == "cuda"
        self._each = 0.0
        self._finished_at = 0.0

    def tokens(self, most: int) -> int:
        """Tokens of a batch that takes the time.

        Args:
            most: Tokens a batch at most.

        Returns:
            No more than that; just that as long as nothing is known.
        """
        if not self._each:
            return most
        return min(most, max(int(self.seconds / self._each), self.least_tokens))

    def learn(self, tokens: int, began: float, finished: float, most: int) -> None:
        """Learn how long a token of long work takes.

        Of shorter batches a device needs the same time for fewer tokens: long work would be cut
        into batches that leave it idle.

        Args:
            tokens: Of a batch.
            began: When it was started; the one before it may have been at work still.
            finished: When its results were there.
            most: Tokens a batch at most.
        """
        began, self._finished_at = max(began, self._finished_at), finished
        if self._skips_next:
            self._skips_next = False
            return
        usual = self.tokens(most) if self._each else self.least_tokens
        if tokens >= max(usual // 2, 1):
            each = (finished - began) / tokens
            known = self._each or each
            self._each = known + (each - known) / 4
