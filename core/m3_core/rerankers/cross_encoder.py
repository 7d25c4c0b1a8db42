"""Encoder rerankers: bge-reranker-base, -large and -v2-m3, and sequence classifiers like them.

transformers runs the network (``XLMRobertaForSequenceClassification`` and its relatives), packed
as in ``backbone``: the classification head gets the first token of each pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.errors import UnsupportedModelError
from m3_core.network import (
    ATTENTION_NAME,
    MODEL_TYPES,
    TransformersBackbone,
    load_network,
    packed_attention,
)
from m3_core.rerankers.network import RerankerOptions
from m3_core.rerankers.pairs import encoder_layout

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from m3_core.network import Checkpoint, PackedBatch, Tokenizer
    from m3_core.rerankers.pairs import PairLayout


class CrossEncoder:
    """A sequence classifier with one output.

    Args:
        network: ``XLMRobertaForSequenceClassification``, or RoBERTa's or BERT's, loaded for
            ``backbone.ATTENTION_NAME``.
        device: Where it runs.
        dtype: Its data type.
    """

    default_options = RerankerOptions()

    def __init__(self, network: Any, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self._network = network.to(device).eval()
        self._backbone = TransformersBackbone(self._network.base_model, device, dtype)
        self._is_bert = network.config.model_type == "bert"

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
        from transformers import AttentionInterface, AutoModelForSequenceClassification

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
        AttentionInterface.register(ATTENTION_NAME, packed_attention)
        network = load_network(
            AutoModelForSequenceClassification.from_pretrained,
            checkpoint,
            dtype,
            attn_implementation=ATTENTION_NAME,
        )
        return cls(network, device, dtype)

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
        if self._is_bert:
            within = np.arange(len(batch.ids)) - np.repeat(batch.offsets[:-1], batch.lengths)
            types = (within >= np.repeat(documents[:, 0], batch.lengths)).astype(np.int64)
        hidden, offsets = self._backbone.forward(batch, types)
        # The heads take the first of a sequence's positions.
        first = hidden[offsets[:-1]].unsqueeze(1)
        if self._is_bert:
            first = self._network.bert.pooler(first)
        scores: torch.Tensor = self._network.classifier(first)
        return scores.float()

    def default_token_budget(self) -> int:
        """Tokens a batch at which the device is well used."""
        return self._backbone.default_token_budget()
