"""What a lexical score and a multi-vector score are made of."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from m3_core.explanations.spans import Located, Place

# Similarities of single vectors held at a time: 16 MiB in float32.
_BLOCK = 1 << 22
# Words of each text, of all that hold a token, that are looked at for the best pair.
_FORMS = 64


@dataclass(frozen=True, slots=True)
class MatchedWord:
    """A word of the query and a word of the document that share tokens.

    Attributes:
        query: The query's word, as the query has it.
        document: The document's word, as the document has it.
        query_weight: Its lexical weight: the sum of those of the shared tokens.
        document_weight: The document's; of several tokens their mean, weighted with the query's.
        contribution: The product of both: what is added to the lexical score.
        query_places: Where in the query all these tokens stand in one word; negative places count
            from the end of the instruction.
        document_places: The same of the document: other forms of the word are there too.
        token_ids: The shared tokens, in the order of the query.
        tokens_of_query: How many different tokens with a weight the query's word has.
        tokens_of_document: How many the document's word has.
    """

    query: str
    document: str
    query_weight: float
    document_weight: float
    contribution: float
    query_places: tuple[Place, ...]
    document_places: tuple[Place, ...]
    token_ids: tuple[int, ...]
    tokens_of_query: int
    tokens_of_document: int

    @property
    def whole(self) -> bool:
        """Whether both words match with all their tokens, and not in part."""
        return len(self.token_ids) == self.tokens_of_query == self.tokens_of_document

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        named = {name: getattr(self, name) for name in self.__slots__}
        for name in ("query_places", "document_places"):
            named[name] = [list(place) for place in named[name]]
        return named | {"token_ids": list(self.token_ids), "whole": self.whole}


@dataclass(frozen=True, slots=True)
class TokenAlignment:
    """A query's token and the document's token that is most similar to it.

    Attributes:
        query_token: Its number among the query's tokens, special ones counted.
        document_token: The number of the document's.
        query_place: Where it stands in the query; ``None`` of special tokens.
        document_place: Where the document's token stands in the document.
        similarity: Their inner product, a cosine for vectors of length 1.
        contribution: Similarity by number of the query's vectors; all sum to the score.
    """

    query_token: int
    document_token: int
    query_place: Place | None
    document_place: Place | None
    similarity: float
    contribution: float

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        named = {name: getattr(self, name) for name in self.__slots__}
        for name in ("query_place", "document_place"):
            named[name] = named[name] and list(named[name])
        return named


@dataclass(frozen=True, slots=True)
class Alignment:
    """A word of the query, and the document's word that its tokens are most similar to.

    Attributes:
        query: The query's word as the query has it; ``""`` of a special token, as of the text's
            end, which has a vector too.
        document: The document's word to which most of the contribution is owed; ``""`` if that is a
            special token.
        query_place: Where the query's word stands; negative within the instruction, ``None`` of
            special tokens.
        document_place: Where the document's word stands; likewise.
        similarity: Mean of its tokens' similarities.
        contribution: What it adds to the multi-vector score; all alignments sum to it.
        tokens: Its tokens, one by one.
    """

    query: str
    document: str
    query_place: Place | None
    document_place: Place | None
    similarity: float
    contribution: float
    tokens: tuple[TokenAlignment, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        named = {name: getattr(self, name) for name in self.__slots__}
        for name in ("query_place", "document_place"):
            named[name] = named[name] and list(named[name])
        return named | {"tokens": [token.to_dict() for token in self.tokens]}


def matched_words(
    query: Located,
    document: Located,
    query_weights: Mapping[int, float],
    document_weights: Mapping[int, float],
) -> tuple[MatchedWord, ...]:
    """Share a lexical score among pairs of words.

    Each shared token counts for the one pair of words that shares most; so a word of several
    tokens stays whole where the other text has it whole.

    Args:
        query: The query's words.
        document: The document's.
        query_weights: The query's lexical weights.
        document_weights: The document's.

    Returns:
        The largest contribution first; they sum to the lexical score.

    Raises:
        ValueError: A shared token stands in no word.
    """
    shared = {
        token: query_weights[token] * document_weights[token]
        for token in query_weights
        if token in document_weights
    }
    asked, found = _Words(query, query_weights), _Words(document, document_weights)
    groups: dict[tuple[int, int], list[int]] = {}
    grouped: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    # Rare tokens say which words belong together, and frequent ones join them.
    for token in sorted(shared, key=lambda one: len(asked.having(one)) * len(found.having(one))):
        forms = product(asked.having(token)[:_FORMS], found.having(token)[:_FORMS])
        pair = _best_pair(grouped[token] or forms, asked, found, shared)
        if pair not in groups:
            groups[pair] = []
            for common in asked.tokens[pair[0]] & found.tokens[pair[1]]:
                grouped[common].append(pair)
        groups[pair].append(token)
    words = [
        _matched(asked, found, pair, sorted(tokens, key=asked.first), query_weights, shared)
        for pair, tokens in groups.items()
    ]
    return tuple(sorted(words, key=lambda word: -word.contribution))


class _Words:
    """A text's words with a weight: first occurrences, and which tokens each has."""

    def __init__(self, located: Located, weights: Mapping[int, float]) -> None:
        self.located = located
        tokens: defaultdict[int, set[int]] = defaultdict(set)
        for token, word in zip(located.tokens.ids.tolist(), located.word_of.tolist(), strict=True):
            if word >= 0 and token in weights:
                tokens[word].add(token)
        self.tokens = dict(sorted(tokens.items()))
        # Of words that are the same in text and tokens, the first stands for all.
        forms: dict[tuple[str, frozenset[int]], int] = {}
        with_token: defaultdict[int, list[int]] = defaultdict(list)
        for word, own in self.tokens.items():
            if forms.setdefault((self.text(word), frozenset(own)), word) == word:
                for token in own:
                    with_token[token].append(word)
        self.with_token = dict(with_token)

    def text(self, word: int) -> str:
        return self.located.words[word].text

    def having(self, token: int) -> list[int]:
        words = self.with_token.get(token)
        if words is None:
            raise ValueError(
                f"the token {token} has a lexical weight, and is none of those that the encoder's "
                "token_offsets says: it must give exactly the tokens that are encoded"
            )
        return words

    def first(self, token: int) -> int:
        """Where a token stands first."""
        return int(np.flatnonzero(self.located.tokens.ids == token)[0])

    def places(self, tokens: Iterable[int]) -> tuple[Place, ...]:
        wanted = set(tokens)
        return tuple(
            self.located.words[word].place for word, own in self.tokens.items() if wanted <= own
        )


def _best_pair(
    pairs: Iterable[tuple[int, int]], asked: _Words, found: _Words, shared: Mapping[int, float]
) -> tuple[int, int]:
    """The pair of words that shares most; of equal ones the most alike, and then the first."""

    def merit(pair: tuple[int, int]) -> tuple[float, bool, int]:
        left, right = asked.tokens[pair[0]], found.tokens[pair[1]]
        common = left & right
        same = asked.text(pair[0]).casefold() == found.text(pair[1]).casefold()
        gain = sum(shared[one] for one in sorted(common))
        return gain, same, 2 * len(common) - len(left) - len(right)

    return max(pairs, key=merit)


def _matched(
    asked: _Words,
    found: _Words,
    pair: tuple[int, int],
    tokens: Sequence[int],
    query_weights: Mapping[int, float],
    shared: Mapping[int, float],
) -> MatchedWord:
    weight = sum(query_weights[token] for token in tokens)
    contribution = sum(shared[token] for token in tokens)
    return MatchedWord(
        query=asked.text(pair[0]),
        document=found.text(pair[1]),
        query_weight=weight,
        document_weight=contribution / weight if weight else 0.0,
        contribution=contribution,
        query_places=asked.places(tokens),
        document_places=found.places(tokens),
        token_ids=tuple(tokens),
        tokens_of_query=len(asked.tokens[pair[0]]),
        tokens_of_document=len(found.tokens[pair[1]]),
    )


def alignments(
    query: Located,
    document: Located,
    query_vectors: NDArray[np.floating[Any]],
    document_vectors: NDArray[np.floating[Any]],
) -> tuple[Alignment, ...]:
    """Share a multi-vector score among the query's words.

    Args:
        query: The query's words.
        document: The document's.
        query_vectors: One a token but the first. Shape: (tokens, dim).
        document_vectors: Likewise.

    Returns:
        In the order of the query; they sum to the multi-vector score. None where one of the texts
        has no vectors.

    Raises:
        ValueError: There are other numbers of vectors than of tokens.
    """
    for located, vectors in ((query, query_vectors), (document, document_vectors)):
        if len(located.tokens.ids) != len(vectors) + 1:
            raise ValueError(
                f"the encoder's token_offsets says {len(located.tokens.ids)} tokens, and its "
                f"multi-vector has {len(vectors)} rows: there must be one a token but the first"
            )
    if not len(query_vectors) or not len(document_vectors):
        return ()
    best, similarities = _best(query_vectors, document_vectors)
    groups: defaultdict[int, list[TokenAlignment]] = defaultdict(list)
    rows = zip(best.tolist(), similarities.tolist(), strict=True)
    for token, (row, similarity) in enumerate(rows, start=1):
        word = int(query.word_of[token])
        one = TokenAlignment(
            query_token=token,
            document_token=row + 1,
            query_place=_place(query, token),
            document_place=_place(document, row + 1),
            similarity=similarity,
            contribution=similarity / len(query_vectors),
        )
        # Special tokens stand for themselves.
        groups[word if word >= 0 else -token].append(one)
    return tuple(_alignment(query, document, word, tokens) for word, tokens in groups.items())


def _alignment(
    query: Located, document: Located, word: int, tokens: Sequence[TokenAlignment]
) -> Alignment:
    owed: defaultdict[int, float] = defaultdict(float)
    for token in tokens:
        owed[int(document.word_of[token.document_token])] += token.contribution
    best = max(owed, key=lambda number: owed[number])
    own = query.words[word] if word >= 0 else None
    other = document.words[best] if best >= 0 else None
    return Alignment(
        query=own.text if own else "",
        document=other.text if other else "",
        query_place=own.place if own else None,
        document_place=other.place if other else None,
        similarity=sum(token.similarity for token in tokens) / len(tokens),
        contribution=sum(token.contribution for token in tokens),
        tokens=tuple(tokens),
    )


def _place(located: Located, token: int) -> Place | None:
    start, end = located.tokens.places[token].tolist()
    return (start, end) if start < end else None


def _best(
    query: NDArray[np.floating[Any]], document: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Of each query vector the most similar document vector, and how similar it is."""
    columns = np.ascontiguousarray(document.T, np.float32)
    best = np.empty(len(query), np.int64)
    similarities = np.empty(len(query), np.float32)
    step = max(_BLOCK // columns.shape[1], 1)
    for first in range(0, len(query), step):
        block = np.asarray(query[first : first + step], np.float32) @ columns
        best[first : first + step] = block.argmax(axis=1)
        similarities[first : first + step] = block.max(axis=1)
    return best, similarities


def word_similarities(
    query: Located,
    document: Located,
    query_vectors: NDArray[np.floating[Any]],
    document_vectors: NDArray[np.floating[Any]],
    rows: Sequence[Alignment],
    columns: Sequence[Place],
) -> NDArray[np.float32]:
    """Say how similar words of the query are to words of the document.

    Args:
        query: The query's words.
        document: The document's.
        query_vectors: As of ``alignments``.
        document_vectors: Likewise.
        rows: Of the query's alignments.
        columns: Places of the document's words.

    Returns:
        For each the mean over the query word's tokens of the best of the document word's.
        Shape: (rows, columns). Dtype: float32.
    """
    numbers = {word.place: number for number, word in enumerate(document.words)}
    found = [np.flatnonzero(document.word_of == numbers[place]) - 1 for place in columns]
    table = np.zeros((len(rows), len(columns)), np.float32)
    for column, tokens in enumerate(found):
        own = np.asarray(document_vectors[tokens[tokens >= 0]], np.float32)
        for row, alignment in enumerate(rows if len(own) else ()):
            asked = [token.query_token - 1 for token in alignment.tokens]
            table[row, column] = (
                (np.asarray(query_vectors[asked], np.float32) @ own.T).max(1).mean()
            )
    return table
