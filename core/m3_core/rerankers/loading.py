"""Loading a reranker's checkpoint: which kind it is, and the network of that kind."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Literal, cast

from m3_core.errors import UnsupportedModelError
from m3_core.extras import needs_extra
from m3_core.network import locate, read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from m3_core.network import Checkpoint, PackedBatch, Results, Source, Tokenizer
    from m3_core.rerankers.network import NetworkLoader, RerankerNetwork, RerankerOptions

RerankerKind = Literal["cross-encoder", "llm", "layerwise", "lightweight"]

_NETWORKS: Mapping[RerankerKind, tuple[str, str]] = {
    "cross-encoder": ("m3_core.rerankers.cross_encoder", "CrossEncoder"),
    "llm": ("m3_core.rerankers.llm", "CausalReranker"),
    "layerwise": ("m3_core.rerankers.layerwise", "LayerwiseReranker"),
    "lightweight": ("m3_core.rerankers.lightweight", "LightweightReranker"),
}
# What an architecture's name contains, the most telling first.
_ARCHITECTURES: tuple[tuple[str, RerankerKind], ...] = (
    ("LayerWise", "layerwise"),
    ("CostWise", "lightweight"),
    ("ForSequenceClassification", "cross-encoder"),
    ("ForCausalLM", "llm"),
)


def reranker_kind(config: Mapping[str, Any], name: str) -> RerankerKind:
    """Tell from ``config.json`` which kind of reranker a checkpoint holds.

    Args:
        config: Its content.
        name: What the user asked for, for the error text.

    Returns:
        The kind.

    Raises:
        UnsupportedModelError: It is no reranker.

    Example:
        >>> reranker_kind({"architectures": ["XLMRobertaForSequenceClassification"]}, "x")
        'cross-encoder'
        >>> reranker_kind({"architectures": ["GemmaForCausalLM"]}, "x")
        'llm'
    """
    architectures = [str(entry) for entry in config.get("architectures") or ()]
    for mark, kind in _ARCHITECTURES:
        if any(mark in architecture for architecture in architectures):
            return kind
    raise UnsupportedModelError(
        f"{name!r} has the architecture {', '.join(architectures) or 'of an unnamed kind'}; a "
        "reranker is a sequence classifier or a causal language model. To encode texts load it "
        "with Encoder.from_pretrained"
    )


def reranker_kind_at(name: str | Path, **where: Any) -> RerankerKind:
    """Tell which kind of reranker a folder or repository holds, without loading its network.

    Args:
        name: A folder or a hub repository.
        **where: As of ``checkpoint.locate``.

    Returns:
        As of ``reranker_kind``.
    """
    return reranker_kind(read_checkpoint(locate(name, **where), str(name)).config, str(name))


class RerankerProgram:
    """A reranker's network as the engine runs it.

    Args:
        kind: Which kind of reranker it is.
        network: Its network.
    """

    def __init__(self, kind: RerankerKind, network: RerankerNetwork) -> None:
        self.kind = kind
        self.network = network
        self.device = network.device
        self.dtype = network.dtype

    def default_token_budget(self) -> int:
        """Tokens a batch at which the device is well used."""
        return self.network.default_token_budget()

    def compute(
        self, batch: PackedBatch, tasks: Sequence[tuple[Hashable, NDArray[np.int64]]]
    ) -> list[Results]:
        """Start scoring a batch of pairs.

        Args:
            batch: Their tokens, and where their documents are.
            tasks: One ``RerankerOptions``: pairs with others do not share a pass.

        Returns:
            ``scores``, of shape (pairs, cutoff layers).
        """
        ((options, _),) = tasks
        documents = cast("NDArray[np.int64]", batch.documents)
        scores = self.network.score(batch, documents, cast("RerankerOptions", options))
        return [{"scores": scores}]


def load_reranker(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    device: torch.device,
    dtype: torch.dtype,
    source: Source,
) -> RerankerProgram:
    """Load the network of a reranker's checkpoint.

    Args:
        checkpoint: Its folder and configuration.
        tokenizer: Its tokenizer.
        device: Where it shall run.
        dtype: In what data type.
        source: Not needed: no model here runs code of its checkpoint.

    Returns:
        The network.

    Raises:
        UnsupportedModelError: It is no reranker, or of an architecture not known here.
        CheckpointError: The files are absent, unreadable or incomplete.
        MissingPackageError: It needs transformers, which is not installed.
    """
    kind = reranker_kind(checkpoint.config, checkpoint.name)
    module, loader = _NETWORKS[kind]
    what = f"{checkpoint.name!r}, a reranker of kind {kind!r},"
    with needs_extra(what, "transformers", "transformers"):
        load: NetworkLoader = getattr(importlib.import_module(module), loader).load
        return RerankerProgram(kind, load(checkpoint, tokenizer, device, dtype))
