"""Encoding documents that are to be stored, some at a time and in the form they are stored in."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.beside import beside
from m3_core.collection.vectors import check_finite
from m3_core.encoder import PARTS
from m3_core.representations import MultiVectors, Representations
from m3_core.texts import CheckedTexts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from m3_core.encoder import CachedEncoder

# Texts encoded at a time: with the widest models some hundred MiB until they are stored.
CHUNK_CHARACTERS = 1 << 18


def encode_in_chunks(
    encodings: CachedEncoder, texts: CheckedTexts, *, show_progress: bool
) -> list[Representations]:
    """Encode documents; never more than one chunk is in memory otherwise than it is stored.

    Args:
        encodings: The encoder's view.
        texts: The documents.
        show_progress: Show a progress bar.

    Returns:
        Their representations, in order, as ``kept`` gives them.
    """
    chunks = list(_chunks(texts))
    with _bar(texts, chunks, show=show_progress) as advance:
        found = []
        for chunk in chunks:
            # Not remembered: who stores them would only drive others' texts out.
            reps = encodings.documents(
                chunk, show_progress=show_progress and len(chunks) == 1, remember=False
            )
            found.append(kept(reps, encodings.parts))
            advance(len(chunk))
        return found


async def aencode_in_chunks(
    encodings: CachedEncoder, texts: CheckedTexts, *, show_progress: bool
) -> list[Representations]:
    """Do ``encode_in_chunks`` without holding up the event loop."""
    chunks = list(_chunks(texts))
    with _bar(texts, chunks, show=show_progress) as advance:
        found = []
        for chunk in chunks:
            reps = await encodings.adocuments(
                chunk, show_progress=show_progress and len(chunks) == 1, remember=False
            )
            found.append(await beside(kept, reps, encodings.parts))
            advance(len(chunk))
        return found


def kept(reps: Representations, parts: Sequence[str]) -> Representations:
    """Copy representations into the form in which they are stored.

    Args:
        reps: Of documents.
        parts: What is stored of ``"dense"``, ``"sparse"`` and ``"colbert"``.

    Returns:
        These parts; multi-vectors in float16.

    Raises:
        NonFiniteError: A vector holds NaN or infinity.
        ValueError: A part is absent.
    """
    values: dict[str, Any] = {PARTS[part]: getattr(reps, PARTS[part]) for part in parts}
    absent = [name for name, value in values.items() if value is None]
    if absent:
        raise ValueError(f"the encoder gave no {' and no '.join(absent)}, which are stored here")
    if "dense" in parts:
        dense = np.array(reps.dense_vecs, np.float32, order="C")
        check_finite(dense, "dense vectors")
        values[PARTS["dense"]] = dense
    if reps.colbert_vecs is not None and "colbert" in parts:
        # What float16 cannot hold becomes infinite and is refused.
        with np.errstate(over="ignore"):
            halves = np.array(reps.colbert_vecs.vectors, np.float16, order="C")
        check_finite(halves, "multi-vectors")
        values[PARTS["colbert"]] = MultiVectors(halves, reps.colbert_vecs.offsets)
    return Representations(**values)


def _chunks(texts: CheckedTexts) -> Iterator[CheckedTexts]:
    first = size = 0
    for number, text in enumerate(texts):
        size += len(text)
        if size >= CHUNK_CHARACTERS:
            yield texts if first == 0 and number + 1 == len(texts) else _part(texts, first, number)
            first, size = number + 1, 0
    if first < len(texts):
        yield texts if first == 0 else _part(texts, first, len(texts) - 1)


def _part(texts: CheckedTexts, first: int, last: int) -> CheckedTexts:
    return CheckedTexts(texts[first : last + 1])


@contextmanager
def _bar(
    texts: CheckedTexts, chunks: Sequence[CheckedTexts], *, show: bool
) -> Iterator[Callable[[int], object]]:
    if not show or len(chunks) < 2:
        yield lambda number: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=len(texts), desc="Encoding", unit="text") as bar:
        yield bar.update
