"""XLM-R, RoBERTa and BERT on packed texts: no padding computed, no other library's model code.

Source: BERT (arXiv 1810.04805), whose encoder is that of "Attention Is All You Need"
(arXiv 1706.03762, section 3.1) with learned positions; RoBERTa (arXiv 1907.11692) and XLM-R
(arXiv 1911.02116) have the same layers. Inference only: no dropout.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from m3_core.errors import UnsupportedModelError
from m3_core.network.configuration import check_sizes, padding_id
from m3_core.network.device import default_token_budget
from m3_core.network.int8 import Int8Layer, Int8Linear, Int8Table
from m3_core.network.layers import Layer, LayerNorm, Linear, Table
from m3_core.network.packing import Packing, position_ids, varlen_kernel
from m3_core.network.transfer import to_device
from m3_core.network.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from m3_core.network.batches import PackedBatch
    from m3_core.network.checkpoint import Checkpoint

MODEL_TYPES = ("xlm-roberta", "roberta", "bert")

_gelu_tanh: Callable[..., torch.Tensor] = partial(functional.gelu, approximate="tanh")
# By transformers' names, of which several are one function.
ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": functional.gelu,
    "gelu_python": functional.gelu,
    "gelu_accurate": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": functional.relu,
    "silu": functional.silu,
    "swish": functional.silu,
    "tanh": torch.tanh,
}


class PackedBackbone:
    """An encoder's network: embeddings and layers.

    Args:
        config: ``config.json``.
        weights: Gives the tensors; to be filled by the caller.
    """

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        check_sizes(config, weights.folder)
        hidden = self.hidden_size = int(config["hidden_size"])
        inner, heads = int(config["intermediate_size"]), int(config["num_attention_heads"])
        # Where config.json is silent: transformers' defaults.
        eps = float(config.get("layer_norm_eps", 1e-12))
        self.device = weights.device
        self.dtype = weights.dtype
        self._varlen = varlen_kernel(self.device, self.dtype)
        self._padding_id: int | None = None
        if config["model_type"] != "bert":
            self._padding_id = padding_id(config)

        in_int8 = self.dtype == torch.int8
        linear: Any = Int8Linear if in_int8 else Linear
        kind: Any = Int8Layer if in_int8 else Layer
        embeddings: Any = Int8Table if in_int8 else Table

        def table(name: str, rows: int) -> Table | Int8Table:
            found: Table | Int8Table = embeddings.of(
                weights, f"embeddings.{name}_embeddings", rows=rows, width=hidden
            )
            return found

        def norm(name: str) -> LayerNorm:
            scale, shift = (weights.ask(f"{name}.{p}", shape=(hidden,)) for p in ("weight", "bias"))
            return LayerNorm(scale, shift, eps)

        def layer(name: str) -> Layer | Int8Layer:
            parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
            attention, up, down = (
                f"{name}.{part}" for part in ("attention.output", "intermediate", "output")
            )
            made: Layer | Int8Layer = kind(
                qkv=linear.of(weights, *parts, outputs=hidden, inputs=hidden),
                attention_output=linear.of(
                    weights, f"{attention}.dense", outputs=hidden, inputs=hidden
                ),
                attention_norm=norm(f"{attention}.LayerNorm"),
                up=linear.of(weights, f"{up}.dense", outputs=inner, inputs=hidden),
                down=linear.of(weights, f"{down}.dense", outputs=hidden, inputs=inner),
                output_norm=norm(f"{down}.LayerNorm"),
                heads=heads,
                activation=ACTIVATIONS[config.get("hidden_act", "gelu")],
            )
            return made

        self.words = table("word", int(config["vocab_size"]))
        self.positions = table("position", int(config.get("max_position_embeddings", 512)))
        self.segments = weights.ask(
            "embeddings.token_type_embeddings.weight",
            shape=(int(config.get("type_vocab_size", 2)), hidden),
        )
        self.norm = norm("embeddings.LayerNorm")
        count = int(config["num_hidden_layers"])
        self.layers = [layer(f"encoder.layer.{number}") for number in range(count)]

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> PackedBackbone:
        """Load the network of a checkpoint.

        Args:
            checkpoint: Its folder and configuration, of which ``is_packable`` is true.
            device: Where it shall run.
            dtype: Data type of its weights.

        Returns:
            The network, ready.

        Raises:
            CorruptCheckpointError: Weights are absent, cut or incomplete.
        """
        weights = Weights(checkpoint.folder, device, dtype)
        backbone = cls(checkpoint.config, weights)
        weights.fill()
        return backbone

    def forward(
        self, batch: PackedBatch, token_types: NDArray[np.int64] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the network over a batch.

        Args:
            batch: The texts.
            token_types: Segment of each token of pairs. Shape: (tokens,). All 0 if ``None``.

        Returns:
            Hidden states of the last layer, shape (tokens, hidden), in the network's data type
            (float32 of an int8 network), and the batch's offsets on the device, shape
            (texts + 1,), int64.
        """
        with torch.inference_mode():
            packing = Packing(batch, self.device, self._varlen)
            states = self.norm(self._embedded(batch, token_types))  # (tokens, hidden)
            states = functional.pad(states, (0, 0, 0, packing.rows - packing.tokens))
            for layer in self.layers:
                states = layer(states, packing)  # (rows, hidden)
        return states[: packing.tokens], packing.offsets

    def default_token_budget(self) -> int:
        """Tokens a batch at which the device is well used, from its kind and memory.

        Returns:
            As of ``device.default_token_budget``.
        """
        return default_token_budget(self.device, self.dtype, self.hidden_size)

    def _embedded(self, batch: PackedBatch, token_types: NDArray[np.int64] | None) -> torch.Tensor:
        """The sum of each token's three embeddings. Shape: (tokens, hidden)."""
        states = self.words(self._on_device(batch.ids))  # (tokens, hidden)
        if token_types is None:
            states += self.segments[0]  # (hidden,)
        else:
            states += functional.embedding(self._on_device(token_types), self.segments)
        positions = position_ids(batch, self._padding_id)  # (tokens,)
        states += self.positions(self._on_device(positions))
        return states

    def _on_device(self, ids: NDArray[Any]) -> torch.Tensor:
        return to_device(ids.astype("int64"), self.device)


def is_packable(checkpoint: Checkpoint, *, trust_remote_code: bool = False) -> bool:
    """Whether ``PackedBackbone`` runs a checkpoint's network, so that transformers need not.

    Args:
        checkpoint: Its folder and configuration.
        trust_remote_code: Whether model code that it brings shall run.

    Returns:
        False for other architectures and activations, quantised weights, and code of the
        checkpoint's own.

    Raises:
        UnsupportedModelError: The network attends in a way that nothing here computes, or needs an
            adapter.
    """
    config = checkpoint.config
    if config["model_type"] not in MODEL_TYPES:
        return False
    plain = {
        "is_decoder": False,
        "add_cross_attention": False,
        "position_embedding_type": "absolute",
    }
    for key, usual in plain.items():
        if (config.get(key) or usual) != usual:
            raise UnsupportedModelError(
                f"config.json of {checkpoint.name!r} sets {key} to {config[key]!r}; only encoders "
                "that attend in both directions, with learned absolute positions, are computed here"
            )
    if (checkpoint.folder / "adapter_config.json").exists():
        raise UnsupportedModelError(
            f"{checkpoint.folder} holds an adapter (adapter_config.json), which would be ignored "
            "here: merge it into the weights first, with peft's merge_and_unload()"
        )
    return not (
        config.get("hidden_act", "gelu") not in ACTIVATIONS
        or config.get("quantization_config")
        or config.get("pruned_heads")
        or (trust_remote_code and config.get("auto_map"))
    )
