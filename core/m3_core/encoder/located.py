"""Where a text's tokens stand in it: what an encoder may say besides, and asking it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from m3_core.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from m3_core.encoder.protocol import Role, TextEncoder


@dataclass(frozen=True, slots=True, eq=False)
class TextTokens:
    """The tokens of one text as the network gets them, and where they stand in it.

    The text's multi-vector has a row for each token but the first.

    Attributes:
        ids: Special tokens and those of the instruction included. Shape: (tokens,). Dtype: int32.
        places: First character of each token in the text as the user gave it, and the one behind
            its last; both equal where it stands for no character, as special tokens do. Within the
            instruction they are negative: counted from where the text begins. Places may overlap:
            one character can be several tokens. Shape: (tokens, 2). Dtype: int64.
        truncated: Whether the text goes on behind the last token.

    Raises:
        ValueError: There is not one place a token.
    """

    ids: NDArray[np.int32]
    places: NDArray[np.int64]
    truncated: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", np.asarray(self.ids, np.int32))
        object.__setattr__(self, "places", np.asarray(self.places, np.int64).reshape(-1, 2))
        if self.ids.shape != (len(self.places),):
            raise ValueError(f"there are {len(self.ids)} tokens and {len(self.places)} places")


@runtime_checkable
class TokenLocator(Protocol):
    """A ``TextEncoder`` that also says where tokens stand; ``m3_core.explain`` needs it."""

    def token_offsets(
        self, texts: Iterable[str], role: Role = "document", max_length: int | None = None
    ) -> list[TextTokens]:
        """Say where the tokens of texts stand.

        Args:
            texts: As the user gave them.
            role: Which instruction stands before them.
            max_length: Tokens a text at most; the encoder's own if ``None``.

        Returns:
            Of each text exactly the tokens that are encoded.
        """


def token_offsets(
    encoder: TextEncoder,
    texts: Iterable[str],
    role: Role = "document",
    max_length: int | None = None,
) -> list[TextTokens]:
    """Ask an encoder where the tokens of texts stand.

    Args:
        encoder: The encoder.
        texts: As the user gave them.
        role: Which instruction stands before them.
        max_length: Tokens a text at most; the encoder's own if ``None``.

    Returns:
        Of each text exactly the tokens that are encoded.

    Raises:
        UnsupportedModelError: The encoder does not say.
    """
    if not isinstance(encoder, TokenLocator):
        raise UnsupportedModelError(
            f"explaining needs to know where tokens stand in a text, and {encoder.name!r}, a "
            f"{type(encoder).__name__}, does not say: give it the method token_offsets(texts, "
            'role="document", max_length=None) of m3_core.encoder.TokenLocator, or use an Encoder'
        )
    return encoder.token_offsets(texts, role, max_length)
