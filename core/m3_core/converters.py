"""Lexical weights as search engines take them: native Python numbers, documented types.

Each function takes one text's ``{token id: weight}`` and gives what the engine's own client
accepts. Weights of 0 are left out; a negative or non-finite one is refused, since no engine
scores it. Token ids are those of the tokenizer: queries and documents need the same model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, TypedDict, TypeVar

from m3_core.values import shown

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from m3_core.representations import LexicalWeights, Representations

T = TypeVar("T")
# One text's weights; FlagEmbedding's string keys and numpy numbers will do.
Weights = Mapping[int, float] | Mapping[str, float]


class QdrantSparse(TypedDict):
    """Keyword arguments of ``qdrant_client.models.SparseVector``."""

    indices: list[int]
    values: list[float]


class VespaTensor(TypedDict):
    """A mapped tensor in Vespa's JSON feed."""

    cells: dict[str, float]


def entries(weights: Weights) -> list[tuple[int, float]]:
    """Check weights and make their numbers plain.

    Args:
        weights: One text's weights.

    Returns:
        Token ids, ascending, with weights above 0.

    Raises:
        TypeError: It is no mapping, or a token id or weight no number.
        ValueError: A token id is no whole number of at least 0, a weight is negative or no
            finite number.

    Example:
        >>> entries({"7": 0.5, "3": 0.25, "4": 0.0})
        [(3, 0.25), (7, 0.5)]
    """
    if not isinstance(weights, Mapping):
        raise TypeError(
            "the lexical weights of a text are a mapping of token ids to weights; got "
            f"{shown(weights)} of type {type(weights).__name__}"
        )
    found: dict[int, float] = {}
    for key, value in weights.items():
        try:
            token, weight = int(key), float(value)
        except OverflowError as error:
            raise ValueError(f"no weight of a token: {shown(key)}: {shown(value)}") from error
        if token < 0 or not math.isfinite(weight) or weight < 0:
            raise ValueError(
                "token ids must be at least 0 and weights finite and not negative; "
                f"got {key!r}: {value!r}"
            )
        if weight > 0:
            found[token] = weight
    return sorted(found.items())


class KnowsVocabulary(Protocol):
    """An ``Encoder``, or the ``LexicalWeights`` that one gave."""

    @property
    def vocabulary_size(self) -> int | None:
        """Number of token ids."""


def convert_texts(representations: Representations, convert: Callable[..., T]) -> list[T]:
    """Convert the lexical weights of many texts.

    Args:
        representations: With lexical weights.
        convert: ``to_qdrant``, ``to_milvus``, ``to_sparsevec`` (with the model's vocabulary) or
            another function of this module that takes one text's weights.

    Returns:
        What the function gives of each text.

    Raises:
        TypeError: These are no representations.
        ValueError: There are no lexical weights.

    Example:
        >>> from m3_core.representations import LexicalWeights, Representations
        >>> weights = LexicalWeights.from_dicts([{7: 0.5}, {}])
        >>> convert_texts(Representations(lexical_weights=weights), to_milvus)
        [{7: 0.5}, {}]
    """
    from m3_core.representations import Representations

    if not isinstance(representations, Representations):
        raise TypeError(
            f"representations are what an encoder gives; got {type(representations).__name__}"
        )
    if representations.lexical_weights is None:
        raise ValueError("these representations have no lexical weights: ask for return_sparse")
    weights = representations.lexical_weights
    if convert is to_sparsevec:
        return [convert(text, weights) for text in weights]
    return [convert(text) for text in weights]


def _size(vocabulary: int | KnowsVocabulary | None) -> int:
    if vocabulary is None or isinstance(vocabulary, int):
        size = vocabulary
    else:
        size = getattr(vocabulary, "vocabulary_size", None)
        if not isinstance(size, int | None) or not hasattr(vocabulary, "vocabulary_size"):
            raise TypeError(
                f"vocabulary_size must be a number or an encoder; got {shown(vocabulary)}"
            )
    if size is None:
        raise ValueError(
            "plain weights do not tell how many token ids their model has: give "
            "vocabulary_size, as a number or as the encoder"
        )
    return size


def to_qdrant(weights: Weights) -> QdrantSparse:
    """Convert for Qdrant: ``models.SparseVector(**to_qdrant(weights))``.

    Args:
        weights: One text's weights.

    Returns:
        ``indices`` (unsigned 32-bit, unique, ascending) and ``values``.

    Example:
        >>> to_qdrant({7: 0.5, 3: 0.25})
        {'indices': [3, 7], 'values': [0.25, 0.5]}
    """
    pairs = entries(weights)
    return {"indices": [token for token, _ in pairs], "values": [weight for _, weight in pairs]}


def to_milvus(weights: Weights) -> dict[int, float]:
    """Convert for a ``SPARSE_FLOAT_VECTOR`` field of Milvus, metric ``IP``.

    Args:
        weights: One text's weights.

    Returns:
        ``{index: value}``; Milvus refuses string keys and numpy numbers.

    Example:
        >>> to_milvus({"7": 0.5, "3": 0.25})
        {3: 0.25, 7: 0.5}
    """
    return dict(entries(weights))


def to_milvus_csr(
    texts: Iterable[Weights] | LexicalWeights,
    vocabulary_size: int | KnowsVocabulary | None = None,
) -> csr_array:
    """Convert many texts for Milvus at once.

    Args:
        texts: One text's weights a row.
        vocabulary_size: Number of columns, or the encoder; ``LexicalWeights`` of an encoder know
            it themselves.

    Returns:
        Shape: (texts, vocabulary_size). Dtype: float32.

    Raises:
        TypeError: These are no texts' weights.
        ValueError: The number of columns is not known.

    Example:
        >>> to_milvus_csr([{7: 0.5}, {3: 0.25}], 10).toarray()[:, [3, 7]].tolist()
        [[0.0, 0.5], [0.25, 0.0]]
    """
    from m3_core.representations import LexicalWeights

    if vocabulary_size is None and isinstance(texts, LexicalWeights):
        vocabulary_size = texts.vocabulary_size
    if not isinstance(texts, Iterable):
        raise TypeError(f"weights of several texts must be a list of mappings; got {texts!r}")
    size = _size(vocabulary_size)
    cleaned = LexicalWeights.from_dicts(dict(entries(text)) for text in texts)
    return cleaned.to_scipy(size)


def to_elasticsearch(weights: Weights, tokens: Mapping[int, str] | None = None) -> dict[str, float]:
    """Convert for Elasticsearch ``sparse_vector``, OpenSearch ``rank_features`` and neural sparse.

    Documents store the mapping as it is; queries send it as ``query_vector`` of a
    ``sparse_vector`` query (Elasticsearch) or ``query_tokens`` of ``neural_sparse`` (OpenSearch).
    Both engines hold 9 significant bits of a weight, so scores are approximate there.

    Args:
        weights: One text's weights.
        tokens: Texts of tokens, to have readable keys. A dot in a key means a nested field to
            these engines: it becomes ``"\uff0e"`` (U+FF0E), and a key that would be empty, or that
            another token has already, becomes the token id.

    Returns:
        ``{feature: weight}``, weights above 0.

    Example:
        >>> to_elasticsearch({7: 0.5, 3: 0.25})
        {'3': 0.25, '7': 0.5}
        >>> to_elasticsearch({7: 0.5, 3: 0.25}, {3: "v1.5", 7: "panda"})
        {'v1．5': 0.25, 'panda': 0.5}
    """
    features: dict[str, float] = {}
    if not isinstance(tokens, Mapping | None):
        raise TypeError(f"tokens are a mapping of token ids to texts; got {shown(tokens)}")
    for token, weight in entries(weights):
        name = str(token)
        if tokens is not None:
            readable = str(tokens.get(token, name)).replace(".", "．").strip()
            name = readable if readable and readable not in features else name
        features[name] = weight
    return features


def to_vespa(weights: Weights) -> VespaTensor:
    """Convert for a Vespa field of type ``tensor<float>(token{})``.

    Args:
        weights: One text's weights.

    Returns:
        Cells by label; for a query, send them as ``input.query(name)``.

    Example:
        >>> to_vespa({7: 0.5, 3: 0.25})
        {'cells': {'3': 0.25, '7': 0.5}}
    """
    return {"cells": {str(token): weight for token, weight in entries(weights)}}


def to_sparsevec(weights: Weights, vocabulary_size: int | KnowsVocabulary) -> str:
    """Convert for pgvector's ``sparsevec``, whose indices begin at 1; search with ``<#>``.

    A ``sparsevec`` holds at most 16,000 values; an index on it only 1,000.

    Args:
        weights: One text's weights.
        vocabulary_size: Dimension of the column; or the encoder, whose vocabulary it is then.

    Returns:
        The text form, such as ``'{4:0.25,8:0.5}/10'``.

    Raises:
        ValueError: A token id does not fit the dimension, it is not known, or there are too many
            weights.

    Example:
        >>> to_sparsevec({7: 0.5, 3: 0.25}, 10)
        '{4:0.25,8:0.5}/10'
    """
    pairs, size = entries(weights), _size(vocabulary_size)
    if pairs and pairs[-1][0] >= size:
        raise ValueError(
            f"token id {pairs[-1][0]} does not fit into a sparsevec of dimension {size}"
        )
    if len(pairs) > 16_000:
        raise ValueError(f"a sparsevec holds at most 16000 values; got {len(pairs)}")
    cells = ",".join(f"{token + 1}:{weight!r}" for token, weight in pairs)
    return f"{{{cells}}}/{size}"


def merge_token_weights(
    token_ids: Iterable[int], weights: Iterable[float], ignored: Iterable[int] = ()
) -> dict[int, float]:
    """Make lexical weights of what servers give for each position of a text.

    Args:
        token_ids: The text's tokens.
        weights: One weight a token, as they come from the head.
        ignored: Token ids without a weight: the special tokens.

    Returns:
        ``{token id: largest weight}``, weights above 0 only, as FlagEmbedding.

    Raises:
        ValueError: There are more of one than of the other.

    Example:
        >>> merge_token_weights([0, 7, 3, 7, 2], [0.9, 0.5, -0.1, 0.75, 0.3], ignored=[0, 1, 2, 3])
        {7: 0.75}
    """
    merged: dict[int, float] = {}
    left_out = set(ignored)
    for token, weight in zip(token_ids, weights, strict=True):
        key, value = int(token), float(weight)
        if key not in left_out and value > merged.get(key, 0.0):
            merged[key] = value
    return merged
