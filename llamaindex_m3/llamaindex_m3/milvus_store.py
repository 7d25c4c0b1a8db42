"""LlamaIndex's Milvus store with one text a node for both of its sides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.vector_stores.milvus import MilvusVectorStore

from llamaindex_m3.milvus_sparse import M3MilvusSparseEmbeddingFunction, weighed_beforehand


class M3MilvusVectorStore(MilvusVectorStore):
    """``MilvusVectorStore`` that weighs the text which the dense model reads.

    LlamaIndex embeds a node with its metadata, as ``MetadataMode.EMBED`` says, but its Milvus
    store weighs the tokens of ``node.text`` alone: lexical search then cannot find what stands in
    the metadata, and the network runs twice a text. Here both sides get the embedded text, and
    each goes through the network once. All arguments are those of ``MilvusVectorStore``.

    Example:
        .. code-block:: python

            store = M3MilvusVectorStore(
                uri="m3.db",
                dim=1024,
                similarity_metric="IP",
                enable_sparse=True,
                sparse_embedding_function=M3MilvusSparseEmbeddingFunction(),
            )
    """

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex stores."""
        return "M3MilvusVectorStore"

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Add nodes, their weights those of the embedded texts.

        Args:
            nodes: The nodes, with their vectors.
            **add_kwargs: As of ``MilvusVectorStore.add``.

        Returns:
            Their ids.
        """
        function = self._own_function
        if function is None:
            return super().add(list(nodes), **add_kwargs)
        with _handed_over(function.encode_documents(_embedded_texts(nodes))):
            return super().add(list(nodes), **add_kwargs)

    async def async_add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Do ``add`` with the asynchronous client, the weights computed beside the event loop.

        Args:
            nodes: The nodes, with their vectors.
            **add_kwargs: As of ``MilvusVectorStore.async_add``.

        Returns:
            Their ids.
        """
        function = self._own_function
        if function is None:
            return await super().async_add(list(nodes), **add_kwargs)
        with _handed_over(await function.async_encode_documents(_embedded_texts(nodes))):
            return await super().async_add(list(nodes), **add_kwargs)

    @property
    def _own_function(self) -> M3MilvusSparseEmbeddingFunction | None:
        """The function that weighs nodes, if they are weighed and by ours."""
        function = self.sparse_embedding_function if self.enable_sparse else None
        return function if isinstance(function, M3MilvusSparseEmbeddingFunction) else None


def _embedded_texts(nodes: Sequence[BaseNode]) -> list[str]:
    return [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]


@contextmanager
def _handed_over(weights: list[dict[int, float]]) -> Iterator[None]:
    """Give the store, which asks for one node after the other, what was computed for all."""
    token = weighed_beforehand.set(iter(weights))
    try:
        yield
    finally:
        weighed_beforehand.reset(token)
