"""Metadata of documents: copied when they come in, and saved only as what they are."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from m3_core.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator


def copied_metadata(one: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Copy what a caller gives, down to the last list.

    Args:
        one: Id of the document, for the error.
        metadata: Its metadata.

    Returns:
        The copy.

    Raises:
        TypeError: They are no mapping, or something in them cannot be copied.
    """
    if not isinstance(metadata, Mapping):
        raise TypeError(
            f"the metadata of document {one!r} must be a mapping; got {shown(metadata)} of type "
            f"{type(metadata).__name__}: metadatas= is a list with one mapping a document"
        )
    try:
        return copy.deepcopy(dict(metadata))
    except (TypeError, RecursionError) as error:
        raise TypeError(
            f"the metadata of document {one!r} cannot be copied, and a document shares nothing "
            f"with who added it: {error}"
        ) from error


def metadata_to_json(one: str, metadata: Mapping[str, Any]) -> str:
    """Write metadata as JSON from which they come back equal.

    Args:
        one: Id of the document, for the error.
        metadata: Its metadata. NaN and infinity are kept, as Python's JSON writes them.

    Returns:
        A line of JSON.

    Raises:
        TypeError: Something in them would come back as something else, or not at all.
    """
    try:
        lost = next(_lost(metadata, ""), None)
        if lost is None:
            return json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        lost = str(error)
    raise TypeError(f"the metadata of document {one!r} cannot be saved: {lost}")


def metadata_from_json(line: str) -> dict[str, Any]:
    """Read what ``metadata_to_json`` has written.

    Args:
        line: The JSON.

    Returns:
        The metadata.

    Raises:
        ValueError: It is no JSON, or no object.
    """
    metadata = json.loads(line)
    if not isinstance(metadata, dict):
        raise ValueError(f"metadata are {type(metadata).__name__}")
    return metadata


def _lost(value: Any, where: str) -> Iterator[str]:
    """What of a value JSON would change, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            # A string of a class of its own may be found by another hash.
            plain = str.__str__(key) if isinstance(key, str) else None
            if plain is None or key != plain or hash(key) != hash(plain):
                yield (
                    f"the key {key!r} of type {type(key).__name__}{where} would come back as a "
                    "string; use strings"
                )
            yield from _lost(inner, f" under {plain!r}{where}")
    elif isinstance(value, list):
        for inner in value:
            yield from _lost(inner, where)
    elif isinstance(value, tuple):
        yield f"the tuple {value!r:.80}{where} would come back as a list; use lists"
    elif value is not None and not isinstance(value, (str, int, float)):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        yield f"JSON has no {kind}, got {value!r:.80}{where}"
