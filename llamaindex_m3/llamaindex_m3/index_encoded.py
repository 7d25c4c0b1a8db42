"""Nodes of a corpus that was encoded in bulk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike

from llama_index.core.schema import BaseNode, TextNode

from m3_core.bulk import EncodedDataset
from m3_core.collection import kept
from m3_core.errors import DatasetError
from m3_core.representations import Representations


def opened(folder: str | PathLike[str]) -> EncodedDataset:
    """Open an encoded corpus that has texts.

    Args:
        folder: The folder.

    Returns:
        The corpus.

    Raises:
        DatasetError: It has none, or is not complete.
    """
    dataset = EncodedDataset.open(folder)
    if not dataset.has_texts:
        raise DatasetError(
            f"{folder} was encoded without its texts, which nodes hold: encode it with them"
        )
    return dataset


def encoded_nodes(
    dataset: EncodedDataset, parts: Sequence[str]
) -> Iterator[tuple[list[BaseNode], Representations]]:
    """Make nodes of documents.

    Args:
        dataset: The corpus.
        parts: Representations to read.

    Yields:
        Some nodes that have a text, with their representations.
    """
    for batch in dataset.batches(parts):
        texts = batch.texts or []
        rows = [row for row, text in enumerate(texts) if text.strip()]
        nodes: list[BaseNode] = [
            TextNode(
                id_=batch.ids[row],
                text=texts[row],
                metadata=batch.metadatas[row],
                # What was encoded is the text alone.
                excluded_embed_metadata_keys=list(batch.metadatas[row]),
            )
            for row in rows
        ]
        yield nodes, kept(batch.representations[rows], parts)
