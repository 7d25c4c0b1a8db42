"""One text's part of a batch of representations: taken out to be kept, put together again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.encoder.protocol import PARTS
from m3_core.representations import LexicalWeights, MultiVectors, Representations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Rows = dict[str, tuple["NDArray[Any]", ...]]
"""Arrays that own their memory, by the name of what they are."""


def rows_of(reps: Representations, named: Mapping[str, str]) -> list[Rows]:
    """Take the texts of a batch apart.

    Args:
        reps: Of all texts.
        named: The parts, and under which names the rows shall have them.

    Returns:
        Each text's rows; copies, since a view of one text would keep its whole batch in memory.
    """
    rows: list[Rows] = [{} for _ in range(len(reps))]
    for name, key in named.items():
        part = getattr(reps, PARTS[name])
        for i, row in enumerate(rows):
            if name == "dense":
                row[key] = (part[i].copy(),)
                continue
            own = slice(part.offsets[i], part.offsets[i + 1])
            arrays = (part.token_ids, part.weights) if name == "sparse" else (part.vectors,)
            row[key] = tuple(array[own].copy() for array in arrays)
    return rows


def assembled(
    found: list[Rows],
    order: NDArray[np.int64],
    named: Mapping[str, str],
    vocabulary_size: int | None,
) -> Representations:
    """Put texts together.

    Args:
        found: Rows of the distinct texts.
        order: For each text its number among them. Shape: (texts,).
        named: The parts that are wanted, and under which names the rows have them.
        vocabulary_size: Of the lexical weights.

    Returns:
        These parts of all texts.
    """
    rows = [found[row] for row in order.tolist()]
    parts: dict[str, Any] = {}
    for name, key in named.items():
        columns = list(zip(*(row[key] for row in rows), strict=True))
        if name == "dense":
            parts[PARTS[name]] = np.stack(columns[0])
            continue
        kind: Any = LexicalWeights if name == "sparse" else MultiVectors
        offsets = np.cumsum([0, *map(len, columns[0])], dtype=np.int64)
        known = {"vocabulary_size": vocabulary_size} if name == "sparse" else {}
        parts[PARTS[name]] = kind(*map(np.concatenate, columns), offsets, **known)
    return Representations(**parts)


def size_of(rows: Rows) -> int:
    """Bytes that a text's rows take."""
    return sum(sys.getsizeof(array) for arrays in rows.values() for array in arrays)
