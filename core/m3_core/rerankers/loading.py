"""Loading a reranker's checkpoint: which kind it is, and the network of that kind."""

from __future__ import annotations

import importlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import torch

from m3_core.checkpoint import locate, read_checkpoint
from m3_core.device import resolve_device, resolve_dtype
from m3_core.errors import ClosedError, UnsupportedModelError
from m3_core.execution import BatchRunner
from m3_core.tokens import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from m3_core.checkpoint import Checkpoint
    from m3_core.rerankers.network import NetworkLoader, RerankerNetwork

RerankerKind = Literal["cross-encoder", "llm", "layerwise", "lightweight"]
ASYNC_WORKERS = 4

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


class RerankerModel:
    """A loaded checkpoint, shared by all rerankers over it.

    Args:
        checkpoint: What its small files say.
        kind: Which kind of reranker it is.
        tokenizer: Its tokenizer.
        network: Its network.
        token_budget: Tokens a batch at most; chosen from the device if ``None``.
        source: The arguments that load it again.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        kind: RerankerKind,
        tokenizer: Tokenizer,
        network: RerankerNetwork,
        token_budget: int | None,
        source: Mapping[str, Any],
    ) -> None:
        self.checkpoint = checkpoint
        self.kind = kind
        self.tokenizer = tokenizer
        self.runner = BatchRunner(network.device, token_budget or network.default_token_budget())
        self.source = source
        self.device = network.device
        self.dtype = network.dtype
        self.default_options = network.default_options
        self.executor = ThreadPoolExecutor(ASYNC_WORKERS, thread_name_prefix="m3-reranker")
        self._network: RerankerNetwork | None = network

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        token_budget: int | None = None,
        **where: Any,
    ) -> RerankerModel:
        """Load a checkpoint of a reranker.

        Args:
            name: A folder or a hub repository.
            device: Where the network shall run.
            dtype: In what data type.
            token_budget: Tokens a batch at most.
            **where: As of ``checkpoint.locate``.

        Returns:
            The model.

        Raises:
            UnsupportedModelError: It is no reranker, or of an architecture not known here.
            CheckpointError: The files are absent, unreadable or incomplete.
        """
        chosen_device = resolve_device(device)
        chosen_dtype = resolve_dtype(dtype, chosen_device)
        checkpoint = read_checkpoint(locate(name, **where), str(name))
        kind = reranker_kind(checkpoint.config, str(name))
        tokenizer = Tokenizer.from_folder(checkpoint.folder)
        module, loader = _NETWORKS[kind]
        load: NetworkLoader = getattr(importlib.import_module(module), loader).load
        network = load(checkpoint, tokenizer, chosen_device, chosen_dtype)
        source = dict(where, name=str(name), device=device, dtype=dtype, token_budget=token_budget)
        return cls(checkpoint, kind, tokenizer, network, token_budget, source)

    @property
    def network(self) -> RerankerNetwork:
        """The network.

        Raises:
            ClosedError: The model was closed.
        """
        if self._network is None:
            raise ClosedError(f"the reranker of {self.checkpoint.name!r} was closed: load it again")
        return self._network

    @property
    def closed(self) -> bool:
        """Whether the network is gone."""
        return self._network is None

    def check_length(self, max_length: int) -> None:
        """Refuse a length that the network does not take.

        Args:
            max_length: Tokens a pair at most.

        Raises:
            ValueError: It is longer than the network's positions.
        """
        positions = self.checkpoint.positions
        if max_length > positions:
            raise ValueError(
                f"max_length is {max_length}; {self.checkpoint.name!r} takes up to {positions} "
                "tokens"
            )

    def close(self) -> None:
        """Let go of the network and its memory."""
        network, self._network = self._network, None
        if network is None:
            return
        self.executor.shutdown(wait=True)
        on_cuda = network.device.type == "cuda"
        del network
        if on_cuda:
            torch.cuda.empty_cache()


_shared: dict[Any, RerankerModel] = {}
_shared_lock = threading.Lock()


def shared_reranker_model(**source: Any) -> RerankerModel:
    """Load a checkpoint once for the whole process, or return it if it is loaded already.

    Args:
        **source: As of ``RerankerModel.load``.

    Returns:
        The same object for the same arguments, from any thread; loaded anew after ``close()``.
    """
    key = tuple(sorted((name, str(value)) for name, value in source.items()))
    with _shared_lock:
        model = _shared.get(key)
        if model is None or model.closed:
            model = _shared[key] = RerankerModel.load(**source)
        return model
