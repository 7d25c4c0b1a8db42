"""The reranker of a framework's adapter."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from m3_core.network import Source
from m3_core.rerankers.base import Reranker
from m3_core.rerankers.network import RerankerOptions

if TYPE_CHECKING:
    from collections.abc import Mapping


def adapter_reranker(reranker: Reranker | None, name: str, options: Mapping[str, Any]) -> Reranker:
    """Give an adapter its reranker: the one it was given, or one over shared weights.

    Args:
        reranker: A reranker that the user loaded, or ``None``.
        name: Model name, used without a reranker.
        options: What the user set of ``Reranker.from_pretrained``'s options; ``None`` values and
            names that it does not have are passed over.

    Returns:
        With a given reranker: one over the same weights with those options.

    Raises:
        TypeError: ``reranker`` is none.
        ValueError: Options of loading were set together with a loaded reranker.
    """
    known = {field.name for field in fields(RerankerOptions)} | Source.OPTIONS
    given = {key: value for key, value in options.items() if key in known and value is not None}
    if reranker is None:
        return Reranker.shared(name, **given)
    if not isinstance(reranker, Reranker):
        raise TypeError(f"reranker must be an m3_core.Reranker; got {type(reranker).__name__}")
    late = sorted(given.keys() & Source.OPTIONS)
    if late:
        raise ValueError(
            f"{', '.join(late)} cannot be set together with reranker=, which is loaded already: "
            "pass them to Reranker.from_pretrained"
        )
    return reranker.with_options(**given) if given else reranker
