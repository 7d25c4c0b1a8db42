"""One encoder for all who ask for the same: applications and the frameworks' adapters."""

from __future__ import annotations

import sys
import threading
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from m3_core.encoder.options import EncoderOptions
from m3_core.encoder.protocol import TextEncoder
from m3_core.encoder.remote import RemoteEncoder, shared_remote
from m3_core.forks import survive_forks
from m3_core.network import Source

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from typing_extensions import TypeIs

    from m3_core.encoder.encoder import Encoder


class _Registry:
    """Encoders by model and options."""

    def __init__(self) -> None:
        self.after_fork()
        self._encoders: dict[Any, Encoder] = {}
        survive_forks(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def get(self, source: Source, options: Mapping[str, Any]) -> Encoder:
        # Here, for whoever asks a server needs no torch.
        from m3_core.encoder.encoder import Encoder
        from m3_core.encoder.pipeline import load_pipeline
        from m3_core.network import shared_model

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


def is_loaded_encoder(encoder: object) -> TypeIs[Encoder]:
    """Say whether an encoder is an ``Encoder``, without importing torch for it.

    Args:
        encoder: Anything.

    Returns:
        Whether it is one.
    """
    # There is none before its module was imported.
    module = sys.modules.get("m3_core.encoder.encoder")
    return module is not None and isinstance(encoder, module.Encoder)


def adapter_encoder(
    encoder: TextEncoder | None, name: str, options: Mapping[str, Any]
) -> TextEncoder:
    """Give an adapter its encoder: the one it was given, or the shared one of its options.

    Args:
        encoder: An encoder that the user loaded, or ``None``.
        name: Model name, used without an encoder.
        options: What the user set of ``Encoder.from_pretrained``'s options; ``None`` values and
            names that it does not have are passed over. With ``base_url``, and perhaps
            ``api_key`` and ``model_name``, the process's encoder for that server.

    Returns:
        With a given encoder: one over the same weights with those options; else the shared one.

    Raises:
        TypeError: ``encoder`` is none.
        ValueError: Options of loading were set together with a loaded encoder or a server, or any
            with an encoder that is none of ours and has its own.
    """
    known = {field.name for field in fields(EncoderOptions)} | Source.OPTIONS
    given = {key: value for key, value in options.items() if key in known and value is not None}
    url = check_server_options(options, given, encoder, "encoder", Source.OPTIONS)
    if url is not None:
        model = options.get("model_name")
        remote = shared_remote(url, options.get("api_key"), model=model)
        return remote.with_options(**given) if given else remote
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
    if not is_loaded_encoder(encoder) and not isinstance(encoder, RemoteEncoder):
        raise ValueError(
            f"{', '.join(sorted(given))} cannot be set together with encoder= of type "
            f"{type(encoder).__name__}, whose options are its own: set them there"
        )
    return encoder.with_options(**given)


def check_server_options(
    options: Mapping[str, Any],
    given: Collection[str],
    loaded: object | None,
    kind: str,
    loading: Collection[str],
) -> str | None:
    """Check what an adapter says of a server against what else it says of its model.

    Args:
        options: All that its user has set.
        given: Those of them that are the model's.
        loaded: A model that the user made, or ``None``.
        kind: ``"encoder"`` or ``"reranker"``, as the option for it is called.
        loading: Options that say how a model is loaded.

    Returns:
        The server's address; ``None`` without one.

    Raises:
        ValueError: They contradict each other.
    """
    url: str | None = options.get("base_url")
    if url is None:
        if options.get("api_key") is not None:
            raise ValueError(
                "api_key= is the key of the server at base_url=, and there is no base_url="
            )
        return None
    if loaded is not None:
        raise ValueError(
            f"base_url= and {kind}= are two models: pass base_url= for that of a server, or "
            f"{kind}= for one that is made already, which can be a Remote{kind.capitalize()}"
        )
    late = sorted(set(given) & set(loading))
    if late:
        raise ValueError(
            f"{', '.join(late)} cannot be set together with base_url=: the server has loaded the "
            "model, and is started with them"
        )
    return url
