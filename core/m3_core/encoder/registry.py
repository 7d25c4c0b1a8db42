"""One encoder for all who ask for the same: applications and the frameworks' adapters."""

from __future__ import annotations

import threading
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from m3_core.encoder.encoder import Encoder
from m3_core.encoder.options import EncoderOptions
from m3_core.encoder.pipeline import load_pipeline
from m3_core.encoder.protocol import TextEncoder
from m3_core.forks import survive_forks
from m3_core.network import Source, shared_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class _Registry:
    """Encoders by model and options."""

    def __init__(self) -> None:
        self.after_fork()
        self._encoders: dict[Any, Encoder] = {}
        survive_forks(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def get(self, source: Source, options: Mapping[str, Any]) -> Encoder:
        model = shared_model(source, load_pipeline)
        made = Encoder.over(model, source, **options)
        key = id(model), source.name, made.options
        with self._lock:
            known = self._encoders.get(key)
            if known is None or known.model is not model:
                known = self._encoders[key] = made
            return known


_registry = _Registry()


def shared_encoder(name: str | Path, **options: Any) -> Encoder:
    """Load a model once for the whole process, or return it if it is loaded already.

    Encoders that differ in options but not in how the network is loaded share its weights.

    Args:
        name: A local folder or a hub repository.
        **options: Those of ``Encoder.from_pretrained``.

    Returns:
        The same object wherever model and options come out the same, from any thread; loaded anew
        after ``close()``.

    Raises:
        TypeError: ``Encoder.from_pretrained`` has no such option.
        M3Error: The model cannot be loaded.
    """
    source = {key: options.pop(key) for key in Source.OPTIONS & options.keys()}
    return _registry.get(Source(name=str(name), **source), options)


def adapter_encoder(
    encoder: TextEncoder | None, name: str, options: Mapping[str, Any]
) -> TextEncoder:
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
        ValueError: Options of loading were set together with a loaded encoder, or any with one
            that is no ``Encoder`` and has its own.
    """
    known = {field.name for field in fields(EncoderOptions)} | Source.OPTIONS
    given = {key: value for key, value in options.items() if key in known and value is not None}
    if encoder is None:
        return shared_encoder(name, **given)
    if not isinstance(encoder, TextEncoder):
        raise TypeError(
            "encoder must be an m3_core.Encoder or another m3_core.TextEncoder; got "
            f"{type(encoder).__name__}"
        )
    late = sorted(Source.OPTIONS & given.keys())
    if late:
        raise ValueError(
            f"{', '.join(late)} cannot be set together with encoder=, which is loaded already: "
            "pass them to Encoder.from_pretrained"
        )
    if not given:
        return encoder
    if not isinstance(encoder, Encoder):
        raise ValueError(
            f"{', '.join(sorted(given))} cannot be set together with encoder= of type "
            f"{type(encoder).__name__}, whose options are its own: set them there"
        )
    return encoder.with_options(**given)
