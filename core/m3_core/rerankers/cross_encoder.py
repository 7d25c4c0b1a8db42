"""Encoder rerankers: bge-reranker-base, -large and -v2-m3, and sequence classifiers like them.

The classification head gets the first token of each pair; it is the same for XLM-R, RoBERTa and
BERT, under other names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.errors import UnsupportedModelError
from m3_core.network import (
    ATTENTION_NAME,
    MODEL_TYPES,
    Linear,
    PackedBackbone,
    TransformersBackbone,
    Weights,
    is_packable,
    load_network,
    network_config,
    packed_attention,
)
from m3_core.rerankers.network import RerankerOptions
from m3_core.rerankers.pairs import encoder_layout

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray

    from m3_core.network import Backbone, Checkpoint, PackedBatch, Tokenizer
    from m3_core.rerankers.pairs import PairLayout


@dataclass(frozen=True, slots=True)
class ClassificationHead:
    """From the first token of each pair to its score.

    Attributes:
        dense: From hidden to hidden; what BERT calls its pooler.
        output: From hidden to 1.
    """

    dense: Linear
    output: Linear

    def __call__(self, first: torch.Tensor) -> torch.Tensor:
        """From (pairs, hidden) to (pairs, 1)."""
        return self.output(self.dense(first).tanh())


class CrossEncoder:
    """A sequence classifier with one output.

    Args:
        backbone: Its network.
        head: From the first tokens' states, of shape (pairs, hidden), to scores (pairs, 1).
        has_segments: Whether query and document are told apart by their segments, as BERT does.
    """

    default_options = RerankerOptions()

    def __init__(
        self,
        backbone: Backbone,
        head: Callable[[torch.Tensor], torch.Tensor],
        *,
        has_segments: bool,
    ) -> None:
        self.device = backbone.device
        self.dtype = backbone.dtype
        self.backbone = backbone
        self.head = head
        self._has_segments = has_segments

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, tokenizer: Tokenizer, device: torch.device, dtype: torch.dtype
    ) -> CrossEncoder:
        """Load the network of a checkpoint.

        Args:
            checkpoint: Its folder and configuration.
            tokenizer: Not needed.
            device: Where it shall run.
            dtype: Data type of its weights.

        Returns:
            The network, ready.

        Raises:
            UnsupportedModelError: The network is of another architecture or has several outputs.
            CorruptCheckpointError: Weights are absent, cut or incomplete.
        """
        model_type = checkpoint.config["model_type"]
        if model_type not in MODEL_TYPES:
            raise UnsupportedModelError(
                f"{checkpoint.name!r} is a classifier of type {model_type!r}; an encoder reranker "
                f"must be one of {', '.join(MODEL_TYPES)}"
            )
        labels = len(checkpoint.config.get("id2label") or {0: "", 1: ""})
        if labels != 1:
            raise UnsupportedModelError(
                f"{checkpoint.name!r} classifies into {labels} classes; a reranker has one output"
            )
        is_bert = model_type == "bert"
        if not is_packable(checkpoint):
            backbone, head = _with_transformers(checkpoint, device, dtype)
            return cls(backbone, head, has_segments=is_bert)
        weights = Weights(checkpoint.folder, device, dtype)
        packed = PackedBackbone(checkpoint.config, weights)
        dense, output = ("pooler.dense", "classifier")
        if not is_bert:
            dense, output = ("classifier.dense", "classifier.out_proj")
        hidden = packed.hidden_size
        classify = ClassificationHead(
            Linear.of(weights, dense, outputs=hidden, inputs=hidden),
            Linear.of(weights, output, outputs=1, inputs=hidden),
        )
        weights.fill()
        return cls(packed, classify, has_segments=is_bert)

    def check(self, options: RerankerOptions) -> None:
        """Refuse options of decoders.

        Args:
            options: What the user asked for.

        Raises:
            ValueError: Layers, compression or a prompt were asked for.
        """
        if options.cutoff_layers is not None or options.compress_ratio != 1 or options.prompt:
            raise ValueError(
                "prompt, cutoff_layers and compress_ratio are options of decoder rerankers; an "
                "encoder reranker has none of them"
            )

    def layout(self, tokenizer: Tokenizer, options: RerankerOptions) -> PairLayout:
        """How pairs are put together: with the tokenizer's own marks between the two."""
        return encoder_layout(tokenizer)

    def score(
        self, batch: PackedBatch, documents: NDArray[np.int64], options: RerankerOptions
    ) -> torch.Tensor:
        """Score a batch of pairs.

        Args:
            batch: Their tokens.
            documents: Where in its pair each document begins and ends. Shape: (pairs, 2).
            options: Not needed.

        Returns:
            The classifier's output. Shape: (pairs, 1). Dtype: float32.
        """
        types = None
        if self._has_segments:
            within = np.arange(len(batch.ids)) - np.repeat(batch.offsets[:-1], batch.lengths)
            types = (within >= np.repeat(documents[:, 0], batch.lengths)).astype(np.int64)
        hidden, offsets = self.backbone.forward(batch, types)
        return self.head(hidden[offsets[:-1]]).float()

    def default_token_budget(self) -> int:
        """As of ``device.default_token_budget``."""
        return self.backbone.default_token_budget()


def _with_transformers(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
) -> tuple[Backbone, Callable[[torch.Tensor], torch.Tensor]]:
    """The network and head of a classifier that ``packed`` does not compute."""
    from transformers import AttentionInterface, AutoModelForSequenceClassification

    AttentionInterface.register(ATTENTION_NAME, packed_attention)
    network: Any = load_network(
        AutoModelForSequenceClassification.from_pretrained,
        checkpoint,
        dtype,
        config=network_config(checkpoint),
        attn_implementation=ATTENTION_NAME,
    )
    network = network.to(device).eval()

    def head(first: torch.Tensor) -> torch.Tensor:
        # These take the first of a sequence's positions.
        first = first.unsqueeze(1)
        if network.config.model_type == "bert":
            first = network.bert.pooler(first)
        scores: torch.Tensor = network.classifier(first)
        return scores

    return TransformersBackbone(network.base_model, device, dtype), head
