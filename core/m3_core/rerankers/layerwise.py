"""bge-reranker-v2-minicpm-layerwise: a decoder with a head after each of its later layers.

MiniCPM is Llama with three factors: on the embeddings (``scale_emb``), on what each half of a
layer adds (``scale_depth / sqrt(layers)``), and one on logits that this model's heads do not use.
So transformers' Llama layers are run here with those factors. The modelling code in the checkpoint
was written for transformers 4, does not run with 5, and is not executed.
Source of the numbers: FlagEmbedding, ``inference/reranker/decoder_only/layerwise.py`` and
``models/modeling_minicpm_reranker.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel
from transformers.models.llama.modeling_llama import LlamaPreTrainedModel

from m3_core.errors import CorruptCheckpointError, UnsupportedModelError
from m3_core.network import check_sizes, load_network, transformers_config
from m3_core.rerankers.decoder import (
    CAUSAL_ATTENTION_NAME,
    YES_NO_PROMPT,
    Decoder,
    LayerHead,
    check_layers,
    leading_token,
    positions,
    register_attention,
)
from m3_core.rerankers.network import RerankerOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from m3_core.network import Checkpoint, PackedBatch, Tokenizer


def llama_config(config: Mapping[str, Any], name: str) -> LlamaConfig:
    """Say in Llama's terms what MiniCPM's ``config.json`` says.

    Args:
        config: Its content.
        name: What the user asked for, for the error text.

    Returns:
        Llama's configuration with MiniCPM's own fields.

    Raises:
        UnsupportedModelError: The model has other heads or scaled positions.
        CorruptCheckpointError: There are no heads.
    """
    if config.get("head_type", "simple") != "simple" or config.get("rope_scaling"):
        raise UnsupportedModelError(
            f"{name!r} has heads of type {config.get('head_type')!r} and rope_scaling "
            f"{config.get('rope_scaling')!r}; supported are 'simple' heads, as in "
            "bge-reranker-v2-minicpm-layerwise, and unscaled positions"
        )
    own = {"scale_emb": 1, "scale_depth": 1, "start_layer": 8, "head_multi": True}
    rope = {"rope_type": "default", "rope_theta": config.get("rope_theta", 10000.0)}
    given = {key: value for key, value in config.items() if not key.startswith("rope_")}
    made: LlamaConfig = transformers_config(
        LlamaConfig,
        given,
        hidden_act=config.get("hidden_act") or "silu",
        rms_norm_eps=config.get("rms_norm_eps", 1e-6),
        rope_parameters=rope,
        pad_token_id=None,
        tie_word_embeddings=False,
        **{key: config.get(key, default) for key, default in own.items()},
    )
    if made.start_layer is None or made.start_layer > made.num_hidden_layers:
        raise CorruptCheckpointError(
            f"config.json of {name!r} has heads from layer {made.start_layer} on, of "
            f"{made.num_hidden_layers}: there are none"
        )
    return made


class LayerwiseMiniCPM(LlamaPreTrainedModel):
    """The network, with the checkpoint's names of its tensors.

    Args:
        config: As of ``llama_config``.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model = LlamaModel(config)
        if config.head_multi:
            count = config.num_hidden_layers + 1 - config.start_layer
            self.lm_head: nn.Module = nn.ModuleList(
                LayerHead(config.hidden_size) for _ in range(count)
            )
        else:
            self.lm_head = LayerHead(config.hidden_size)
        self.post_init()  # type: ignore[no-untyped-call]


class LayerwiseReranker(Decoder):
    """MiniCPM with a score after any of its later layers.

    Args:
        network: A ``LayerwiseMiniCPM``.
        bos: The leading token of a pair.
        device: Where it runs.
        dtype: Its data type.
    """

    default_options = RerankerOptions(
        query_instruction="A: ", document_instruction="B: ", prompt=YES_NO_PROMPT
    )

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, tokenizer: Tokenizer, device: torch.device, dtype: torch.dtype
    ) -> LayerwiseReranker:
        """Load the network of a checkpoint.

        Args:
            checkpoint: Its folder and configuration.
            tokenizer: Of the checkpoint.
            device: Where it shall run.
            dtype: Data type of its weights.

        Returns:
            The network, ready.

        Raises:
            UnsupportedModelError: The model has other heads or scaled positions.
            CorruptCheckpointError: Weights are absent, cut or incomplete.
        """
        register_attention()
        check_sizes(checkpoint.config, checkpoint.folder)
        network = load_network(
            LayerwiseMiniCPM.from_pretrained,
            checkpoint,
            dtype,
            config=llama_config(checkpoint.config, checkpoint.name),
            attn_implementation=CAUSAL_ATTENTION_NAME,
        )
        bos = leading_token(checkpoint, tokenizer, unless_padding=False)
        return cls(network, bos, device, dtype)

    def check(self, options: RerankerOptions) -> None:
        """Refuse layers without a head, and compression.

        Args:
            options: What the user asked for.

        Raises:
            ValueError: An option does not fit.
        """
        config = self.network.config
        check_layers(options, range(config.start_layer, config.num_hidden_layers + 1))
        if options.compress_ratio != 1:
            raise ValueError("compress_ratio is an option of lightweight rerankers only")

    def score(
        self, batch: PackedBatch, documents: NDArray[np.int64], options: RerankerOptions
    ) -> torch.Tensor:
        """Score a batch of pairs; layers after the last cutoff are not computed.

        Args:
            batch: Their tokens.
            documents: Not needed.
            options: Their cutoff layers.

        Returns:
            Shape: (pairs, cutoff layers). Dtype: float32.
        """
        network, config = self.network.model, self.network.config
        ids, packing = self.packed(batch)
        wanted = options.cutoff_layers or (config.num_hidden_layers,)
        hidden = network.embed_tokens(ids)[None] * config.scale_emb
        where = network.rotary_emb(hidden, positions(batch, self.device)[None])
        factor = config.scale_depth / config.num_hidden_layers**0.5
        scores: dict[int, torch.Tensor] = {}
        for number, layer in enumerate(network.layers[: max(wanted)], start=1):
            attended, _ = layer.self_attn(
                hidden_states=layer.input_layernorm(hidden),
                position_embeddings=where,
                attention_mask=None,
                packing=packing,
            )
            hidden = hidden + attended * factor
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden)) * factor
            if number in wanted:
                last = network.norm(hidden[0, packing.offsets[1:] - 1])
                scores[number] = self._head(number)(last).float()
        return torch.cat([scores[number] for number in wanted], dim=1)

    def _head(self, number: int) -> Any:
        heads, config = self.network.lm_head, self.network.config
        return heads[number - config.start_layer] if config.head_multi else heads
