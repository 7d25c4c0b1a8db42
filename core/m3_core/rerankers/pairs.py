"""Token ids of (query, document) pairs, cut as the rerankers' makers cut them.

FlagEmbedding tokenises query and document apart, cuts both, joins their ids and cuts the document
again until the pair fits (transformers 4's ``prepare_for_model`` with ``only_second``). Here the
ids are joined directly: nothing is decoded and tokenised again, and each distinct text is
tokenised once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from m3_core.network import TokenBatch
from m3_core.texts import CheckedTexts, distinct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from m3_core.network import Tokenizer


@dataclass(frozen=True, slots=True)
class PairLayout:
    """What stands around the two texts of a pair.

    Attributes:
        before: Ids before the query.
        between: Ids between query and document.
        after: Ids after the document.
        uncounted: How many of these do not count towards ``max_length``.
    """

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    uncounted: int = 0

    @property
    def counted(self) -> int:
        """How many of these ids count towards ``max_length``."""
        return len(self.before) + len(self.between) + len(self.after) - self.uncounted


@dataclass(frozen=True, slots=True, eq=False)
class PairBatch:
    """Token ids of pairs.

    Attributes:
        tokens: One text a pair.
        documents: Positions in its pair at which each document begins and ends.
            Shape: (pairs, 2). Dtype: int64.
    """

    tokens: TokenBatch
    documents: NDArray[np.int64]


def encode_pairs(
    tokenizer: Tokenizer,
    layout: PairLayout,
    queries: Sequence[str],
    documents: Sequence[str],
    max_length: int,
    query_max_length: int | None = None,
) -> PairBatch:
    """Tokenise pairs and cut them to length.

    A query is cut to ``query_max_length`` tokens, then its document to what the pair has left.
    Only where FlagEmbedding fails or exceeds ``max_length``, with a query limit that leaves the
    document nothing, is the query cut further, until one token of the document fits.

    Args:
        tokenizer: Of the checkpoint.
        layout: What stands around the texts.
        queries: Checked texts, with their instruction.
        documents: As many, likewise.
        max_length: Tokens a pair at most; of ``layout`` those that count are included.
        query_max_length: Tokens a query at most, without special tokens; by default three
            quarters of ``max_length``, rounded down.

    Returns:
        Ids of all pairs.

    Raises:
        ValueError: A length leaves no room for a query and a document.
    """
    room = max_length - layout.counted
    query_limit = max_length * 3 // 4 if query_max_length is None else query_max_length
    if room < 2 or query_limit < 1:
        raise ValueError(
            f"max_length is {max_length} and query_max_length {query_limit}; a pair needs "
            f"{max(layout.counted, 0)} tokens around the texts, and each text at least 1"
        )
    query_limit = min(query_limit, room - 1)
    query_rows, distinct_queries = distinct(CheckedTexts(queries))
    document_rows, distinct_documents = distinct(CheckedTexts(documents))
    query_ids = tokenizer.content_ids(distinct_queries, query_limit)
    document_ids = tokenizer.content_ids(distinct_documents, min(room, max_length))
    heads = [[*layout.before, *ids[:query_limit], *layout.between] for ids in query_ids]
    # A decoder's prompt is allowed for in the pair, but not in the document alone.
    rooms = [min(room - min(len(ids), query_limit), max_length) for ids in query_ids]
    after = list(layout.after)
    rows: list[list[int]] = []
    bounds = np.zeros((len(queries), 2), np.int64)
    truncated = np.zeros(len(queries), bool)
    pairs = zip(query_rows.tolist(), document_rows.tolist(), strict=True)
    for i, (query, document) in enumerate(pairs):
        ids, head = document_ids[document], heads[query]
        rows.append([*head, *ids[: rooms[query]], *after])
        bounds[i] = len(head), len(rows[i]) - len(after)
        truncated[i] = len(ids) > rooms[query] or len(query_ids[query]) > query_limit
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    flat = np.fromiter(chain.from_iterable(rows), np.int32, int(offsets[-1]))
    return PairBatch(TokenBatch(flat, offsets, truncated), bounds)


def encoder_layout(tokenizer: Tokenizer) -> PairLayout:
    """The layout of an encoder's pairs, as its tokenizer sets special tokens.

    Args:
        tokenizer: Of the checkpoint.

    Returns:
        ``<s> query </s></s> document </s>`` for XLM-R, ``[CLS] query [SEP] document [SEP]`` for
        BERT.
    """
    return PairLayout(tokenizer.prefix, tokenizer.pair_separator, tokenizer.suffix)


def prompt_layout(
    tokenizer: Tokenizer, prompt: str, bos: int | None, separator: str = "\n"
) -> PairLayout:
    r"""The layout of a decoder's pairs: ``<bos> query \n document \n prompt``.

    FlagEmbedding allows such a pair ``max_length`` tokens and those of one separator and of the
    prompt before it appends separator and prompt. So of all that surrounds the texts only the
    leading token counts.

    Args:
        tokenizer: Of the checkpoint.
        prompt: The question put to the model.
        bos: The leading token, if the model has one.
        separator: What stands between the parts.

    Returns:
        The layout.
    """
    between, question = tokenizer.content_ids([separator, prompt], len(prompt) + 1)
    after = (*between, *question)
    # Allowed beyond max_length: separator and prompt. Needed beyond it: both, and a separator.
    uncounted = 2 * len(after)
    return PairLayout(() if bos is None else (bos,), tuple(between), after, uncounted)
