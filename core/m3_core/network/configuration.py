"""What ``config.json`` may say, checked before anything is made of it.

A file from elsewhere may say anything. Names and numbers are checked here; sizes are compared with
the header of the weights before a network is built or memory is taken for it.
"""

from __future__ import annotations

import inspect
import math
import re
from typing import TYPE_CHECKING, Any

from m3_core.errors import CorruptCheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

# Without these no network can be built; transformers' own defaults would be a guess.
_REQUIRED = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
)
_COUNTS = (*_REQUIRED, "max_position_embeddings", "type_vocab_size")
_COUNTS_OR_NULL = ("num_key_value_heads", "head_dim", "sliding_window", "start_layer", "layer_sep")
_LARGEST = 2**31 - 1
# transformers makes lists of as many entries before it looks at the weights.
_MOST_LAYERS = 10_000
_NUMBERS_OR_NULL = ("final_logit_softcapping", "query_pre_attn_scalar")
_NUMBERS = ("layer_norm_eps", "rms_norm_eps", "scale_emb", "scale_depth", "rope_theta")
_WORDS = ("hidden_act", "position_embedding_type", "head_type", "_name_or_path")
_MAPPINGS = ("id2label", "auto_map", "quantization_config", "pruned_heads", "rope_scaling")
# What else than its class's own fields transformers needs of a configuration.
_SHARED_FIELDS = (
    *("id2label", "pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings"),
    *("rope_theta", "rope_scaling", "quantization_config"),
)
_LAYER = re.compile(r"\blayers?\.(\d{1,9})\.")
# Of transformers' ways to quantise, those that fetch no kernels from the hub.
_QUANTISED = (
    *("bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit", "gptq", "awq"),
    *("compressed-tensors", "torchao", "quanto"),
)


def check_config(config: Any, folder: Path) -> dict[str, Any]:
    """Check that ``config.json`` describes a network.

    Args:
        config: Its content.
        folder: The checkpoint, for the error text.

    Returns:
        The same.

    Raises:
        CorruptCheckpointError: A size is missing, or something is no number, word or list that it
            must be.
    """
    if not isinstance(config, dict) or "model_type" not in config:
        raise CorruptCheckpointError(
            f"{folder} has no config.json with a model_type: it is not a transformers checkpoint"
        )
    checks: tuple[tuple[Sequence[str], str, Callable[[Any], bool]], ...] = (
        (_COUNTS, f"a whole number from 1 to {_LARGEST}", _is_count),
        (
            _COUNTS_OR_NULL,
            f"a whole number from 1 to {_LARGEST}, or null",
            lambda x: x is None or _is_count(x),
        ),
        (
            ("num_hidden_layers",),
            f"a whole number from 1 to {_MOST_LAYERS}",
            lambda x: _is_count(x) and x <= _MOST_LAYERS,
        ),
        (_NUMBERS, "a finite number that is not negative", _is_number),
        (
            _NUMBERS_OR_NULL,
            "a finite number above 0, or null",
            lambda x: x is None or (_is_number(x) and x > 0),
        ),
        (("model_type",), "a string", lambda x: isinstance(x, str)),
        (_WORDS, "a string, or null", lambda x: isinstance(x, str | None)),
        (_MAPPINGS, "an object, or null", lambda x: isinstance(x, dict | None)),
        (("architectures", "layer_types"), "a list of strings, or null", _is_words),
    )
    for names, what, is_right in checks:
        for name in names:
            if name in config and not is_right(config[name]):
                raise CorruptCheckpointError(
                    f"{folder / 'config.json'} has {name}={_shown(config[name])}; it must be {what}"
                )
    return config


def check_sizes(config: Mapping[str, Any], folder: Path) -> None:
    """Check that a configuration has the sizes of a network.

    Args:
        config: As of ``check_config``.
        folder: The checkpoint, for the error text.

    Raises:
        CorruptCheckpointError: One is missing, or the heads do not divide the hidden states.
    """
    missing = [name for name in _REQUIRED if name not in config]
    if missing:
        raise CorruptCheckpointError(
            f"{folder / 'config.json'} has no {' and no '.join(missing)}: it is incomplete, copy "
            "it again"
        )
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    if hidden % heads and not config.get("head_dim"):
        raise CorruptCheckpointError(
            f"config.json of {folder} has a hidden_size of {hidden}, which "
            f"num_attention_heads={heads} does not divide"
        )


def check_stored_sizes(config: Any, shapes: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    """Compare the sizes that a configuration names with those of the stored weights.

    Args:
        config: As of ``transformers_config``.
        shapes: The tensors' names and shapes, of the files' headers.
        folder: The checkpoint, for the error text.

    Raises:
        CorruptCheckpointError: The configuration names other sizes.
    """
    stored = len({match[1] for name in shapes if (match := _LAYER.search(name))})
    if config.num_hidden_layers > stored:
        raise CorruptCheckpointError(
            f"the weights of {folder} have {stored} layers, and its config.json asks for "
            f"{config.num_hidden_layers} (num_hidden_layers): the files are incomplete or not "
            "this model's"
        )
    hidden, heads = config.hidden_size, config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or hidden // heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    expected = {
        ("word_embeddings.weight", "embed_tokens.weight"): (config.vocab_size, hidden),
        ("intermediate.dense.weight", "up_proj.weight"): (config.intermediate_size, hidden),
        ("self.query.weight", "q_proj.weight"): (heads * head_dim, hidden),
        ("self.key.weight", "k_proj.weight"): (groups * head_dim, hidden),
    }
    if getattr(config, "quantization_config", None):
        # Quantised layers are stored in other shapes.
        expected = dict(list(expected.items())[:1])
    for names, shape in expected.items():
        found = {stored for name, stored in shapes.items() if name.endswith(names)}
        if found != {shape}:
            raise CorruptCheckpointError(
                f"the weights of {folder} do not fit its config.json: by the sizes there, "
                f"{names[0]} or {names[1]} has the shape {shape}, and in the files it has "
                f"{' and '.join(map(str, sorted(found))) or 'no tensor'}: copy both again"
            )


def padding_id(config: Mapping[str, Any]) -> int:
    """The id behind which RoBERTa and XLM-R count positions.

    Args:
        config: As of ``check_config``.

    Returns:
        The id.

    Raises:
        CorruptCheckpointError: It is none.

    Example:
        >>> padding_id({"vocab_size": 9, "pad_token_id": 1})
        1
    """
    found = config.get("pad_token_id", 1)
    if found != 0 and not (_is_count(found) and found < config.get("vocab_size", _LARGEST)):
        raise CorruptCheckpointError(
            f"config.json has pad_token_id={_shown(found)}; it must be an id of the vocabulary of "
            f"{config.get('vocab_size')}"
        )
    return int(found)


def transformers_config(kind: Any, config: Mapping[str, Any], **changes: Any) -> Any:
    """Make a configuration of transformers' with the fields that its class knows, and no others.

    ``config.json`` may hold entries that have transformers fetch kernels, or read weights from
    elsewhere.

    Args:
        kind: The class.
        config: As of ``check_config``.
        **changes: Fields that shall be otherwise.

    Returns:
        The configuration.

    Raises:
        CorruptCheckpointError: The class takes no such values.
        UnsupportedModelError: The weights are quantised in a way that is not taken here.
    """
    from transformers import PreTrainedConfig

    quantised = config.get("quantization_config")
    if quantised and quantised.get("quant_method") not in _QUANTISED:
        raise UnsupportedModelError(
            f"the weights are quantised by {_shown(quantised.get('quant_method'))}; taken are "
            f"{', '.join(_QUANTISED)}, or weights that are not quantised"
        )
    general = inspect.signature(PreTrainedConfig).parameters.keys()
    own = inspect.signature(kind).parameters.keys() - general
    known = {key: config[key] for key in (*own, *_SHARED_FIELDS) if key in config}
    try:
        return kind(**known | changes)
    except Exception as error:
        raise CorruptCheckpointError(
            f"config.json does not describe a {kind.__name__}: {error}"
        ) from error


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LARGEST


def _is_number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return 0 <= value < 1e30 and math.isfinite(value)


def _is_words(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(one, str) for one in value))


def _shown(value: Any) -> str:
    is_plain = value is None or isinstance(value, (str, int, float))
    return f"{value!r:.60}" if is_plain else f"something of type {type(value).__name__}"
