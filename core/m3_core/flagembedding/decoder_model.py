"""Decoders that embed: causal attention on packed texts, the state of each text's last token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from m3_core.encoder import dense_vectors
from m3_core.errors import NonFiniteError, UnsupportedModelError
from m3_core.extras import needs_extra
from m3_core.network import (
    Source,
    Work,
    load_network,
    network_config,
    read_json,
    shared_model,
    to_device,
)
from m3_core.rerankers import (
    CAUSAL_ATTENTION_NAME,
    DECODER_TYPES,
    Decoder,
    positions,
    register_attention,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from m3_core.network import Checkpoint, LoadedModel, PackedBatch, Results, TokenBatch, Tokenizer


class DecoderProgram(Decoder):
    """A causal language model without its vocabulary's head."""

    @property
    def width(self) -> int:
        """Width of the hidden states."""
        return int(self.network.config.hidden_size)

    def compute(
        self, batch: PackedBatch, tasks: Sequence[tuple[Hashable, NDArray[np.int64]]]
    ) -> list[Results]:
        """Start one forward pass, and of the texts' last states make vectors.

        Args:
            batch: The texts.
            tasks: Whether to scale to length 1 and how many values to keep, and of which texts.

        Returns:
            ``dense`` of each task.
        """
        ids, packing = self.packed(batch)
        output = self.network(
            input_ids=ids[None],
            position_ids=positions(batch, self.device)[None],
            use_cache=False,
            packing=packing,
        )
        last = output.last_hidden_state.squeeze(0)[packing.offsets[1:] - 1]
        results: list[Results] = []
        for task, texts in tasks:
            normalize, truncate_dim = cast("tuple[bool, int | None]", task)
            states = last[to_device(texts, self.device)] if len(texts) < len(last) else last
            dense = dense_vectors(states, normalize=normalize, truncate_dim=truncate_dim)
            results.append({"dense": dense})
        return results


class _Vectors:
    """Puts the vectors of one call into its order."""

    def __init__(self, num_texts: int, width: int) -> None:
        self.vectors = np.empty((num_texts, width), np.float32)

    def add(
        self,
        results: Mapping[str, NDArray[Any]],
        places: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> None:
        self.vectors[rows] = results["dense"][places]


def encode(
    model: LoadedModel, tokens: TokenBatch, *, normalize: bool, truncate_dim: int | None
) -> NDArray[np.float32]:
    """Give the states of the texts' last tokens.

    Args:
        model: A model of ``shared_decoder``.
        tokens: The texts.
        normalize: Scale vectors to length 1.
        truncate_dim: Keep so many leading values.

    Returns:
        Shape: (texts, dim).

    Raises:
        NonFiniteError: A vector holds NaN or infinity.
    """
    width = cast("DecoderProgram", model.network).width
    collector = _Vectors(len(tokens.lengths), min(truncate_dim or width, width))
    model.engine.submit(Work(tokens, (normalize, truncate_dim), collector)).wait()
    bad = np.flatnonzero(~np.isfinite(collector.vectors).all(1)).tolist()
    if bad:
        raise NonFiniteError(
            f"the vectors of {len(bad)} texts (the first at position {bad[0]}) are NaN or "
            "infinite: their data type overflows, or the weights are damaged: try "
            "use_bf16=True or use_fp16=False"
        )
    return collector.vectors


def load_decoder(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    device: torch.device,
    dtype: torch.dtype,
    source: Source,
) -> DecoderProgram:
    """Load the network of a decoder that embeds.

    Args:
        checkpoint: Its folder and configuration.
        tokenizer: Its tokenizer; it gets the leading and the last token that the configuration
            asks for.
        device: Where it shall run.
        dtype: In what data type.
        source: Not needed: code of the checkpoint is never run.

    Returns:
        The network.

    Raises:
        UnsupportedModelError: It is of another architecture, or attends to later tokens too.
        CheckpointError: The files are unreadable or incomplete.
    """
    config, name = checkpoint.config, checkpoint.name
    if config["model_type"] not in DECODER_TYPES:
        raise UnsupportedModelError(
            f"{name!r} is of type {config['model_type']!r}; a decoder that embeds must be one "
            f"of {', '.join(DECODER_TYPES)}. Encoders load with FlagModel or BGEM3FlagModel"
        )
    if config.get("is_causal") is False or config.get("use_bidirectional_attention"):
        raise UnsupportedModelError(
            f"{name!r} lets tokens attend to later ones, which its own code does and nothing "
            "here: load it with sentence-transformers"
        )
    with needs_extra(f"{name!r}, a decoder,", "transformers", "transformers"):
        from transformers import AutoModel

        register_attention()
    network = load_network(
        AutoModel.from_pretrained,
        checkpoint,
        dtype,
        config=network_config(checkpoint),
        attn_implementation=CAUSAL_ATTENTION_NAME,
    )
    _set_specials(tokenizer, checkpoint.folder)
    return DecoderProgram(network, None, device, dtype)


def _set_specials(tokenizer: Tokenizer, folder: Path) -> None:
    config = read_json(folder / "tokenizer_config.json") or {}
    # tokenizer.json may have been written before these were set, as transformers 4 allows.
    for flag, name, side in (
        ("add_bos_token", "bos_token", "prefix"),
        ("add_eos_token", "eos_token", "suffix"),
    ):
        token, wanted = tokenizer.special_ids.get(name), config.get(flag)
        if token is not None and isinstance(wanted, bool):
            others = tuple(one for one in getattr(tokenizer, side) if one != token)
            added = (token,) if wanted else ()
            whole = (*added, *others) if side == "prefix" else (*others, *added)
            setattr(tokenizer, side, whole)


def shared_decoder(
    name: str, *, device: str | None, dtype: str, cache_folder: str | None
) -> LoadedModel:
    """Load a checkpoint once for the whole process, or return it if it is loaded already.

    Args:
        name: A folder or a hub repository.
        device: Where it shall run.
        dtype: In what data type.
        cache_folder: Where downloads are kept.

    Returns:
        The model.
    """
    source = Source(name=str(name), device=device, dtype=dtype, cache_folder=cache_folder)
    return shared_model(source, load_decoder)
