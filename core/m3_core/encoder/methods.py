"""The four methods of a ``TextEncoder``, for classes that say once how they encode."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from m3_core.encoder.protocol import asked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from m3_core.encoder.protocol import Role
    from m3_core.representations import Representations


class EncodingMethods(ABC):
    """``encode_queries``, ``encode_documents`` and their asynchronous forms over one hook each."""

    @abstractmethod
    def _encode(
        self,
        role: Role,
        texts: Iterable[str],
        parts: tuple[str, ...],
        max_length: int | None,
        *,
        show_progress: bool,
    ) -> Representations:
        """Encode texts.

        Args:
            role: Which instruction stands before them.
            texts: As the user gave them.
            parts: What is asked for, of ``"dense"``, ``"sparse"`` and ``"colbert"`` in this order;
                nothing is an error.
            max_length: Tokens a text at most, in this call.
            show_progress: Show a progress bar.

        Returns:
            These parts, in the order of the texts.
        """

    @abstractmethod
    async def _aencode(
        self,
        role: Role,
        texts: Iterable[str],
        parts: tuple[str, ...],
        max_length: int | None,
        *,
        show_progress: bool,
    ) -> Representations:
        """Do ``_encode`` without holding up the event loop."""

    def encode_queries(
        self,
        texts: Iterable[str],
        return_dense: bool = True,  # noqa: FBT001, FBT002 (FlagEmbedding's flags)
        return_sparse: bool = False,  # noqa: FBT001, FBT002
        return_colbert_vecs: bool = False,  # noqa: FBT001, FBT002
        max_length: int | None = None,
        show_progress: bool = False,  # noqa: FBT001, FBT002
    ) -> Representations:
        """Encode queries, with the query instruction before each.

        Args:
            texts: A list or any other iterable of strings.
            return_dense: Give dense vectors.
            return_sparse: Give lexical weights.
            return_colbert_vecs: Give multi-vectors.
            max_length: Tokens a text at most, in this call.
            show_progress: Show a progress bar.

        Returns:
            Representations in the order of the texts.

        Raises:
            TypeError: A text is no string.
            ValueError: A text is no valid Unicode, nothing was asked for, or ``max_length``
                does not fit the model.
            MissingRepresentationError: The model does not give what was asked for.
            NonFiniteError: An output holds NaN or infinity.
            OutOfMemoryError: A single text does not fit into memory.
        """
        parts = asked(return_dense, return_sparse, return_colbert_vecs)
        return self._encode("query", texts, parts, max_length, show_progress=show_progress)

    def encode_documents(
        self,
        texts: Iterable[str],
        return_dense: bool = True,  # noqa: FBT001, FBT002 (FlagEmbedding's flags)
        return_sparse: bool = False,  # noqa: FBT001, FBT002
        return_colbert_vecs: bool = False,  # noqa: FBT001, FBT002
        max_length: int | None = None,
        show_progress: bool = False,  # noqa: FBT001, FBT002
    ) -> Representations:
        """Encode documents, with the document instruction (if there is one) before each.

        Args:
            texts: As of ``encode_queries``, and so are the errors.
            return_dense: Give dense vectors.
            return_sparse: Give lexical weights.
            return_colbert_vecs: Give multi-vectors.
            max_length: Tokens a text at most, in this call.
            show_progress: Show a progress bar.

        Returns:
            Representations in the order of the texts.
        """
        parts = asked(return_dense, return_sparse, return_colbert_vecs)
        return self._encode("document", texts, parts, max_length, show_progress=show_progress)

    async def aencode_queries(
        self,
        texts: Iterable[str],
        return_dense: bool = True,  # noqa: FBT001, FBT002 (FlagEmbedding's flags)
        return_sparse: bool = False,  # noqa: FBT001, FBT002
        return_colbert_vecs: bool = False,  # noqa: FBT001, FBT002
        max_length: int | None = None,
        show_progress: bool = False,  # noqa: FBT001, FBT002
    ) -> Representations:
        """Do ``encode_queries`` without holding up the event loop or occupying a thread."""
        parts = asked(return_dense, return_sparse, return_colbert_vecs)
        return await self._aencode("query", texts, parts, max_length, show_progress=show_progress)

    async def aencode_documents(
        self,
        texts: Iterable[str],
        return_dense: bool = True,  # noqa: FBT001, FBT002 (FlagEmbedding's flags)
        return_sparse: bool = False,  # noqa: FBT001, FBT002
        return_colbert_vecs: bool = False,  # noqa: FBT001, FBT002
        max_length: int | None = None,
        show_progress: bool = False,  # noqa: FBT001, FBT002
    ) -> Representations:
        """Do ``encode_documents`` without holding up the event loop or occupying a thread."""
        parts = asked(return_dense, return_sparse, return_colbert_vecs)
        return await self._aencode(
            "document", texts, parts, max_length, show_progress=show_progress
        )
