"""What everything above the encoder knows of it, whatever computes the representations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from m3_core.representations import Representations

Role = Literal["query", "document"]

PARTS = {"dense": "dense_vecs", "sparse": "lexical_weights", "colbert": "colbert_vecs"}
"""The names of the representations, and where ``Representations`` has them."""


@runtime_checkable
class TextEncoder(Protocol):
    """Turns texts into representations: in this process, through a cache, or elsewhere.

    An object of this shape can be given as ``encoder=`` to every adapter, store and retriever.
    Texts of one call come back in their order; wrong ones are refused with the errors of
    ``m3_core.texts``. It may be used by several threads and event loops at once.
    """

    @property
    def name(self) -> str:
        """The name of the model."""

    @property
    def origin(self) -> object:
        """What computes: of one origin, equal fingerprints mean the very same numbers.

        Any object of a class of its own, kept as long as the encoder: the cache of encodings
        belongs to it, by a weak reference. Often the encoder itself.
        """

    @property
    def representations(self) -> frozenset[str]:
        """What it gives: of ``"dense"``, ``"sparse"`` and ``"colbert"``."""

    @property
    def dimension(self) -> int:
        """Width of the dense vectors."""

    @property
    def colbert_dimension(self) -> int:
        """Width of the multi-vectors; 0 where there are none."""

    @property
    def max_length(self) -> int:
        """Tokens a text at most, special tokens included; longer ones are cut."""

    @property
    def query_instruction(self) -> str:
        """What is put before every query; ``""`` for nothing."""

    @property
    def document_instruction(self) -> str:
        """What is put before every document; ``""`` for nothing."""

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""

    def fingerprint(self, parts: Collection[str] = ("dense",), *, queries: bool = False) -> str:
        """Name everything that changes the representations of documents.

        Args:
            parts: Of ``"dense"``, ``"sparse"`` and ``"colbert"``, those that matter.
            queries: The instruction of queries counts too.

        Returns:
            A short string, equal in every process exactly where the representations are.
        """

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
            texts: The queries.
            return_dense: Give dense vectors.
            return_sparse: Give lexical weights.
            return_colbert_vecs: Give multi-vectors.
            max_length: Tokens a text at most, in this call.
            show_progress: Show a progress bar.

        Returns:
            What was asked for, in the order of the texts.
        """

    def encode_documents(
        self,
        texts: Iterable[str],
        return_dense: bool = True,  # noqa: FBT001, FBT002 (FlagEmbedding's flags)
        return_sparse: bool = False,  # noqa: FBT001, FBT002
        return_colbert_vecs: bool = False,  # noqa: FBT001, FBT002
        max_length: int | None = None,
        show_progress: bool = False,  # noqa: FBT001, FBT002
    ) -> Representations:
        """Encode documents, with the document instruction before each.

        Args:
            texts: The documents.
            return_dense: Give dense vectors.
            return_sparse: Give lexical weights.
            return_colbert_vecs: Give multi-vectors.
            max_length: Tokens a text at most, in this call.
            show_progress: Show a progress bar.

        Returns:
            What was asked for, in the order of the texts.
        """

    async def aencode_queries(
        self,
        texts: Iterable[str],
        return_dense: bool = True,  # noqa: FBT001, FBT002 (FlagEmbedding's flags)
        return_sparse: bool = False,  # noqa: FBT001, FBT002
        return_colbert_vecs: bool = False,  # noqa: FBT001, FBT002
        max_length: int | None = None,
        show_progress: bool = False,  # noqa: FBT001, FBT002
    ) -> Representations:
        """Do ``encode_queries`` without holding up the event loop."""

    async def aencode_documents(
        self,
        texts: Iterable[str],
        return_dense: bool = True,  # noqa: FBT001, FBT002 (FlagEmbedding's flags)
        return_sparse: bool = False,  # noqa: FBT001, FBT002
        return_colbert_vecs: bool = False,  # noqa: FBT001, FBT002
        max_length: int | None = None,
        show_progress: bool = False,  # noqa: FBT001, FBT002
    ) -> Representations:
        """Do ``encode_documents`` without holding up the event loop."""

    def close(self) -> None:
        """Let go of what it holds; further calls raise ``ClosedError``."""


def flags_of(parts: Collection[str]) -> dict[str, bool]:
    """Say in flags which representations are asked for.

    Args:
        parts: Of ``"dense"``, ``"sparse"`` and ``"colbert"``.

    Returns:
        Keywords of ``encode_queries`` and ``encode_documents``.

    Example:
        >>> flags_of(["sparse"])
        {'return_dense': False, 'return_sparse': True, 'return_colbert_vecs': False}
    """
    names = {"dense": "return_dense", "sparse": "return_sparse", "colbert": "return_colbert_vecs"}
    return {flag: part in parts for part, flag in names.items()}


def asked(dense: bool, sparse: bool, colbert: bool) -> tuple[str, ...]:  # noqa: FBT001
    """Name the representations that flags ask for.

    Args:
        dense: As of ``return_dense``.
        sparse: As of ``return_sparse``.
        colbert: As of ``return_colbert_vecs``.

    Returns:
        Of ``"dense"``, ``"sparse"`` and ``"colbert"``, in this order.

    Example:
        >>> asked(True, False, True)
        ('dense', 'colbert')
    """
    wanted = zip(PARTS, (dense, sparse, colbert), strict=True)
    return tuple(part for part, is_asked in wanted if is_asked)
