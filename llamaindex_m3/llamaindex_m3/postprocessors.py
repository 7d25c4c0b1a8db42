"""What the rerankers of this package share: copies with scores, events, async."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import (
    BaseNode,
    MediaResource,
    MetadataMode,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
)
from llama_index_instrumentation import get_dispatcher
from pydantic import ConfigDict, Field

from llamaindex_m3.nodes import NodeExplaining
from llamaindex_m3.options import LlamaIndexNames
from m3_core.adapters import Ranked, RankingFields

if TYPE_CHECKING:
    from m3_core.encoder import CachedEncoder
    from m3_core.rerankers import TextReranker

RETRIEVAL_SCORE = "retrieval_score"
dispatcher = get_dispatcher(__name__)


class ScoringPostprocessor(NodeExplaining, LlamaIndexNames, RankingFields, BaseNodePostprocessor):
    """A postprocessor that sorts nodes by a score and keeps the best."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True)

    keep_retrieval_score: bool = Field(
        default=False, description="Put the score of the retriever into the metadata."
    )

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        own = self._snapshot()
        query = own._query(nodes, query_bundle)
        if not nodes:
            return []
        with own._events(query, nodes) as kept:
            kept += own._copies(nodes, own._rank(query, _texts(nodes)))
        return kept

    # LlamaIndex makes a span of the synchronous method alone.
    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        own = self._snapshot()
        query = own._query(nodes, query_bundle)
        if not nodes:
            return []
        with own._events(query, nodes) as kept:
            kept += own._copies(nodes, await own._arank(query, _texts(nodes)))
        return kept

    @property
    @abstractmethod
    def _scorer(self) -> TextReranker | CachedEncoder:
        """What gives the final score."""

    @property
    def _name(self) -> str:
        """What events call the model."""
        return self._scorer.name

    def _copies(self, nodes: list[NodeWithScore], kept: Ranked) -> list[NodeWithScore]:
        return [self._copy(nodes[i], score) for i, score, _ in kept]

    def _copy(self, node: NodeWithScore, score: float) -> NodeWithScore:
        own = separate_copy(node.node)
        if self.keep_retrieval_score:
            own.metadata[RETRIEVAL_SCORE] = node.score
            # A number for the program, not for the language model or the next reranker.
            own.excluded_embed_metadata_keys = [*own.excluded_embed_metadata_keys, RETRIEVAL_SCORE]
            own.excluded_llm_metadata_keys = [*own.excluded_llm_metadata_keys, RETRIEVAL_SCORE]
        return NodeWithScore(node=own, score=score)

    def _query(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None) -> str:
        if not isinstance(nodes, Sequence) or not all(
            isinstance(node, NodeWithScore) for node in nodes
        ):
            raise TypeError(f"nodes must be a list of NodeWithScore; got {nodes!r:.80}")
        if query_bundle is None:
            raise ValueError(f"{self.class_name()} needs the query: pass query_bundle or query_str")
        if not isinstance(query_bundle, QueryBundle):
            raise TypeError(
                f"query_bundle must be a QueryBundle; got {type(query_bundle).__name__}: pass a "
                "text as query_str="
            )
        return query_bundle.query_str

    @contextmanager
    def _events(self, query: str, nodes: list[NodeWithScore]) -> Iterator[list[NodeWithScore]]:
        """Tell both kinds of listeners of the start and of what the block puts into the list."""
        top_n = len(nodes) if self.top_n is None else self.top_n
        name, kept = self._name, list[NodeWithScore]()
        dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=name))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield kept
            event.on_end(payload={EventPayload.NODES: kept})
        dispatcher.event(ReRankEndEvent(nodes=kept))


def separate_copy(node: BaseNode) -> BaseNode:
    """Copy a node so that neither it nor its copy notices what is changed in the other.

    Args:
        node: The node.

    Returns:
        The copy; it shares only what is no container, and what an ``IndexNode`` stands for.
    """
    fields = {name: value for name, value in vars(node).items() if name != "obj"}
    return node.model_copy(update=_separate(fields))


def _separate(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _separate(one) for key, one in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(map(_separate, value))
    if isinstance(value, (RelatedNodeInfo, MediaResource)):
        return value.model_copy(update=_separate(vars(value)))
    return value


def _texts(nodes: list[NodeWithScore]) -> list[str]:
    return [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
