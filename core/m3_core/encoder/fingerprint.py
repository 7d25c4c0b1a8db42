"""A short name for a model and those options that change its vectors."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

    from m3_core.encoder.options import EncoderOptions


def options_fingerprint(
    model: str, options: EncoderOptions, parts: Collection[str], *, queries: bool
) -> str:
    """Name an encoder: equal exactly where the representations of the same documents are.

    Args:
        model: As of ``checkpoint_fingerprint``.
        options: The encoder's.
        parts: Of ``"dense"``, ``"sparse"`` and ``"colbert"``, those that matter.
        queries: The instruction of queries counts too.

    Returns:
        ``"m3-"`` and 16 hexadecimal digits.
    """
    counted: dict[str, Any] = {
        "model": model,
        "max_length": options.max_length,
        "document_instruction": options.document_instruction,
    }
    if queries:
        counted["query_instruction"] = options.query_instruction
    if {"dense", "colbert"} & set(parts):
        counted |= {"truncate_dim": options.truncate_dim, "normalize": options.normalize}
    if "dense" in parts:
        counted["pooling"] = options.pooling
    digest = hashlib.blake2b(json.dumps(counted, sort_keys=True).encode(), digest_size=8)
    return f"m3-{digest.hexdigest()}"
