"""What cascades and adapters know of a reranker, whatever computes the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable


@runtime_checkable
class TextReranker(Protocol):
    """Scores how well documents answer queries: in this process or elsewhere.

    An object of this shape can be given as ``reranker=`` to rerankers of both frameworks and to
    cascades. It may be used by several threads and event loops at once.
    """

    @property
    def name(self) -> str:
        """The name of the model."""

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""

    def compute_score(
        self,
        pairs: Iterable[tuple[str, str]],
        normalize: bool = False,  # noqa: FBT001, FBT002 (FlagEmbedding's flag)
        *,
        show_progress: bool = False,
    ) -> list[float]:
        """Score pairs.

        Args:
            pairs: Queries with documents.
            normalize: Put each score into 0 to 1; else it is the raw logit.
            show_progress: Show a progress bar.

        Returns:
            One score a pair, in their order.
        """

    async def acompute_score(
        self,
        pairs: Iterable[tuple[str, str]],
        normalize: bool = False,  # noqa: FBT001, FBT002 (FlagEmbedding's flag)
        *,
        show_progress: bool = False,
    ) -> list[float]:
        """Do ``compute_score`` without holding up the event loop."""

    def close(self) -> None:
        """Let go of what it holds; further calls raise ``ClosedError``."""
