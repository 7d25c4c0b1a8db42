"""One loaded model for all who ask for it: applications and the frameworks' adapters."""

from __future__ import annotations

import threading
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from m3_core.encoder import Encoder
from m3_core.model import EncoderOptions, shared_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MODEL_DEFAULTS: Mapping[str, Any] = {
    "revision": None,
    "device": None,
    "dtype": "auto",
    "cache_folder": None,
    "token": None,
    "local_files_only": False,
    "trust_remote_code": False,
    "token_budget": None,
}


_shared: dict[Any, Encoder] = {}
_shared_lock = threading.Lock()


def shared_encoder(name: str | Path, **options: Any) -> Encoder:
    """Load a model once for the whole process, or return it if it is loaded already.

    Encoders that differ in options but not in how the network is loaded share its weights.

    Args:
        name: As of ``Encoder.from_pretrained``.
        **options: As there.

    Returns:
        The same object for the same name and options, from any thread; loaded anew after
        ``close()``.

    Raises:
        TypeError: ``Encoder.from_pretrained`` has no such option.
        M3Error: The model cannot be loaded.
    """
    source = {key: options.pop(key, value) for key, value in _MODEL_DEFAULTS.items()}
    model = shared_model(name=str(name), **source)
    key = (str(name), *sorted((k, str(v)) for k, v in {**source, **options}.items()))
    with _shared_lock:
        encoder = _shared.get(key)
        if encoder is None or encoder.model is not model:
            encoder = _shared[key] = Encoder.over(model, **options)
        return encoder


def adapter_encoder(encoder: Encoder | None, name: str, options: Mapping[str, Any]) -> Encoder:
    """Give an adapter its encoder: the one it was given, or the shared one of its options.

    Args:
        encoder: An encoder that the user loaded, or ``None``.
        name: Model name, used without an encoder.
        options: What the user set of ``Encoder.from_pretrained``'s options; ``None`` values and
            names that it does not have are passed over.

    Returns:
        With a given encoder: one over the same weights with those options; else the shared one.

    Raises:
        TypeError: ``encoder`` is none.
        ValueError: Options of loading were set together with a loaded encoder.
    """
    changes = {field.name for field in fields(EncoderOptions)}
    known = changes | _MODEL_DEFAULTS.keys()
    given = {key: value for key, value in options.items() if key in known and value is not None}
    if encoder is None:
        return shared_encoder(name, **given)
    if not isinstance(encoder, Encoder):
        raise TypeError(f"encoder must be an m3_core.Encoder; got {type(encoder).__name__}")
    late = sorted(key for key in given if key in _MODEL_DEFAULTS)
    if late:
        raise ValueError(
            f"{', '.join(late)} cannot be set together with encoder=, which is loaded already: "
            "pass them to Encoder.from_pretrained"
        )
    return encoder.with_options(**given) if given else encoder
