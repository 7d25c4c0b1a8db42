"""Checking what callers hand to the lexical index, before anything is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from m3_core.representations import LexicalWeights
from m3_core.values import shown


def checked_ids(ids: Iterable[str]) -> list[str]:
    """Return ids as a list.

    Args:
        ids: Strings; a single string is refused, since its letters would pass for ids.

    Returns:
        The ids.

    Raises:
        TypeError: An element, or the whole, is not what it should be.
    """
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise TypeError(f"ids must be a list or another collection of str; got {shown(ids)}")
    checked = list(ids)
    for document in checked:
        if not isinstance(document, str):
            raise TypeError(f"ids must be str; got {shown(document)} of {type(document).__name__}")
    return checked


def checked_weights(texts: LexicalWeights | Iterable[Mapping[int, float]]) -> LexicalWeights:
    """Return weights that can be scored, all above 0.

    Args:
        texts: Weights; those of 0 are left out.

    Returns:
        The texts in order.

    Raises:
        TypeError: A single mapping was given, or a text's weights are no mapping.
        ValueError: A weight is negative, NaN or infinite, or a token id no int32 from 0 on.
    """
    if isinstance(texts, Mapping):
        raise TypeError("weights of several texts must be a list of mappings; got one mapping")
    if not isinstance(texts, LexicalWeights):
        if not isinstance(texts, Iterable):
            raise TypeError(
                f"weights of several texts must be a list of mappings; got {shown(texts)}"
            )
        with np.errstate(over="ignore"):
            texts = LexicalWeights.from_dicts(texts)
    if len(texts.token_ids) and texts.token_ids.min() < 0:
        raise ValueError(f"token ids must not be negative; got {texts.token_ids.min()}")
    wrong = np.flatnonzero(~(np.isfinite(texts.weights) & (texts.weights >= 0)))
    if len(wrong):
        text = int(np.searchsorted(texts.offsets, wrong[0], side="right")) - 1
        raise ValueError(
            f"weights must be finite in float32 and not negative; text {text} gives token "
            f"{texts.token_ids[wrong[0]]} the weight {texts.weights[wrong[0]]}"
        )
    if texts.weights.all():
        return texts
    kept = texts.weights > 0
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
    return LexicalWeights(
        texts.token_ids[kept], texts.weights[kept], before[texts.offsets], texts.vocabulary_size
    )
