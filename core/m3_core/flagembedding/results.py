"""Results in FlagEmbedding's shapes: dictionaries of arrays, dicts and lists."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from m3_core.network import TokenBatch
    from m3_core.representations import Representations


def as_dict(
    found: Representations, tokens: TokenBatch | None = None, *, single: bool
) -> dict[str, Any]:
    """Turn representations into the dictionary that ``BGEM3FlagModel.encode`` gives.

    Args:
        found: Of some texts.
        tokens: Those of the texts, to give weights in their order; in that of ids if ``None``.
        single: There was one text and no list: its results come without one.

    Returns:
        ``"dense_vecs"``, ``"lexical_weights"`` and ``"colbert_vecs"``, ``None`` where absent.

    Example:
        >>> from m3_core.representations import LexicalWeights, Representations
        >>> lexical = LexicalWeights.from_dicts([{7: 0.5}, {}])
        >>> as_dict(Representations(lexical_weights=lexical), single=False)["lexical_weights"]
        [{'7': 0.5}, {}]
    """
    lexical, colbert = found.lexical_weights, found.colbert_vecs
    results: dict[str, Any] = {
        "dense_vecs": found.dense_vecs,
        "lexical_weights": None,
        "colbert_vecs": None,
    }
    if lexical is not None:
        results["lexical_weights"] = [
            {str(token_id): row[token_id] for token_id in _order(row, tokens, i)}
            for i, row in enumerate(lexical)
        ]
    if colbert is not None:
        results["colbert_vecs"] = [np.asarray(colbert[i], np.float32) for i in range(len(colbert))]
    if single:
        return {key: None if value is None else value[0] for key, value in results.items()}
    return results


def _order(row: Mapping[int, float], tokens: TokenBatch | None, text: int) -> Iterable[int]:
    if tokens is None:
        return row
    ids = tokens.ids[tokens.offsets[text] : tokens.offsets[text + 1]].tolist()
    return [token for token in dict.fromkeys(ids) if token in row]


def matching_scores(
    first: Sequence[Mapping[str, float]], second: Sequence[Mapping[str, float]]
) -> NDArray[np.float64]:
    """Sum the products of the weights of shared tokens, for all pairs of two lists.

    Args:
        first: ``{token: weight}`` of some texts, the tokens as ids or texts.
        second: The same of others.

    Returns:
        Shape: (first, second). Dtype: float64.

    Example:
        >>> matching_scores([{"a": 1.0, "b": 2.0}], [{"b": 0.5}, {"c": 9.0}]).tolist()
        [[1.0, 0.0]]
    """
    rows_of_token: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    for row, weights in enumerate(second):
        for token, weight in weights.items():
            rows_of_token[token].append((row, weight))
    scores = np.zeros((len(first), len(second)))
    for i, weights in enumerate(first):
        for token, weight in weights.items():
            for row, other in rows_of_token.get(token, ()):
                scores[i, row] += weight * other
    return scores
