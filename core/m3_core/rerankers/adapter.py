"""The reranker of a framework's adapter."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from m3_core.encoder import check_server_options
from m3_core.network import Source
from m3_core.rerankers.network import RerankerOptions
from m3_core.rerankers.protocol import TextReranker
from m3_core.rerankers.remote import shared_remote_reranker

if TYPE_CHECKING:
    from collections.abc import Mapping


def adapter_reranker(
    reranker: TextReranker | None, name: str, options: Mapping[str, Any]
) -> TextReranker:
    """Give an adapter its reranker: the one it was given, or one over shared weights.

    Args:
        reranker: A reranker that the user loaded, or ``None``.
        name: Model name, used without a reranker.
        options: What the user set of ``Reranker.from_pretrained``'s options; ``None`` values and
            names that it does not have are passed over. With ``base_url``, and perhaps
            ``api_key`` and ``model_name``, the process's reranker for that server.

    Returns:
        With a given reranker: one over the same weights with those options.

    Raises:
        TypeError: ``reranker`` is none.
        ValueError: Options were set together with a loaded reranker, or with a server, that it
            has of its own.
    """
    known = {field.name for field in fields(RerankerOptions)} | Source.OPTIONS
    given = {key: value for key, value in options.items() if key in known and value is not None}
    url = check_server_options(options, given, reranker, "reranker", Source.OPTIONS)
    if url is not None:
        model = options.get("model_name")
        return shared_remote_reranker(url, options.get("api_key"), model=model).with_options(
            **given
        )
    if reranker is None:
        # Here, for whoever asks a server needs no torch.
        from m3_core.rerankers.base import Reranker

        return Reranker.shared(name, **given)
    if not isinstance(reranker, TextReranker):
        raise TypeError(
            "reranker must be an m3_core.Reranker or m3_core.RemoteReranker; got "
            f"{type(reranker).__name__}"
        )
    late = sorted(given.keys() & Source.OPTIONS)
    if late:
        raise ValueError(
            f"{', '.join(late)} cannot be set together with reranker=, which is loaded already: "
            "pass them to Reranker.from_pretrained"
        )
    if not given:
        return reranker
    if not hasattr(reranker, "with_options"):
        raise ValueError(
            f"{', '.join(sorted(given))} cannot be set together with reranker= of type "
            f"{type(reranker).__name__}, whose options are its own: set them there"
        )
    changed: TextReranker = reranker.with_options(**given)
    return changed
