r"""bge-reranker-v2-gemma and causal language models fine-tuned like it.

transformers runs the network. The score is the logit of "Yes" after
``<bos>A: query \n B: document \n prompt``; of the vocabulary's logits no other is computed.
Source: FlagEmbedding, ``inference/reranker/decoder_only/base.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from m3_core.errors import UnsupportedModelError
from m3_core.network import load_network, network_config
from m3_core.rerankers.decoder import (
    CAUSAL_ATTENTION_NAME,
    YES_NO_PROMPT,
    Decoder,
    leading_token,
    positions,
    register_attention,
)
from m3_core.rerankers.network import RerankerOptions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from m3_core.network import Checkpoint, PackedBatch, Tokenizer

DECODER_TYPES = ("gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3")


class CausalReranker(Decoder):
    """A causal language model that answers with "Yes".

    Args:
        network: A transformers model for causal language modelling.
        yes: Id of "Yes".
        bos: The leading token of a pair, if there is one.
        device: Where it runs.
        dtype: Its data type.
    """

    default_options = RerankerOptions(
        query_instruction="A: ", document_instruction="B: ", prompt=YES_NO_PROMPT
    )

    def __init__(
        self, network: Any, yes: int, bos: int | None, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__(network, bos, device, dtype)
        self._yes = yes
        self._softcap: float | None = getattr(network.config, "final_logit_softcapping", None)

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, tokenizer: Tokenizer, device: torch.device, dtype: torch.dtype
    ) -> CausalReranker:
        """Load the network of a checkpoint.

        Args:
            checkpoint: Its folder and configuration.
            tokenizer: Of the checkpoint.
            device: Where it shall run.
            dtype: Data type of its weights.

        Returns:
            The network, ready.

        Raises:
            UnsupportedModelError: The network is of another architecture.
            CorruptCheckpointError: Weights are absent, cut or incomplete.
        """
        from transformers import AutoModelForCausalLM

        model_type = checkpoint.config["model_type"]
        if model_type not in DECODER_TYPES:
            raise UnsupportedModelError(
                f"{checkpoint.name!r} is a language model of type {model_type!r}; a reranker must "
                f"be one of {', '.join(DECODER_TYPES)}"
            )
        register_attention()
        network = load_network(
            AutoModelForCausalLM.from_pretrained,
            checkpoint,
            dtype,
            config=network_config(checkpoint),
            attn_implementation=CAUSAL_ATTENTION_NAME,
        )
        ((yes, *_),) = tokenizer.content_ids(["Yes"], 8)
        bos = leading_token(checkpoint, tokenizer, unless_padding=True)
        return cls(network, yes, bos, device, dtype)

    def check(self, options: RerankerOptions) -> None:
        """Refuse options of other decoders.

        Args:
            options: What the user asked for.

        Raises:
            ValueError: Layers or compression were asked for.
        """
        if options.cutoff_layers is not None or options.compress_ratio != 1:
            raise ValueError(
                "cutoff_layers and compress_ratio are options of layerwise and lightweight "
                "rerankers; this model has one head, after its last layer"
            )

    def score(
        self, batch: PackedBatch, documents: NDArray[np.int64], options: RerankerOptions
    ) -> torch.Tensor:
        """Score a batch of pairs.

        Args:
            batch: Their tokens.
            documents: Not needed.
            options: Not needed.

        Returns:
            Logits of "Yes". Shape: (pairs, 1). Dtype: float32.
        """
        ids, packing = self.packed(batch)
        output = self.network.base_model(
            input_ids=ids[None],
            position_ids=positions(batch, self.device)[None],
            use_cache=False,
            packing=packing,
        )
        last = output.last_hidden_state.squeeze(0)[packing.offsets[1:] - 1]
        weight = self.network.get_output_embeddings().weight[self._yes : self._yes + 1]
        logits = functional.linear(last, weight)
        if self._softcap is not None:
            logits = (logits / self._softcap).tanh() * self._softcap
        return logits.float()
