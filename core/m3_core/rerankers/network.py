"""What every kind of reranker gives to ``Reranker``: a layout of pairs and a score of batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from m3_core.network import Checkpoint, PackedBatch, Tokenizer
    from m3_core.rerankers.pairs import PairLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankerOptions:
    """What changes a reranker's scores without changing its weights.

    Attributes:
        max_length: Tokens a pair at most, special tokens included; a decoder's prompt comes on
            top of it.
        query_max_length: Tokens a query at most, without special tokens; ``None`` for three
            quarters of ``max_length``.
        query_instruction: Put before every query, with no space between; ``""`` for none.
        document_instruction: Put before every document, likewise.
        prompt: The question that follows the pair; for decoders only.
        cutoff_layers: After which layers scores are taken (counted from 1), for layerwise and
            lightweight models; ``None`` for the last one.
        compress_layers: Before which layers a document's tokens are merged (counted from 0), for
            lightweight models.
        compress_ratio: How many neighbouring tokens are merged into one; 1 for none.
    """

    max_length: int = 512
    query_max_length: int | None = None
    query_instruction: str = ""
    document_instruction: str = ""
    prompt: str = ""
    cutoff_layers: tuple[int, ...] | None = None
    compress_layers: tuple[int, ...] = (8,)
    compress_ratio: int = 1


def changed_options(options: RerankerOptions, changes: Mapping[str, Any]) -> RerankerOptions:
    """Give options other values; ``None`` leaves the value.

    Args:
        options: The options.
        changes: New values by name; a single layer stands for a sequence of one.

    Returns:
        Other options.

    Raises:
        TypeError: There is no such option.

    Example:
        >>> changed_options(RerankerOptions(), {"cutoff_layers": 28}).cutoff_layers
        (28,)
    """
    given: dict[str, Any] = {}
    for key, value in changes.items():
        if value is None:
            continue
        if key in ("cutoff_layers", "compress_layers"):
            given[key] = (value,) if isinstance(value, int) else tuple(value)
        else:
            given[key] = value
    return replace(options, **given)


class RerankerNetwork(Protocol):
    """A loaded network of one kind.

    Attributes:
        device: Where it runs.
        dtype: In what data type.
        default_options: What its makers use where the user says nothing.
    """

    device: torch.device
    dtype: torch.dtype
    default_options: RerankerOptions

    def check(self, options: RerankerOptions) -> None:
        """Refuse options that this kind of network does not have.

        Args:
            options: What the user asked for.

        Raises:
            ValueError: An option does not fit.
        """

    def layout(self, tokenizer: Tokenizer, options: RerankerOptions) -> PairLayout:
        """Say what stands around the texts of a pair.

        Args:
            tokenizer: Of the checkpoint.
            options: Their prompt.

        Returns:
            The layout.
        """

    def score(
        self, batch: PackedBatch, documents: NDArray[np.int64], options: RerankerOptions
    ) -> torch.Tensor:
        """Score a batch of pairs.

        Args:
            batch: Their tokens.
            documents: Where in its pair each document begins and ends. Shape: (pairs, 2).
            options: Layers and compression.

        Returns:
            Raw scores, one column a cutoff layer. Shape: (pairs, columns). Dtype: float32.
        """

    def default_token_budget(self) -> int:
        """Tokens a batch at which the device is well used.

        Returns:
            As of ``device.default_token_budget``.
        """


class NetworkLoader(Protocol):
    """What loads a network of one kind."""

    def __call__(
        self, checkpoint: Checkpoint, tokenizer: Tokenizer, device: torch.device, dtype: torch.dtype
    ) -> RerankerNetwork:
        """Load it.

        Args:
            checkpoint: The folder and its configuration.
            tokenizer: Of the checkpoint.
            device: Where the network shall run.
            dtype: In what data type.

        Returns:
            The network.
        """
