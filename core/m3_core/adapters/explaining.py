"""``explain`` of the frameworks' retrievers, stores and rerankers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m3_core.adapters.twins import AsyncTwins
from m3_core.explanations import aexplain, explain, is_traced, record_explanations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from m3_core.encoder import TextEncoder
    from m3_core.explanations import Explanation

# What a score is that does not depend on its document alone.
_RELATIVE = {
    "rrf": "Documents are sorted by reciprocal rank fusion, whose score depends on the other "
    "documents; the score here is the weighted mean of the representations'.",
    "dbsf": "Documents are sorted by the sum of scores scaled by their distribution among the "
    "candidates; the score here is the weighted mean of the representations'.",
}


class Explaining(AsyncTwins):
    """An adapter that says why a document has its score.

    Subclasses say what they score with, and what the text of a document of their framework is.
    """

    def explain(self, query: Any, document: Any) -> Explanation:
        """Say why a document matches a query: the parts of its scores, word by word.

        Args:
            query: The query, as searches take it.
            document: A document, or node, of the framework, with a score or without; or a text.
                It need not be among those that are stored.

        Returns:
            The explanation, with the scores and weights by which this object sorts. Both texts are
            encoded for it, unless they are remembered.

        Raises:
            TypeError: The document or the query is none.
            UnsupportedModelError: The encoder does not say where tokens stand, or what sorts is a
                cross-encoder, whose scores have no parts.
        """
        encoder, options = self._explained()
        return explain(encoder, _asked(query), self._told(document), **options)

    async def aexplain(self, query: Any, document: Any) -> Explanation:
        """Do ``explain`` without holding up the event loop."""
        encoder, options = self._explained()
        return await aexplain(encoder, _asked(query), self._told(document), **options)

    # Not abstract: LlamaIndex shows whatever implements an abstract method as a span.
    def _explained(self) -> tuple[TextEncoder, dict[str, Any]]:
        """What scores, and keywords of ``explain``."""
        raise NotImplementedError

    @staticmethod
    def _told(document: Any) -> str:
        """The text of a document, as it is encoded."""
        raise NotImplementedError

    def _show_in_trace(self, query: Any, documents: Sequence[Any], ids: Sequence[str]) -> None:
        """Put explanations of what was found into the current trace, if there is one."""
        if is_traced():
            explanations = [self.explain(query, document) for document in documents]
            record_explanations(explanations, ids)

    async def _ashow_in_trace(
        self, query: Any, documents: Sequence[Any], ids: Sequence[str]
    ) -> None:
        if is_traced():
            explanations = [await self.aexplain(query, document) for document in documents]
            record_explanations(explanations, ids)


def explained_search(parts: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Say in keywords of ``explain`` what a search sorts by.

    Args:
        parts: What it scores, of ``"dense"``, ``"sparse"`` and ``"colbert"``.
        options: Of the search: ``weights`` and ``fusion``, if it has them.

    Returns:
        The keywords.

    Example:
        >>> explained_search(["sparse"], {})
        {'parts': ('sparse',)}
    """
    keywords: dict[str, Any] = {"parts": tuple(parts)}
    if options.get("weights") is not None:
        keywords["weights"] = options["weights"]
    if len(keywords["parts"]) > 1 and options.get("fusion") in _RELATIVE:
        keywords["notes"] = (_RELATIVE[options["fusion"]],)
    return keywords


def _asked(query: Any) -> str:
    # LlamaIndex's QueryBundle has the text beside an embedding.
    text: str = getattr(query, "query_str", query)
    return text
