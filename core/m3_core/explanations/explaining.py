"""Making explanations of a query and a document."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

from m3_core.beside import beside
from m3_core.encoder import PARTS, token_offsets
from m3_core.errors import MissingRepresentationError
from m3_core.explanations.explanation import Explanation
from m3_core.explanations.parts import alignments, matched_words
from m3_core.explanations.spans import Located
from m3_core.scoring import (
    dense_scores,
    lexical_scores,
    maxsim_scores,
    normalized_weights,
)
from m3_core.texts import check_texts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from m3_core.encoder import TextEncoder, TextTokens
    from m3_core.explanations.parts import Alignment, MatchedWord
    from m3_core.representations import Representations


def explain(
    encoder: TextEncoder,
    query: str,
    document: str,
    *,
    weights: Sequence[float] = (1.0, 1.0, 1.0),
    parts: Collection[str] | None = None,
    notes: Sequence[str] = (),
) -> Explanation:
    """Say what the scores of a query and a document are made of.

    Both texts go through the network once, with the encoder's instructions and lengths. Words are
    words of the texts as they are, found by where the tokens stand, never decoded tokens.

    Args:
        encoder: An ``Encoder``, or another ``TextEncoder`` that says where tokens stand.
        query: The query.
        document: The document.
        weights: Of dense, sparse and colbert in the whole score, as of ``compute_score``; the
            paper's are ``(1, 0.3, 1)``. Those of representations that are not there are passed
            over.
        parts: Of ``"dense"``, ``"sparse"`` and ``"colbert"``, what to explain; everything that the
            encoder gives if ``None``.
        notes: What shall be said besides.

    Returns:
        The explanation.

    Raises:
        TypeError: A text is no string.
        ValueError: A text holds a lone surrogate, the weights leave nothing to score by, or there
            is no such part.
        MissingRepresentationError: The encoder does not give a part.
        UnsupportedModelError: The encoder does not say where tokens stand.

    Example:
        >>> from m3_core.testing import FakeEncoder
        >>> found = explain(FakeEncoder(), "What do pandas eat?", "Pandas eat bamboo.")
        >>> [(word.query, word.document, word.contribution) for word in found.words]
        [('pandas', 'Pandas', 1.0), ('eat', 'eat', 1.0)]
        >>> "".join(span.text for span in found.spans)
        'Pandas eat bamboo.'
    """
    (asked,), (told,) = check_texts([query]), check_texts([document])
    chosen = _chosen(encoder, parts, weights)
    located = _locate(encoder, asked, told)
    flags = _flags(chosen)
    return _explanation(
        encoder,
        located,
        encoder.encode_queries([asked], **flags),
        encoder.encode_documents([told], **flags),
        chosen,
        notes,
    )


async def aexplain(
    encoder: TextEncoder,
    query: str,
    document: str,
    *,
    weights: Sequence[float] = (1.0, 1.0, 1.0),
    parts: Collection[str] | None = None,
    notes: Sequence[str] = (),
) -> Explanation:
    """Do ``explain`` without holding up the event loop."""
    (asked,), (told,) = check_texts([query]), check_texts([document])
    chosen = await beside(_chosen, encoder, parts, weights)
    flags = _flags(chosen)
    located, of_query, of_document = await asyncio.gather(
        beside(_locate, encoder, asked, told),
        encoder.aencode_queries([asked], **flags),
        encoder.aencode_documents([told], **flags),
    )
    return await beside(_explanation, encoder, located, of_query, of_document, chosen, notes)


def _chosen(
    encoder: TextEncoder, parts: Collection[str] | None, weights: Sequence[float]
) -> dict[str, float]:
    """The parts to explain, with their weights, which sum to 1."""
    given = encoder.representations
    if isinstance(parts, str):
        parts = (parts,)
    if unknown := sorted(set(parts or ()) - set(PARTS)):
        raise ValueError(f"parts are of {', '.join(PARTS)}; got {', '.join(map(str, unknown))}")
    if absent := sorted(set(parts or ()) - given):
        raise MissingRepresentationError(
            f"{' and '.join(absent)} is to be explained, but {encoder.name!r} gives only "
            f"{', '.join(sorted(given))}"
        )
    by_part = dict(zip(PARTS, normalized_weights(weights), strict=True))
    wanted = given if parts is None else set(parts)
    chosen = {part: weight for part, weight in by_part.items() if part in wanted}
    whole = sum(chosen.values())
    if not whole:
        raise ValueError(
            f"weights {tuple(weights)} leave nothing to score by: there are "
            f"{', '.join(chosen) or 'no representations'}"
        )
    return {part: weight / whole for part, weight in chosen.items()}


def _flags(parts: Collection[str]) -> dict[str, bool]:
    return {
        "return_dense": "dense" in parts,
        "return_sparse": "sparse" in parts,
        "return_colbert_vecs": "colbert" in parts,
    }


def _locate(encoder: TextEncoder, query: str, document: str) -> tuple[Located, Located]:
    of_query: TextTokens
    (of_query,) = token_offsets(encoder, [query], "query")
    (of_document,) = token_offsets(encoder, [document], "document")
    return (
        Located.of(query, encoder.query_instruction, of_query),
        Located.of(document, encoder.document_instruction, of_document),
    )


def _explanation(
    encoder: TextEncoder,
    located: tuple[Located, Located],
    query: Representations,
    document: Representations,
    weights: Mapping[str, float],
    notes: Sequence[str],
) -> Explanation:
    scores = _scores(query, document, weights)
    words: tuple[MatchedWord, ...] = ()
    aligned: tuple[Alignment, ...] = ()
    if query.lexical_weights is not None and document.lexical_weights is not None:
        words = matched_words(*located, query.lexical_weights[0], document.lexical_weights[0])
    if query.colbert_vecs is not None and document.colbert_vecs is not None:
        aligned = alignments(*located, query.colbert_vecs[0], document.colbert_vecs[0])
    used = weights.get("sparse", 0.0), weights.get("colbert", 0.0)
    of_query, of_document = _lexical(located, words), _late(located, aligned)
    contributions = {part: weight * scores[part] for part, weight in weights.items()}
    return Explanation(
        query=located[0].text,
        document=located[1].text,
        model=encoder.name,
        scores=scores,
        score=sum(contributions.values()),
        weights=dict(weights),
        contributions=contributions,
        words=words,
        alignments=aligned,
        spans=located[1].spans(of_query[1], of_document[1], used),
        query_spans=located[0].spans(of_query[0], of_document[0], used),
        truncated=located[1].tokens.truncated,
        query_truncated=located[0].tokens.truncated,
        notes=tuple(notes),
        _made_of=(*located, query, document),
    )


def _scores(
    query: Representations, document: Representations, weights: Mapping[str, float]
) -> dict[str, float]:
    """The keys of ``Encoder.compute_score`` that there are parts for, in its order."""
    scores: dict[str, float] = {}
    if query.colbert_vecs is not None and document.colbert_vecs is not None:
        scores["colbert"] = float(maxsim_scores(query.colbert_vecs, document.colbert_vecs)[0, 0])
    if query.lexical_weights is not None and document.lexical_weights is not None:
        lexical = lexical_scores(query.lexical_weights, document.lexical_weights)
        scores["sparse"] = float(lexical[0, 0])
    if query.dense_vecs is not None and document.dense_vecs is not None:
        scores["dense"] = float(dense_scores(query.dense_vecs, document.dense_vecs)[0, 0])
    for name in ("sparse+dense", "colbert+sparse+dense"):
        parts = name.split("+")
        if all(part in scores for part in parts):
            whole = sum(weights[part] for part in parts)
            total = sum(weights[part] * scores[part] for part in parts)
            scores[name] = total / whole if whole else 0.0
    return scores


Shares = dict[int, float]


def _lexical(
    located: tuple[Located, Located], words: Sequence[MatchedWord]
) -> tuple[Shares, Shares]:
    """What the words of both texts add to the lexical score."""
    shares: tuple[Shares, Shares] = (defaultdict(float), defaultdict(float))
    numbers = [{word.place: n for n, word in enumerate(one.words)} for one in located]
    for word in words:
        sides = (word.query_places, word.document_places)
        for share, number, places in zip(shares, numbers, sides, strict=True):
            for place in places:
                share[number[place]] += word.contribution
    return shares


def _late(located: tuple[Located, Located], aligned: Sequence[Alignment]) -> tuple[Shares, Shares]:
    """What they add to the multi-vector score."""
    shares: tuple[Shares, Shares] = (defaultdict(float), defaultdict(float))
    for alignment in aligned:
        for token in alignment.tokens:
            numbers = (token.query_token, token.document_token)
            for share, one, number in zip(shares, located, numbers, strict=True):
                share[int(one.word_of[number])] += token.contribution
    return shares
