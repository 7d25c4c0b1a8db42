"""The file of a lexical index, and how other files hold segments.

Segment i has the tensors ``i.ids`` with ``i.ids.offsets`` (UTF-8), ``i.tokens``, ``i.offsets``,
``i.rows``, ``i.weights`` (posting lists), and ``i.column.t`` for each token t that has a column.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.errors import IndexFileError
from m3_core.files import open_tensors, packed_strings, unpacked_strings, write_tensors
from m3_core.lexical_index.merging import merge
from m3_core.lexical_index.segments import Segment

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from m3_core.files import TensorFile

FORMAT = "m3-lexical-index"
VERSION = "1"

_COLUMN = "column."


def write_index(
    path: str | os.PathLike[str], segments: Sequence[Segment], fingerprint: str | None
) -> None:
    """Write a file, which takes the place of an older one when it is whole.

    Args:
        path: The file; if it is a link, what it points to is replaced.
        segments: In the order of adding.
        fingerprint: The model's, or ``None``.

    Raises:
        OSError: Something could not be written; ``path`` is as it was.
    """
    tensors: dict[str, NDArray[Any]] = {}
    for number, segment in enumerate(segments):
        living = merge([segment]) if segment.num_deleted else segment
        tensors |= segment_tensors(living, f"{number}.")
        tensors[f"{number}.ids"], tensors[f"{number}.ids.offsets"] = packed_strings(living.ids)
    metadata = {"format": FORMAT, "version": VERSION, "segments": str(len(segments))}
    if fingerprint is not None:
        metadata["fingerprint"] = fingerprint
    write_tensors(path, metadata, tensors)


def segment_tensors(segment: Segment, prefix: str) -> dict[str, NDArray[Any]]:
    """Say how a file holds the posting lists of a segment.

    Args:
        segment: The segment; nothing in it is deleted.
        prefix: Put before the names.

    Returns:
        The tensors; ids are not among them.
    """
    tensors: dict[str, NDArray[Any]] = {
        f"{prefix}tokens": segment.tokens,
        f"{prefix}offsets": segment.offsets,
        f"{prefix}rows": segment.rows,
        f"{prefix}weights": segment.weights,
    }
    # One tensor a column: they are never copied into one array.
    for token, column in segment.columns.items():
        tensors[f"{prefix}{_COLUMN}{token}"] = column
    return tensors


def read_index(
    path: str | os.PathLike[str], fingerprint: str | None
) -> tuple[tuple[Segment, ...], str | None]:
    """Read a file and check all of it.

    Args:
        path: The file.
        fingerprint: What the file's must be; ``None``: anything.

    Returns:
        Segments that are as safe to search as when they were written, and the fingerprint.

    Raises:
        OSError: The file is absent or cannot be read.
        IndexFileError: The file is cut, damaged or something else, or the fingerprint differs.
    """
    with open_tensors(path, "lexical index", FORMAT, VERSION) as file:
        found = file.metadata.get("fingerprint")
        if fingerprint is not None and found != fingerprint:
            raise IndexFileError(
                f"{Path(path)} was made with another model or other options: its fingerprint is "
                f"{found!r}, expected was {fingerprint!r}; load the model that it was made with "
                "or build the index anew"
            )
        segments, seen, known = [], set[str](), set[str]()
        for number in range(int(file.metadata["segments"])):
            prefix = f"{number}."
            ids = unpacked_strings(
                file.read(f"{prefix}ids", np.uint8, (None,)),
                file.read(f"{prefix}ids.offsets", np.int64, (None,)),
            )
            seen.update(ids)
            segments.append(read_segment(file, prefix, ids))
            known |= {name for name in file.names if name.startswith(prefix)}
        if len(seen) != sum(map(len, segments)):
            raise ValueError("an id comes twice")
        if known != file.names:
            raise ValueError(f"it holds {sorted(file.names - known)[:3]}, which belong to nothing")
    return tuple(segments), found


def read_segment(file: TensorFile, prefix: str, ids: list[str]) -> Segment:
    """Read the posting lists of a segment and check them.

    Args:
        file: The file.
        prefix: Of the names.
        ids: The segment's documents.

    Returns:
        The segment.

    Raises:
        KeyError: Something is absent.
        ValueError: Something in it cannot be.
    """
    tokens = file.read(f"{prefix}tokens", np.int32, (None,))
    offsets = file.read(f"{prefix}offsets", np.int64, (len(tokens) + 1,))
    rows = file.read(f"{prefix}rows", np.int32, (None,))
    weights = file.read(f"{prefix}weights", np.float32, (len(rows),))
    start = f"{prefix}{_COLUMN}"
    columns = {
        int(name.removeprefix(start)): file.read(name, np.float32, (len(ids),))
        for name in sorted(file.names)
        if name.startswith(start)
    }
    if not ids:
        raise ValueError("a segment holds no document")
    if (np.diff(tokens) <= 0).any() or (len(tokens) and tokens[0] < 0):
        raise ValueError("the token ids of the posting lists do not ascend")
    if offsets[0] != 0 or offsets[-1] != len(rows) or (np.diff(offsets) < 0).any():
        raise ValueError("the offsets do not divide the posting lists")
    _check_rows(rows, offsets, len(ids))
    if not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError("a weight is not above 0 and finite")
    for token, column in columns.items():
        if not (np.isfinite(column) & (column >= 0)).all():
            raise ValueError("a weight of a column is negative or not finite")
        place = int(np.searchsorted(tokens, token))
        has_list = place < len(tokens) and tokens[place] == token
        if not 0 <= token < 2**31 or (has_list and offsets[place] < offsets[place + 1]):
            raise ValueError(f"token {token} cannot have a column")
    return Segment.of(ids, tokens, offsets, rows, weights, columns)


def _check_rows(rows: NDArray[np.int32], offsets: NDArray[np.int64], num_documents: int) -> None:
    if len(rows) and (rows.min() < 0 or rows.max() >= num_documents):
        raise ValueError("a posting list names a document that is not there")
    # Where a list begins, the row may be any.
    falls = np.flatnonzero(np.diff(rows) <= 0) + 1
    if not np.isin(falls, offsets).all():
        raise ValueError("the documents of a posting list do not ascend")
