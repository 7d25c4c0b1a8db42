"""What an encoder's network must be able to do, whatever runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from m3_core.extras import needs_extra

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from m3_core.network.batches import PackedBatch
    from m3_core.network.checkpoint import Checkpoint
    from m3_core.network.source import Source


class Backbone(Protocol):
    """From packed token ids to hidden states.

    Attributes:
        device: Where it runs.
        dtype: In what data type it computes.
        hidden_size: Width of the hidden states.
    """

    device: torch.device
    dtype: torch.dtype
    hidden_size: int

    def forward(
        self, batch: PackedBatch, token_types: NDArray[np.int64] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the network over a batch; what a text gets does not depend on its neighbours.

        Args:
            batch: The texts.
            token_types: Segment of each token of pairs. Shape: (tokens,). All 0 if ``None``.

        Returns:
            Hidden states of the last layer, shape (tokens, hidden), and the batch's offsets on the
            device, shape (texts + 1,), int64.
        """

    def default_token_budget(self) -> int:
        """Tokens a batch at which the device is well used."""


def load_backbone(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, source: Source
) -> Backbone:
    """Load the network of an encoder's checkpoint with the runtime that fits it.

    Args:
        checkpoint: Its folder and configuration.
        device: Where it shall run.
        dtype: In what data type.
        source: What the user asked for.

    Returns:
        Our own packed network for XLM-R, RoBERTa and BERT, transformers' for what that does not
        compute.

    Raises:
        UnsupportedModelError: The architecture is not known here.
        CheckpointError: The files are absent, unreadable or incomplete.
        MissingPackageError: It needs transformers, which is not installed.
    """
    from m3_core.network.packed import PackedBackbone, is_packable

    own_code = source.trust_remote_code
    if is_packable(checkpoint, trust_remote_code=own_code):
        return PackedBackbone.load(checkpoint, device, dtype)
    from m3_core.network.transformers_network import TransformersBackbone

    what = f"{checkpoint.name!r}, which is no plain XLM-R, RoBERTa or BERT,"
    with needs_extra(what, "transformers", "transformers"):
        return TransformersBackbone.load(checkpoint, device, dtype, trust_remote_code=own_code)
