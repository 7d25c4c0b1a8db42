"""The model in training: a transformers network with the two heads, over padded batches."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint as recompute

from m3_core.encoder import dense_vectors, token_weights
from m3_core.errors import UnsupportedModelError
from m3_core.extras import needs_extra
from m3_core.network import (
    MODEL_TYPES,
    Head,
    Tokenizer,
    Weights,
    is_blocked,
    load_network,
    locate,
    network_config,
    read_checkpoint,
    read_heads,
)
from m3_core.training.padded import Encoded

if TYPE_CHECKING:
    from pathlib import Path

    from m3_core.network import Pooling


class FreshHeadsWarning(UserWarning):
    """The base model has no M3 heads: they start random and mean nothing before training."""


class TrainableM3(torch.nn.Module):
    """A network and its heads, trained together or the heads alone.

    Args:
        network: A transformers encoder without pooling layer.
        sparse_linear: Lexical head.
        colbert_linear: Multi-vector head.
        tokenizer: Says which ids carry no lexical weight.
        pooling: How the dense vector is taken.
        source: Folder whose tokenizer and prompts go into saved checkpoints.
    """

    unweighted: torch.Tensor

    def __init__(
        self,
        network: Any,
        sparse_linear: torch.nn.Linear,
        colbert_linear: torch.nn.Linear,
        *,
        tokenizer: Tokenizer,
        pooling: Pooling,
        source: Path,
    ) -> None:
        super().__init__()
        self.network = network
        self.sparse_linear = sparse_linear
        self.colbert_linear = colbert_linear
        self.tokenizer = tokenizer
        self.pooling: Pooling = pooling
        self.source = source
        self.sub_batch_tokens: int | None = None
        self.frozen_backbone = False
        unweighted = torch.zeros(network.config.vocab_size, dtype=torch.bool)
        known = tokenizer.unweighted_ids[tokenizer.unweighted_ids < len(unweighted)]
        unweighted[torch.from_numpy(known.astype(np.int64))] = True
        self.register_buffer("unweighted", unweighted, persistent=False)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, pooling: Pooling | None = None, seed: int = 0, **where: Any
    ) -> TrainableM3:
        """Load a checkpoint for training, in float32; heads it lacks start fresh.

        Args:
            name: A local folder or a hub repository.
            pooling: How the dense vector is taken; by default as the checkpoint says, else CLS.
            seed: Of fresh heads.
            **where: As of ``checkpoint.locate``.

        Returns:
            The model.

        Raises:
            UnsupportedModelError: The network is of another architecture.
            MissingPackageError: The extra ``train`` is not installed.
            CheckpointError: The files are absent, unreadable, incomplete or of another model.

        Warns:
            FreshHeadsWarning: The checkpoint has no heads.
        """
        with needs_extra("training", "train", "transformers"):
            from transformers import AutoModel

        folder = locate(name, **where)
        checkpoint = read_checkpoint(folder, str(name))
        model_type = checkpoint.config["model_type"]
        if model_type not in MODEL_TYPES:
            raise UnsupportedModelError(
                f"{str(name)!r} is of type {model_type!r}; training takes {', '.join(MODEL_TYPES)}"
            )
        options: dict[str, Any] = {"attn_implementation": "sdpa", "add_pooling_layer": False}
        network: Any
        if is_blocked(folder):
            network = _from_blocks(folder, **options)
        else:
            network = load_network(
                AutoModel.from_pretrained,
                checkpoint,
                torch.float32,
                config=network_config(checkpoint),
                **options,
            )
        stored = read_heads(folder, network.config.hidden_size, required=False)
        if stored is None:
            warnings.warn(
                f"{str(name)!r} has no sparse_linear.pt and colbert_linear.pt: both heads start "
                "from random weights, and lexical and multi-vector results mean nothing before "
                "they are trained",
                FreshHeadsWarning,
                stacklevel=2,
            )
        linears = fresh_heads(network.config.hidden_size, seed) if stored is None else stored
        sparse, colbert = (h if isinstance(h, torch.nn.Linear) else _linear(h) for h in linears)
        tokenizer = Tokenizer.from_folder(folder, network.config.vocab_size)
        return cls(
            network,
            sparse,
            colbert,
            tokenizer=tokenizer,
            pooling=pooling or checkpoint.pooling or "cls",
            source=folder,
        )

    @property
    def config(self) -> Any:
        """Configuration of the network, which ``Trainer`` reads."""
        return self.network.config

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.sparse_linear.weight.device

    def freeze(self, *parts: str) -> None:
        """Keep the weights of some parts as they are and train the rest.

        Args:
            *parts: ``"network"`` (it then also runs without dropout), ``"sparse"``,
                ``"colbert"``; none to train everything again.

        Raises:
            ValueError: There is no such part, or nothing would be left to train.
        """
        known = {
            "network": self.network,
            "sparse": self.sparse_linear,
            "colbert": self.colbert_linear,
        }
        unknown = sorted(set(parts) - known.keys())
        if unknown or len(set(parts)) == len(known):
            raise ValueError(
                f"cannot freeze {', '.join(unknown or parts)}: parts are {', '.join(known)}, and "
                "one must be left to train"
            )
        for name, module in known.items():
            module.requires_grad_(name not in parts)
        self.frozen_backbone = "network" in parts
        self.train(self.training)

    def train(self, mode: bool = True) -> TrainableM3:  # noqa: FBT001, FBT002 - torch's signature
        """Switch dropout on or off; a frozen network stays without it.

        Args:
            mode: Whether training begins.

        Returns:
            The model itself.
        """
        super().train(mode)
        if self.frozen_backbone:
            self.network.eval()
        return self

    def hidden_states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Run the network.

        Args:
            ids: Shape: (texts, tokens). Dtype: int64.
            mask: 1 for real tokens, of the same shape.

        Returns:
            Shape: (texts, tokens, hidden).
        """
        # Without positions of our own, transformers takes them from the ids.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen_backbone):
            states: torch.Tensor = self.network(input_ids=ids, attention_mask=mask)[0]
        return states

    def represent(
        self, hidden: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, *, unified: bool = True
    ) -> Encoded:
        """Apply pooling and heads to hidden states.

        Args:
            hidden: Shape: (texts, tokens, hidden).
            ids: Shape: (texts, tokens).
            mask: 1 for real tokens, of the same shape.
            unified: Whether to give lexical weights and multi-vectors too.

        Returns:
            The representations.
        """
        dense = dense_vectors(_pooled(hidden, mask, self.pooling))
        if not unified:
            return Encoded(dense, None, None, mask[:, 1:])
        head = Head(self.sparse_linear.weight, self.sparse_linear.bias)
        weights = token_weights(hidden, head).float()
        weights = weights * (mask * ~self.unweighted[ids])
        sparse = weights.new_zeros(len(ids), len(self.unweighted))
        sparse = sparse.scatter_reduce(1, ids, weights, "amax")
        vectors = self.colbert_linear(hidden[:, 1:]).float() * mask[:, 1:, None]
        return Encoded(dense, sparse, functional.normalize(vectors, dim=-1), mask[:, 1:])

    def forward(
        self,
        query_ids: torch.Tensor,
        query_mask: torch.Tensor,
        document_ids: torch.Tensor,
        document_mask: torch.Tensor,
        *,
        unified: bool = True,
    ) -> tuple[Encoded, Encoded]:
        """Represent the queries and the documents of a batch.

        Args:
            query_ids: Shape: (queries, tokens).
            query_mask: As ``query_ids``.
            document_ids: Shape: (documents, tokens).
            document_mask: As ``document_ids``.
            unified: Whether to give lexical weights and multi-vectors too.

        Returns:
            Both representations.
        """
        queries = self.encode(query_ids, query_mask, unified=unified)
        return queries, self.encode(document_ids, document_mask, unified=unified)

    def encode(self, ids: torch.Tensor, mask: torch.Tensor, *, unified: bool = True) -> Encoded:
        """Represent a padded batch, in sub-batches where ``sub_batch_tokens`` says so.

        Args:
            ids: Shape: (texts, tokens). Dtype: int64.
            mask: 1 for real tokens, of the same shape.
            unified: Whether to give lexical weights and multi-vectors too.

        Returns:
            The representations; activations of sub-batches are recomputed in the backward pass.
        """
        limit = self.sub_batch_tokens
        if limit is None or ids.numel() <= limit:
            return self.represent(self.hidden_states(ids, mask), ids, mask, unified=unified)
        size = max(limit // ids.shape[1], 1)
        parts = []
        for part_ids, part_mask in zip(ids.split(size), mask.split(size), strict=True):
            hidden = recompute(self.hidden_states, part_ids, part_mask, use_reentrant=False)
            parts.append(self.represent(hidden, part_ids, part_mask, unified=unified))
        return Encoded.join(parts)


def fresh_heads(hidden_size: int, seed: int) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    """Random lexical and multi-vector heads, as ``torch.nn.Linear`` starts them.

    Args:
        hidden_size: Width of hidden states and of multi-vectors.
        seed: The same seed gives the same weights and leaves torch's own generator as it is.

    Returns:
        Both heads.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Linear(hidden_size, 1), torch.nn.Linear(hidden_size, hidden_size)


def _pooled(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "mean":
        real = mask[:, :, None].float()
        return (hidden * real).sum(1) / real.sum(1)
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, mask.sum(1) - 1]


def _from_blocks(folder: Path, **options: Any) -> Any:
    """A transformers network with the expanded matrices of a checkpoint that has them in blocks."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    network = AutoModel.from_config(config, dtype=torch.float32, **options)
    weights = Weights(folder, torch.device("cpu"), torch.float32)
    state = {
        name: weights.ask(name, shape=tuple(value.shape))
        for name, value in network.state_dict().items()
    }
    weights.fill()
    network.load_state_dict(state, assign=True)
    return network.eval()


def _linear(head: Head) -> torch.nn.Linear:
    linear = torch.nn.Linear(head.weight.shape[1], head.weight.shape[0])
    linear.load_state_dict({"weight": head.weight.float(), "bias": head.bias.float()})
    return linear
