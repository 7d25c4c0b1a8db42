"""Decoders that embed: causal attention on packed texts, the state of each text's last token."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from m3_core import heads
from m3_core.backbone import load_network
from m3_core.checkpoint import locate, read_checkpoint, read_json
from m3_core.device import resolve_device, resolve_dtype
from m3_core.errors import NonFiniteError, UnsupportedModelError
from m3_core.execution import BatchRunner
from m3_core.rerankers.decoder import (
    CAUSAL_ATTENTION_NAME,
    Decoder,
    positions,
    register_attention,
)
from m3_core.rerankers.llm import MODEL_TYPES
from m3_core.tokens import Tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from m3_core.batches import PackedBatch
    from m3_core.checkpoint import Checkpoint
    from m3_core.tokens import TokenBatch


class DecoderModel(Decoder):
    """A causal language model without its vocabulary's head.

    Args:
        checkpoint: What its small files say.
        tokenizer: Its tokenizer.
        network: A transformers model, loaded for ``CAUSAL_ATTENTION_NAME``.
        device: Where it runs.
        dtype: Its data type.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        network: Any,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(network, None, device, dtype)
        self.checkpoint = checkpoint
        self.tokenizer = tokenizer
        self.width: int = network.config.hidden_size
        self.runner = BatchRunner(device, self.default_token_budget())

    @classmethod
    def load(
        cls, name: str, *, device: str | None, dtype: str, cache_folder: str | None
    ) -> DecoderModel:
        """Load a checkpoint.

        Args:
            name: A folder or a hub repository.
            device: Where it shall run.
            dtype: In what data type.
            cache_folder: Where downloads are kept.

        Returns:
            The model, ready.

        Raises:
            UnsupportedModelError: It is of another architecture, or attends to later tokens too.
            CheckpointError: The files are absent, unreadable or incomplete.
        """
        from transformers import AutoModel

        checkpoint = read_checkpoint(locate(name, cache_folder=cache_folder), name)
        config = checkpoint.config
        if config["model_type"] not in MODEL_TYPES:
            raise UnsupportedModelError(
                f"{name!r} is of type {config['model_type']!r}; a decoder that embeds must be one "
                f"of {', '.join(MODEL_TYPES)}. Encoders load with FlagModel or BGEM3FlagModel"
            )
        if config.get("is_causal") is False or config.get("use_bidirectional_attention"):
            raise UnsupportedModelError(
                f"{name!r} lets tokens attend to later ones, which its own code does and nothing "
                "here: load it with sentence-transformers"
            )
        chosen = resolve_device(device)
        kind = resolve_dtype(dtype, chosen)
        register_attention()
        network = load_network(
            AutoModel.from_pretrained,
            checkpoint,
            kind,
            attn_implementation=CAUSAL_ATTENTION_NAME,
        )
        return cls(checkpoint, _tokenizer(checkpoint.folder), network, chosen, kind)

    def encode(
        self, tokens: TokenBatch, *, normalize: bool, truncate_dim: int | None
    ) -> NDArray[np.float32]:
        """Give the states of the texts' last tokens.

        Args:
            tokens: The texts.
            normalize: Scale vectors to length 1.
            truncate_dim: Keep so many leading values.

        Returns:
            Shape: (texts, dim).

        Raises:
            NonFiniteError: A vector holds NaN or infinity.
        """
        width = min(truncate_dim or self.width, self.width)
        vectors = np.empty((len(tokens.lengths), width), np.float32)

        def collect(batch: PackedBatch, arrays: dict[str, NDArray[Any]]) -> None:
            vectors[batch.rows] = arrays["dense"]

        compute = partial(self._compute, normalize=normalize, truncate_dim=truncate_dim)
        self.runner.run(tokens, compute, collect)
        bad = np.flatnonzero(~np.isfinite(vectors).all(1)).tolist()
        if bad:
            raise NonFiniteError(
                f"the vectors of {len(bad)} texts (the first at position {bad[0]}) are NaN or "
                "infinite: their data type overflows, or the weights are damaged: try "
                "use_bf16=True or use_fp16=False"
            )
        return vectors

    def _compute(
        self, batch: PackedBatch, *, normalize: bool, truncate_dim: int | None
    ) -> dict[str, torch.Tensor]:
        ids, packing = self.packed(batch)
        output = self.network(
            input_ids=ids[None],
            position_ids=positions(packing.offsets.diff())[None],
            use_cache=False,
            packing=packing,
        )
        last = output.last_hidden_state.squeeze(0)[packing.offsets[1:] - 1]
        return {"dense": heads.dense_vectors(last, normalize=normalize, truncate_dim=truncate_dim)}


def _tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer, with the leading and the last token that its configuration asks for."""
    tokenizer = Tokenizer.from_folder(folder)
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
    return tokenizer


_shared: WeakValueDictionary[tuple[Any, ...], DecoderModel] = WeakValueDictionary()
_shared_lock = threading.Lock()


def shared_decoder(
    name: str, *, device: str | None, dtype: str, cache_folder: str | None
) -> DecoderModel:
    """Load a checkpoint once for all who hold it.

    Args:
        name: As of ``DecoderModel.load``; so are the others.
        device: As there.
        dtype: As there.
        cache_folder: As there.

    Returns:
        The same object for the same arguments, for as long as somebody holds it.
    """
    key = (str(name), device, dtype, cache_folder)
    with _shared_lock:
        model = _shared.get(key)
        if model is None:
            model = DecoderModel.load(
                str(name), device=device, dtype=dtype, cache_folder=cache_folder
            )
            _shared[key] = model
        return model
