"""What encoding returns: ragged arrays on the host, frozen, checked when made, sliceable.

Nothing here imports torch: representations can be stored, scored and indexed without a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from m3_core.values import as_array, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array


def checked_offsets(offsets: Any, num_items: int, what: str) -> NDArray[np.int64]:
    """Row boundaries as int64, from 0 up to ``num_items``, never decreasing.

    Args:
        offsets: Any array-like of whole numbers. Shape: (rows + 1,).
        num_items: How many items the rows divide among themselves.
        what: The items' name for the error text.

    Returns:
        Shape: (rows + 1,). Dtype: int64.

    Raises:
        ValueError: The boundaries do not describe consecutive rows over all items.
    """
    array: NDArray[np.int64] = np.ascontiguousarray(as_array(offsets, np.int64, "offsets"))
    if array.ndim != 1 or not len(array) or array[0] != 0 or array[-1] != num_items:
        raise ValueError(
            f"offsets must run from 0 to the number of {what} ({num_items}) in one dimension; "
            f"got shape {array.shape}, first and last {array[:1]}, {array[-1:]}"
        )
    if (np.diff(array) < 0).any():
        raise ValueError("offsets must never decrease")
    return array


def ragged_positions(
    offsets: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the items of some rows, and the offsets of those rows put one after another."""
    lengths = offsets[rows + 1] - offsets[rows]
    new_offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    starts = np.repeat(offsets[rows] - new_offsets[:-1], lengths)
    return starts + np.arange(new_offsets[-1]), new_offsets


def _rows(index: slice | Sequence[int] | NDArray[np.int64], num_rows: int) -> NDArray[np.int64]:
    if isinstance(index, slice):
        return np.arange(num_rows)[index]
    rows = as_array(index, None, "rows")
    if rows.ndim != 1:
        raise IndexError(f"rows are a list of whole numbers; got {shown(index)}")
    if rows.dtype == bool:
        return np.flatnonzero(rows)
    rows = rows.astype(np.int64)
    if len(rows) and (rows.min() < -num_rows or rows.max() >= num_rows):
        raise IndexError(f"row {rows.max()} asked for, there are {num_rows}")
    return np.where(rows < 0, rows + num_rows, rows)


def _row(index: int, num_rows: int) -> int:
    row = index + num_rows if index < 0 else index
    if not 0 <= row < num_rows:
        raise IndexError(f"row {index} asked for, there are {num_rows}")
    return row


@dataclass(frozen=True, slots=True, eq=False)
class LexicalWeights(Sequence[dict[int, float]]):
    """Sparse weights of texts as the rows of a CSR matrix over token ids.

    ``weights[i]`` is text i as ``{token id: weight}`` with plain ``int`` and ``float``; a slice or
    a list of rows gives another ``LexicalWeights``.

    Attributes:
        token_ids: Token ids, row after row. Shape: (entries,). Dtype: int32.
        weights: Their weights. Shape: (entries,). Dtype: float32.
        offsets: Row i is the entries from ``offsets[i]`` to ``offsets[i + 1]``.
            Shape: (texts + 1,). Dtype: int64.
        vocabulary_size: Number of token ids of the model that gave them; ``None`` if not known.
    """

    token_ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    offsets: NDArray[np.int64]
    vocabulary_size: int | None = None

    def __post_init__(self) -> None:
        token_ids = np.ascontiguousarray(as_array(self.token_ids, np.int32, "token_ids"))
        weights = np.ascontiguousarray(as_array(self.weights, np.float32, "weights"))
        if token_ids.ndim != 1 or token_ids.shape != weights.shape:
            raise ValueError(
                f"token_ids and weights must be of one dimension and equal length; "
                f"got {token_ids.shape} and {weights.shape}"
            )
        object.__setattr__(self, "token_ids", token_ids)
        object.__setattr__(self, "weights", weights)
        offsets = checked_offsets(self.offsets, len(token_ids), "weights")
        object.__setattr__(self, "offsets", offsets)

    @classmethod
    def from_dicts(cls, rows: Iterable[Mapping[int, float]]) -> LexicalWeights:
        """Build from one ``{token id: weight}`` a text, as FlagEmbedding's keys or ours.

        Args:
            rows: One mapping a text. Keys may be ``int`` or, as FlagEmbedding's, ``str``.

        Returns:
            The rows with token ids in ascending order.

        Raises:
            TypeError: A row is no mapping, or a token id or a weight no number.
            ValueError: A token id is not written as a number, or does not fit into 32 bits.
        """
        cleaned = [_entries(number, row) for number, row in enumerate(rows)]
        entries = [entry for row in cleaned for entry in row]
        try:
            token_ids = np.array([token for token, _ in entries], np.int32)
        except OverflowError as error:
            raise ValueError("a token id does not fit into 32 bits") from error
        return cls(
            token_ids,
            np.array([weight for _, weight in entries], np.float32),
            np.cumsum([0, *map(len, cleaned)], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> dict[int, float]: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | NDArray[Any]) -> LexicalWeights: ...
    def __getitem__(self, index: Any) -> dict[int, float] | LexicalWeights:
        if isinstance(index, (int, np.integer)):
            row = _row(int(index), len(self))
            part = slice(self.offsets[row], self.offsets[row + 1])
            return dict(
                zip(self.token_ids[part].tolist(), self.weights[part].tolist(), strict=True)
            )
        positions, offsets = ragged_positions(self.offsets, _rows(index, len(self)))
        return LexicalWeights(
            self.token_ids[positions], self.weights[positions], offsets, self.vocabulary_size
        )

    def __repr__(self) -> str:
        return f"LexicalWeights(texts={len(self)}, entries={len(self.token_ids)})"

    def to_scipy(self, vocabulary_size: int | None = None) -> csr_array:
        """View as a scipy matrix.

        Args:
            vocabulary_size: Number of columns; by default that of the model, or the largest token
                id plus one if it is not known.

        Returns:
            Shape: (texts, vocabulary_size). Dtype: float32.

        Raises:
            ValueError: That is no number of columns, or too small for the token ids.
        """
        from scipy.sparse import csr_array

        if vocabulary_size is None:
            vocabulary_size = self.vocabulary_size
        least = int(self.token_ids.max(initial=-1)) + 1
        if vocabulary_size is None:
            vocabulary_size = least
        if not isinstance(vocabulary_size, (int, np.integer)) or not (
            least <= vocabulary_size <= np.iinfo(np.int32).max
        ):
            raise ValueError(
                f"vocabulary_size is {shown(vocabulary_size)}; it must be a whole number from "
                f"{least}, by the token ids that are there, to {np.iinfo(np.int32).max}"
            )
        return csr_array(
            (self.weights, self.token_ids, self.offsets), shape=(len(self), vocabulary_size)
        )


def _entries(number: int, row: Mapping[int, float]) -> list[tuple[int, float]]:
    if not isinstance(row, Mapping):
        raise TypeError(
            "the lexical weights of a text are {token id: weight}, as reps.lexical_weights[0]; "
            f"text {number} has {shown(row)} of type {type(row).__name__}"
        )
    try:
        return sorted((int(token), float(weight)) for token, weight in row.items())
    except (TypeError, ValueError, OverflowError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"{{token id: weight}} holds numbers; those of text {number} are none: {error}"
        ) from error


@dataclass(frozen=True, slots=True, eq=False)
class MultiVectors(Sequence["NDArray[np.floating[Any]]"]):
    """ColBERT vectors of texts, row after row in one array.

    ``vectors[i]`` is a view of text i's vectors; a slice or a list of rows gives another
    ``MultiVectors``.

    Attributes:
        vectors: Shape: (tokens of all texts, dim). Dtype: float32 or float16.
        offsets: Text i owns the rows from ``offsets[i]`` to ``offsets[i + 1]``.
            Shape: (texts + 1,). Dtype: int64.
    """

    vectors: NDArray[np.floating[Any]]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        vectors = as_array(self.vectors, None, "vectors")
        if vectors.ndim != 2:
            raise ValueError(f"vectors must have the shape (tokens, dim); got {vectors.shape}")
        if vectors.dtype not in (np.float32, np.float16):
            vectors = vectors.astype(np.float32)
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "offsets", checked_offsets(self.offsets, len(vectors), "vectors"))

    @classmethod
    def from_arrays(cls, arrays: Iterable[NDArray[np.floating[Any]]]) -> MultiVectors:
        """Build from one (tokens, dim) array a text.

        Args:
            arrays: At least one array; all of one width.

        Returns:
            The arrays, one after another.

        Raises:
            ValueError: There is no array, or their widths differ.
        """
        rows = [as_array(array, None, "vectors") for array in arrays]
        if not rows:
            raise ValueError("from_arrays needs at least one array to know the dimension")
        return cls(np.concatenate(rows), np.cumsum([0, *map(len, rows)], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> NDArray[np.floating[Any]]: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | NDArray[Any]) -> MultiVectors: ...
    def __getitem__(self, index: Any) -> NDArray[np.floating[Any]] | MultiVectors:
        if isinstance(index, (int, np.integer)):
            row = _row(int(index), len(self))
            return self.vectors[self.offsets[row] : self.offsets[row + 1]]
        rows = _rows(index, len(self))
        if len(rows) and (np.diff(rows) == 1).all():
            start, stop = self.offsets[rows[0]], self.offsets[rows[-1] + 1]
            return MultiVectors(
                self.vectors[start:stop], self.offsets[rows[0] : rows[-1] + 2] - start
            )
        positions, offsets = ragged_positions(self.offsets, rows)
        return MultiVectors(self.vectors[positions], offsets)

    def __repr__(self) -> str:
        return f"MultiVectors(texts={len(self)}, shape={self.vectors.shape})"


@dataclass(frozen=True, slots=True, eq=False)
class Representations:
    """The representations of some texts, in the order in which the texts were given.

    What was not asked for is ``None``. ``reps[i:j]`` and ``reps[[3, 1]]`` give the representations
    of those texts alone; ``reps[i]`` those of one text, as ``Representations`` of length 1.

    Attributes:
        dense_vecs: Shape: (texts, dim). Dtype: float32.
        lexical_weights: One ``{token id: weight}`` a text, stored as CSR.
        colbert_vecs: One (tokens, dim) array a text. Dtype: float32 or float16.
    """

    dense_vecs: NDArray[np.float32] | None = None
    lexical_weights: LexicalWeights | None = None
    colbert_vecs: MultiVectors | None = None

    def __post_init__(self) -> None:
        if self.dense_vecs is not None:
            dense = as_array(self.dense_vecs, np.float32, "dense_vecs")
            if dense.ndim != 2:
                raise ValueError(f"dense_vecs must have the shape (texts, dim); got {dense.shape}")
            object.__setattr__(self, "dense_vecs", dense)
        lengths = {name: len(part) for name, part in self._parts().items()}
        if not lengths:
            raise ValueError("Representations needs at least one of its three parts")
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the parts describe different numbers of texts: {lengths}")

    def _parts(self) -> dict[str, Any]:
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: part for name, part in parts.items() if part is not None}

    def __len__(self) -> int:
        return len(next(iter(self._parts().values())))

    def __repr__(self) -> str:
        parts = self._parts()
        if self.dense_vecs is not None:
            parts["dense_vecs"] = f"array{self.dense_vecs.shape}"
        shown = "".join(f", {name}={part}" for name, part in parts.items())
        return f"Representations(texts={len(self)}{shown})"

    def __getitem__(self, index: int | slice | Sequence[int] | NDArray[Any]) -> Representations:
        if isinstance(index, str):
            raise TypeError(
                f"rows of Representations are chosen by number; got {index!r}: its parts are the "
                "attributes dense_vecs, lexical_weights and colbert_vecs"
            )
        if isinstance(index, (int, np.integer)):
            index = [_row(int(index), len(self))]
        rows = _rows(index, len(self))
        return Representations(**{name: part[rows] for name, part in self._parts().items()})

    def dense_lists(self) -> list[list[float]]:
        """Give the dense vectors as the frameworks want them.

        Returns:
            One list of Python floats a text.

        Raises:
            ValueError: Dense vectors were not encoded.
        """
        if self.dense_vecs is None:
            raise ValueError("dense vectors were not encoded: set return_dense=True")
        lists: list[list[float]] = self.dense_vecs.tolist()
        return lists

    @classmethod
    def concatenate(cls, parts: Sequence[Representations]) -> Representations:
        """Put representations one after another.

        Args:
            parts: At least one; all with the same parts present.

        Returns:
            The texts of all parts, in order.

        Raises:
            ValueError: There is nothing to concatenate, or the parts hold different things.
        """
        if not isinstance(parts, Sequence) or not parts:
            raise ValueError("concatenate needs a list of at least one Representations")
        for part in parts:
            if not isinstance(part, Representations):
                raise TypeError(f"concatenate joins Representations; got {shown(part)}")
        kinds = {tuple(part._parts()) for part in parts}
        if len(kinds) > 1:
            raise ValueError(f"the parts hold different representations: {sorted(kinds)}")
        if len(parts) == 1:
            return parts[0]
        joined: dict[str, Any] = {}
        for name in parts[0]._parts():
            values = [getattr(part, name) for part in parts]
            if name == "dense_vecs":
                joined[name] = np.concatenate(values)
                continue
            arrays = [
                np.concatenate([getattr(value, field.name) for value in values])
                for field in fields(values[0])
                if field.name not in ("offsets", "vocabulary_size")
            ]
            lengths = np.concatenate([np.diff(value.offsets) for value in values])
            offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
            known: dict[str, Any] = {}
            if name == "lexical_weights" and len({one.vocabulary_size for one in values}) == 1:
                known["vocabulary_size"] = values[0].vocabulary_size
            joined[name] = type(values[0])(*arrays, offsets, **known)
        return cls(**joined)
