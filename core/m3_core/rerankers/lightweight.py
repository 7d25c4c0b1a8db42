"""bge-reranker-v2.5-gemma2-lightweight: fewer layers, and fewer tokens in the later ones.

Before chosen layers neighbouring tokens of the document are averaged, ``compress_ratio`` into one;
query and prompt stay. transformers' Gemma 2 layers are run here. The modelling code in the
checkpoint was written for transformers 4, does not run with 5, and is not executed.

Source of the numbers: FlagEmbedding, ``inference/reranker/decoder_only/lightweight.py`` and
``models/gemma_model.py``, as they run with transformers 4.46.0, the release that FlagEmbedding
names for this model. Two things there are not obvious, and are kept because published scores have
them: attention scores are not capped, and of n cutoff layers, in ascending order, the i-th is
scored by the i-th head of the checkpoint, whatever layer that head was made for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import Gemma2Config, Gemma2Model
from transformers.models.gemma2.modeling_gemma2 import Gemma2PreTrainedModel

from m3_core.errors import CorruptCheckpointError, UnsupportedModelError
from m3_core.network import (
    PackedBatch,
    Packing,
    check_sizes,
    load_network,
    to_device,
    transformers_config,
)
from m3_core.rerankers.decoder import (
    CAUSAL_ATTENTION_NAME,
    LIGHTWEIGHT_PROMPT,
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

    from numpy.typing import NDArray

    from m3_core.network import Checkpoint, Tokenizer


def gemma2_config(config: Mapping[str, Any], name: str) -> Gemma2Config:
    """Say in Gemma 2's terms what the checkpoint's ``config.json`` says.

    Args:
        config: Its content.
        name: What the user asked for, for the error text.

    Returns:
        Gemma 2's configuration with the checkpoint's own fields.

    Raises:
        UnsupportedModelError: The model has no heads of its own.
        CorruptCheckpointError: It is not said after which layers they are, or there are none.
    """
    if not config.get("layer_wise"):
        raise UnsupportedModelError(
            f"{name!r} is a lightweight reranker with layer_wise={config.get('layer_wise')!r}; "
            "supported is true, as in bge-reranker-v2.5-gemma2-lightweight"
        )
    own = {name: config.get(name) for name in ("start_layer", "layer_sep")}
    absent = [name for name, value in own.items() if value is None]
    if absent:
        raise CorruptCheckpointError(
            f"config.json of {name!r} has no {' and no '.join(absent)}: it is incomplete"
        )
    made: Gemma2Config = transformers_config(
        Gemma2Config, config, attn_logit_softcapping=None, tie_word_embeddings=False, **own
    )
    if not head_layers(made):
        raise CorruptCheckpointError(
            f"config.json of {name!r} has heads from layer {made.start_layer} on, of "
            f"{made.num_hidden_layers}: there are none"
        )
    return made


class LightweightGemma2(Gemma2PreTrainedModel):
    """The network, with the checkpoint's names of its tensors.

    Args:
        config: As of ``gemma2_config``.
    """

    def __init__(self, config: Gemma2Config) -> None:
        super().__init__(config)
        self.model = Gemma2Model(config)
        self.lm_head = nn.ModuleList(LayerHead(config.hidden_size) for _ in head_layers(config))
        self.post_init()  # type: ignore[no-untyped-call]


def head_layers(config: Gemma2Config) -> range:
    """After which layers scores can be taken, counted from 1.

    Args:
        config: As of ``gemma2_config``.

    Returns:
        Every ``layer_sep``-th layer from ``start_layer`` on.
    """
    return range(config.start_layer, config.num_hidden_layers + 1, config.layer_sep)


def tokens_merged(
    lengths: NDArray[np.int64], documents: NDArray[np.int64], ratio: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count how many tokens become one where ``ratio`` of each document's do.

    Args:
        lengths: Tokens a pair. Shape: (pairs,).
        documents: Where in its pair each document begins and ends. Shape: (pairs, 2).
        ratio: How many neighbouring tokens of a document become one; its last may be fewer.

    Returns:
        For each new token the number of old ones in it, shape (new tokens,), and the tokens a
        pair then has, shape (pairs,).

    Example:
        >>> counts, lengths = tokens_merged(np.array([5]), np.array([[1, 4]]), 2)
        >>> counts.tolist(), lengths.tolist()
        ([1, 2, 1, 1], [4])
    """
    starts, stops = documents.T
    saved = stops - starts - -(-(stops - starts) // ratio)
    new_lengths = lengths - saved
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    in_document = within - np.repeat(starts, lengths)
    merged = np.repeat(starts, lengths) + in_document // ratio
    behind = within >= np.repeat(stops, lengths)
    targets = np.where(in_document < 0, within, merged)
    targets = np.where(behind, within - np.repeat(saved, lengths), targets)
    targets += np.repeat(np.cumsum(new_lengths) - new_lengths, lengths)
    return np.bincount(targets), new_lengths


class LightweightReranker(Decoder):
    """Gemma 2 with heads after its later layers and merging of document tokens.

    Args:
        network: A ``LightweightGemma2``.
        bos: The leading token of a pair.
        device: Where it runs.
        dtype: Its data type.
    """

    default_options = RerankerOptions(
        query_instruction="A: ", document_instruction="B: ", prompt=LIGHTWEIGHT_PROMPT
    )

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, tokenizer: Tokenizer, device: torch.device, dtype: torch.dtype
    ) -> LightweightReranker:
        """Load the network of a checkpoint.

        Args:
            checkpoint: Its folder and configuration.
            tokenizer: Of the checkpoint.
            device: Where it shall run.
            dtype: Data type of its weights.

        Returns:
            The network, ready.

        Raises:
            UnsupportedModelError: The model has no heads of its own.
            CorruptCheckpointError: Weights are absent, cut or incomplete.
        """
        register_attention()
        check_sizes(checkpoint.config, checkpoint.folder)
        network = load_network(
            LightweightGemma2.from_pretrained,
            checkpoint,
            dtype,
            config=gemma2_config(checkpoint.config, checkpoint.name),
            attn_implementation=CAUSAL_ATTENTION_NAME,
        )
        bos = leading_token(checkpoint, tokenizer, unless_padding=False)
        return cls(network, bos, device, dtype)

    def check(self, options: RerankerOptions) -> None:
        """Refuse layers without a head, and ratios that the model was not trained with.

        Args:
            options: What the user asked for.

        Raises:
            ValueError: An option does not fit.
        """
        check_layers(options, head_layers(self.network.config))
        if options.compress_ratio not in (1, 2, 4, 8):
            raise ValueError(f"compress_ratio is {options.compress_ratio}; it must be 1, 2, 4 or 8")

    def score(
        self, batch: PackedBatch, documents: NDArray[np.int64], options: RerankerOptions
    ) -> torch.Tensor:
        """Score a batch of pairs; layers after the last cutoff are not computed.

        Args:
            batch: Their tokens.
            documents: Where in its pair each document begins and ends. Shape: (pairs, 2).
            options: Their cutoff layers and compression.

        Returns:
            Shape: (pairs, cutoff layers). Dtype: float32.
        """
        network, config = self.network.model, self.network.config
        ids, packing = self.packed(batch)
        wanted = options.cutoff_layers or (config.num_hidden_layers,)
        ascending = sorted(set(wanted))
        weight = network.embed_tokens.weight
        hidden = functional.embedding(ids, weight)[None]
        # In the data type of the states, as Gemma was trained.
        hidden = hidden * torch.tensor(config.hidden_size**0.5, dtype=hidden.dtype)
        where = network.rotary_emb(hidden, positions(batch, self.device)[None])
        scores: dict[int, torch.Tensor] = {}
        for index, layer in enumerate(network.layers[: max(wanted)]):
            if index and index in options.compress_layers and options.compress_ratio > 1:
                hidden, batch, documents = _merge(hidden, batch, documents, options.compress_ratio)
                packing = Packing(batch, self.device, self.varlen)
                where = network.rotary_emb(hidden, positions(batch, self.device)[None])
            hidden = layer(hidden, position_embeddings=where, attention_mask=None, packing=packing)
            if index + 1 in wanted:
                head = self.network.lm_head[ascending.index(index + 1)]
                logits = head(network.norm(hidden[0, packing.offsets[1:] - 1]))
                if config.final_logit_softcapping is not None:
                    cap = config.final_logit_softcapping
                    logits = (logits / cap).tanh() * cap
                scores[index + 1] = logits.float()
        return torch.cat([scores[number] for number in wanted], dim=1)


def _merge(
    hidden: torch.Tensor, batch: PackedBatch, documents: NDArray[np.int64], ratio: int
) -> tuple[torch.Tensor, PackedBatch, NDArray[np.int64]]:
    """States, bounds of pairs and bounds of documents with fewer tokens."""
    counts, lengths = tokens_merged(batch.lengths, documents, ratio)
    on_device = to_device(counts, hidden.device)
    # Checking the lengths would wait for the device.
    merged = torch.segment_reduce(hidden[0].float(), "mean", lengths=on_device, axis=0, unsafe=True)
    starts = documents[:, 0]
    after = batch.lengths - documents[:, 1]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    # The ids are spent: from here on only the bounds are asked for.
    fewer = PackedBatch(np.zeros(int(offsets[-1]), np.int32), offsets)
    return merged.to(hidden.dtype)[None], fewer, np.stack([starts, lengths - after], axis=1)
