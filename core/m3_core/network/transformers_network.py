"""Networks that ``packed`` does not compute, on packed texts: transformers' own model code.

A batch goes in as one row of all its tokens with explicit positions; only attention needs to know
where a text ends. It is a function registered with transformers' ``AttentionInterface`` that gets
the batch as a keyword.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from m3_core.errors import CorruptCheckpointError, UnsupportedModelError
from m3_core.forks import whole_in_forks
from m3_core.network.configuration import (
    check_sizes,
    check_stored_sizes,
    transformers_config,
)
from m3_core.network.device import default_token_budget
from m3_core.network.packed import MODEL_TYPES
from m3_core.network.packing import Packing, attend, position_ids, varlen_kernel
from m3_core.network.transfer import to_device
from m3_core.network.weights import stored_shapes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from m3_core.network.batches import PackedBatch
    from m3_core.network.checkpoint import Checkpoint

ATTENTION_NAME = "m3_packed"

# transformers' loading switches the process's default data type and torch's initialisation while it
# runs. Taken only within ``whole_in_forks``, so that no child finds it held or these switched.
_LOADING = threading.Lock()


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each text of a packed batch.

    Args:
        module: The attention layer; not used.
        query: Shape: (1, heads, tokens, head_dim).
        key: As query.
        value: As query.
        attention_mask: Not used: nothing is padded.
        packing: Where texts begin and end.
        scaling: Factor of the products; ``head_dim ** -0.5`` if ``None``.

    Returns:
        The attended values, shape (1, tokens, heads, head_dim), and no attention weights.
    """
    query, key, value = (part.squeeze(0).transpose(0, 1) for part in (query, key, value))
    return attend(query, key, value, packing, scaling).unsqueeze(0), None


class TransformersBackbone:
    """A transformers encoder on a device.

    Args:
        network: The model without pooling layer, loaded for ``ATTENTION_NAME``.
        device: Where it runs.
        dtype: Its data type.
    """

    def __init__(self, network: Any, device: torch.device, dtype: torch.dtype) -> None:
        self.network = network.to(device).eval()
        self.device = device
        self.dtype = dtype
        self.hidden_size: int = network.config.hidden_size
        self._varlen = varlen_kernel(device, dtype)
        roberta = network.config.model_type in ("xlm-roberta", "roberta")
        self._padding_id: int | None = network.config.pad_token_id if roberta else None

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        device: torch.device,
        dtype: torch.dtype,
        *,
        trust_remote_code: bool = False,
    ) -> TransformersBackbone:
        """Load the network of a checkpoint.

        Args:
            checkpoint: Its folder and configuration.
            device: Where it shall run.
            dtype: Data type of its weights.
            trust_remote_code: Run model code that the checkpoint brings.

        Returns:
            The network, ready.

        Raises:
            UnsupportedModelError: The network is of another architecture.
            CorruptCheckpointError: Weights are absent, cut or incomplete.
        """
        model_type = checkpoint.config["model_type"]
        if model_type not in MODEL_TYPES:
            raise UnsupportedModelError(
                f"{checkpoint.name!r} is of type {model_type!r}; an encoder must be one of "
                f"{', '.join(MODEL_TYPES)}; decoders that embed are served by "
                "m3_core.flagembedding.FlagLLMModel and FlagICLModel"
            )
        from transformers import AttentionInterface, AutoModel

        AttentionInterface.register(ATTENTION_NAME, packed_attention)
        own_code = trust_remote_code and bool(checkpoint.config.get("auto_map"))
        network = load_network(
            AutoModel.from_pretrained,
            checkpoint,
            dtype,
            config=None if own_code else network_config(checkpoint),
            attn_implementation=ATTENTION_NAME,
            add_pooling_layer=False,
            trust_remote_code=trust_remote_code,
        )
        return cls(network, device, dtype)

    def forward(
        self, batch: PackedBatch, token_types: NDArray[np.int64] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the network over a batch.

        Args:
            batch: The texts.
            token_types: Segment of each token for BERT pairs, shape (tokens,); 0 if ``None``.

        Returns:
            Hidden states of the last layer, shape (tokens, hidden), in the network's data type,
            and the batch's offsets on the device, shape (texts + 1,), int64.
        """
        packing = Packing(batch, self.device, self._varlen)
        ids = to_device(batch.ids.astype(np.int64), self.device)
        positions = to_device(position_ids(batch, self._padding_id), self.device)
        types = torch.zeros_like(ids)
        if token_types is not None:
            types = to_device(token_types, self.device)
        with torch.inference_mode():
            output = self.network(
                input_ids=ids[None],
                position_ids=positions[None],
                token_type_ids=types[None],
                packing=packing,
            )
        return output.last_hidden_state.squeeze(0), packing.offsets

    def default_token_budget(self) -> int:
        """Tokens a batch at which the device is well used, from its kind and memory.

        Returns:
            As of ``device.default_token_budget``.
        """
        return default_token_budget(self.device, self.dtype, self.hidden_size)


def network_config(checkpoint: Checkpoint) -> Any:
    """Make transformers' configuration of a checkpoint's network.

    Args:
        checkpoint: Its ``config.json``, of which ``model_type`` is one of transformers'.

    Returns:
        The configuration.

    Raises:
        CorruptCheckpointError: It describes no network.
        UnsupportedModelError: The weights are quantised in a way that is not taken here.
    """
    from transformers import CONFIG_MAPPING

    check_sizes(checkpoint.config, checkpoint.folder)
    return transformers_config(CONFIG_MAPPING[checkpoint.config["model_type"]], checkpoint.config)


def load_network(
    load: Callable[..., Any],
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    *,
    config: Any,
    attn_implementation: str,
    **options: Any,
) -> torch.nn.Module:
    """Load a network with transformers, quietly, and refuse weights that are not complete.

    Args:
        load: A class's ``from_pretrained``.
        checkpoint: The folder.
        dtype: Data type of the weights.
        config: As of ``network_config``; ``None``: code of the checkpoint makes it.
        attn_implementation: What attends, whatever ``config.json`` names.
        **options: Further keywords of ``load``.

    Returns:
        The network on the CPU.

    Raises:
        UnsupportedModelError: int8 was asked for.
        CorruptCheckpointError: Weights are absent, cut, incomplete or of other sizes.
    """
    if dtype == torch.int8:
        raise UnsupportedModelError(
            f"dtype 'int8' was asked for of {checkpoint.name!r}, of type "
            f"{checkpoint.config['model_type']!r}; int8 is computed for encoders and "
            f"cross-encoders of type {', '.join(MODEL_TYPES)} whose network needs no code of its "
            "own: pass dtype='auto'"
        )
    from transformers.utils import logging

    if config is not None:
        check_stored_sizes(config, stored_shapes(checkpoint.folder), checkpoint.folder)
        options["config"] = config
    with whole_in_forks(), _LOADING:
        bar, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        try:
            network, report = load(
                checkpoint.folder,
                dtype=dtype,
                output_loading_info=True,
                local_files_only=True,
                attn_implementation=attn_implementation,
                **options,
            )
        except Exception as error:
            raise CorruptCheckpointError(
                f"the weights of {checkpoint.folder} cannot be loaded: {error}"
            ) from error
        finally:
            logging.set_verbosity(level)
            if bar:
                logging.enable_progress_bar()
    missing = sorted(report["missing_keys"])
    if missing or report["mismatched_keys"]:
        what = missing or sorted(str(key) for key in report["mismatched_keys"])
        raise CorruptCheckpointError(
            f"the weights of {checkpoint.folder} lack {len(what)} tensors of the network or have "
            f"them in other shapes, such as {what[0]}: the file is incomplete or not this model's"
        )
    loaded: torch.nn.Module = network
    return loaded
