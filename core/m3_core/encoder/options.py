"""What an encoder's results depend on beside its weights, and what a call asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from m3_core.errors import MissingRepresentationError

if TYPE_CHECKING:
    from collections.abc import Collection

    from m3_core.encoder.pipeline import Request
    from m3_core.network import Pooling

# M3-Embedding (arXiv 2402.03216), "Multiple CLS": one CLS before every 256 tokens.
MCLS_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderOptions:
    """What changes an encoder's results without changing its weights.

    Attributes:
        max_length: Tokens a text at most, special tokens included.
        query_instruction: Put before every query, with no space between; ``""`` for none.
        document_instruction: Put before every document, likewise.
        truncate_dim: Keep so many leading values of dense and multi-vectors (Matryoshka).
        normalize: Scale dense and multi-vectors to length 1.
        pooling: How the dense vector is taken: ``"cls"``, ``"mean"`` or ``"last"``.
    """

    max_length: int
    query_instruction: str = ""
    document_instruction: str = ""
    truncate_dim: int | None = None
    normalize: bool = True
    pooling: Pooling = "cls"


def make_request(
    name: str,
    available: Collection[str],
    options: EncoderOptions,
    asked: Collection[str],
    *,
    mcls: bool = False,
) -> Request:
    """Check what a call asks for.

    Args:
        name: Of the model, for the error texts.
        available: What the model gives.
        options: The encoder's.
        asked: Of ``"dense"``, ``"sparse"`` and ``"colbert"``, what is asked for.
        mcls: As of ``Encoder.encode_documents``.

    Returns:
        What to compute.

    Raises:
        ValueError: Nothing is asked for, or ``mcls`` of a model that does not pool CLS.
        MissingRepresentationError: The model does not give what is asked for.
    """
    if not asked:
        raise ValueError(
            "nothing to compute: set return_dense, return_sparse or return_colbert_vecs"
        )
    absent = sorted(set(asked) - set(available))
    if absent:
        raise MissingRepresentationError(
            f"{' and '.join(absent)} asked for, but {name!r} gives only "
            f"{', '.join(sorted(available))}: load an M3 checkpoint"
        )
    if mcls and options.pooling != "cls":
        raise ValueError(f"mcls averages CLS states, but {name!r} pools {options.pooling!r}")
    # Here, so that the names of options are known without torch.
    from m3_core.encoder.pipeline import Request

    return Request(
        dense="dense" in asked,
        sparse="sparse" in asked,
        colbert="colbert" in asked,
        pooling=options.pooling,
        normalize=options.normalize,
        truncate_dim=options.truncate_dim,
        marker_every=MCLS_TOKENS + 1 if mcls else None,
    )
