"""Arrays in one safetensors file, with checksums of everything, which safetensors has none of.

The metadata hold the CRC-32 of each tensor under ``checksums`` and, under ``checksum``, that of the
header itself with zeros in its place: a file in which any byte has changed is not read, nor one
that was put together of two.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from m3_core.errors import IndexFileError
from m3_core.files.aside import remove_leftovers, replacing_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

# Larger first, so that each begins at a multiple of its own size.
_DTYPES: dict[str, type[np.generic]] = {
    "I64": np.int64,
    "F32": np.float32,
    "I32": np.int32,
    "F16": np.float16,
    "U8": np.uint8,
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_ORDER = list(_DTYPES)
# As safetensors: a longer header is none.
_LONGEST_HEADER = 100_000_000
_ALIGNMENT = 8
_NO_SUM = "00000000"
# What reading a file that is something else may raise.
_DAMAGES = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True, slots=True, eq=False)
class TensorParts:
    """A tensor that is never in memory as a whole.

    Attributes:
        dtype: Its type.
        shape: Its shape.
        parts: Arrays that follow one another along the first axis.
    """

    dtype: Any
    shape: tuple[int, ...]
    parts: Iterable[NDArray[Any]]


def write_tensors(
    path: str | os.PathLike[str],
    metadata: Mapping[str, str],
    tensors: Mapping[str, NDArray[Any] | TensorParts],
) -> None:
    """Write a file, which takes the place of an older one when it is whole.

    Args:
        path: The file.
        metadata: Anything but ``checksums`` and ``checksum``.
        tensors: Of float32, float16, int64, int32 or uint8.

    Raises:
        IsADirectoryError: There is a folder of that name.
        OSError: Something could not be written; the older file is as it was.
    """
    listed = {
        name: one if isinstance(one, TensorParts) else TensorParts(one.dtype, one.shape, (one,))
        for name, one in tensors.items()
    }
    names = sorted(listed, key=lambda name: _ORDER.index(_NAMES[np.dtype(listed[name].dtype)]))
    described, end = {}, 0
    for name in names:
        one = listed[name]
        start, end = end, end + math.prod(one.shape) * np.dtype(one.dtype).itemsize
        described[name] = {
            "dtype": _NAMES[np.dtype(one.dtype)],
            "shape": list(one.shape),
            "data_offsets": [start, end],
        }
    with replacing_file(path) as file:
        # As long as the one that takes its place when the checksums are known.
        file.write(_header(metadata, dict.fromkeys(names, _NO_SUM), described))
        sums = {name: _written(file, listed[name]) for name in names}
        file.seek(0)
        file.write(_header(metadata, sums, described))


def _header(
    metadata: Mapping[str, str], sums: Mapping[str, str], described: Mapping[str, Any]
) -> bytes:
    def encoded(own: str) -> bytes:
        own_metadata = {"checksum": own, **metadata, "checksums": json.dumps(sums)}
        content = {"__metadata__": own_metadata, **described}
        return json.dumps(content, separators=(",", ":")).encode()

    whole = encoded(_NO_SUM)
    padding = b" " * (-len(whole) % _ALIGNMENT)
    whole = encoded(f"{zlib.crc32(whole + padding):08x}") + padding
    return len(whole).to_bytes(8, "little") + whole


def _written(file: BinaryIO, tensor: TensorParts) -> str:
    checksum, written = 0, 0
    for part in tensor.parts:
        array = np.ascontiguousarray(part, tensor.dtype)
        if array.size:
            content = array.reshape(-1).view(np.uint8).data
            checksum = zlib.crc32(content, checksum)
            file.write(content)
            written += array.size
    if written != math.prod(tensor.shape):
        raise AssertionError(f"{written} values were given for the shape {tensor.shape}")
    return f"{checksum:08x}"


class TensorFile:
    """An open file of tensors; ``check`` checks its header, each tensor is when it is read.

    Args:
        file: The file.

    Attributes:
        metadata: As ``write_tensors`` got them.

    Raises:
        ValueError: It has no header.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise ValueError("its header is longer than the file or than a header can be")
        self._raw, self._start = file.read(length), 8 + length
        self._size = size - self._start
        self._header = json.loads(self._raw)
        self.metadata: dict[str, str] = self._header.pop("__metadata__")
        if not all(isinstance(value, str) for value in self.metadata.values()):
            raise ValueError("its metadata are no strings")
        self._sums: dict[str, str] = {}
        self._places: dict[str, _Place] = {}

    def check(self) -> None:
        """Check all of the header.

        Raises:
            ValueError: It does not fit its checksum or the file.
        """
        own = self.metadata["checksum"]
        # Inside of a string there would be a backslash before each quotation mark.
        key = b'"checksum":"'
        blank = self._raw.replace(key + own.encode(), key + _NO_SUM.encode(), 1)
        if f"{zlib.crc32(blank):08x}" != own:
            raise ValueError("the header does not fit its checksum")
        self._sums = json.loads(self.metadata["checksums"])
        if self._header.keys() != self._sums.keys():
            raise ValueError("tensors and checksums differ in their names")
        self._places = _checked_places(self._header, self._size)

    @property
    def names(self) -> frozenset[str]:
        """Names of the tensors."""
        return frozenset(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._places[name].shape

    def dtype(self, name: str) -> type[np.generic]:
        """The type of a tensor's values."""
        return self._places[name].dtype

    def read(self, name: str, dtype: type[np.generic], shape: Sequence[int | None]) -> NDArray[Any]:
        """Read a tensor.

        Args:
            name: Its name.
            dtype: Its type.
            shape: Its shape; ``None`` where any length will do.

        Returns:
            A new array.

        Raises:
            KeyError: There is none of that name.
            ValueError: Type, shape or checksum are others.
        """
        (whole,) = self.read_parts(name, dtype, shape, None)
        return whole

    def read_parts(
        self,
        name: str,
        dtype: type[np.generic],
        shape: Sequence[int | None],
        rows: Iterable[int] | None,
    ) -> Iterator[NDArray[Any]]:
        """Read a tensor in parts, whose checksum is known after the last one.

        Args:
            name: As of ``read``.
            dtype: As of ``read``.
            shape: As of ``read``.
            rows: The length of each part along the first axis; ``None``: one part.

        Yields:
            New arrays.

        Raises:
            KeyError: There is none of that name.
            ValueError: Type, shape or checksum are others, or the parts are not all of it.
        """
        place = self._places[name]
        if place.dtype != dtype or len(place.shape) != len(shape):
            raise ValueError(f"{name} is {place.dtype} of shape {place.shape}")
        if any(want is not None and want != have for want, have in zip(shape, place.shape)):  # noqa: B905
            raise ValueError(f"{name} has the shape {place.shape}, expected was {tuple(shape)}")
        lengths = [place.shape[0]] if rows is None else list(rows)
        if sum(lengths) != place.shape[0] or min(lengths, default=0) < 0:
            raise ValueError(f"the parts of {name} are not all of its {place.shape[0]} rows")
        self._file.seek(self._start + place.start)
        checksum = 0
        for length in lengths:
            array = np.empty((length, *place.shape[1:]), dtype)
            if array.size:
                content = array.reshape(-1).view(np.uint8).data
                if self._file.readinto(content) != array.nbytes:  # type: ignore[attr-defined]
                    raise ValueError("the file was cut while it was read")
                checksum = zlib.crc32(content, checksum)
            yield array
        if f"{checksum:08x}" != self._sums[name]:
            raise ValueError(f"{name} does not fit its checksum")


@dataclass(frozen=True, slots=True)
class _Place:
    dtype: type[np.generic]
    shape: tuple[int, ...]
    start: int
    stop: int


def _checked_places(header: Mapping[str, Any], size: int) -> dict[str, _Place]:
    places = {}
    for name, one in header.items():
        numbers = [*one["shape"], *one["data_offsets"]]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError(f"shape and place of {name} are no numbers")
        start, stop = one["data_offsets"]
        place = _Place(_DTYPES[one["dtype"]], tuple(one["shape"]), start, stop)
        if math.prod(place.shape) * np.dtype(place.dtype).itemsize != stop - start:
            raise ValueError(f"the shape of {name} does not fit its place")
        places[name] = place
    end = 0
    for place in sorted(places.values(), key=lambda one: (one.start, one.stop)):
        if place.start != end:
            raise ValueError("there are gaps between its tensors, or they overlap")
        end = place.stop
    if end != size:
        raise ValueError(f"its tensors take {end} bytes, and there are {size}")
    return places


@contextmanager
def open_tensors(
    path: str | os.PathLike[str], what: str, form: str, version: str
) -> Iterator[TensorFile]:
    """Open a file that ``write_tensors`` has written.

    Args:
        path: The file. What killed writers of it have left beside it is removed.
        what: What it should hold, for errors.
        form: What its metadata must have under ``format``.
        version: And under ``version``.

    Yields:
        The file. Errors of whoever takes its content for what it is not become ``IndexFileError``.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be read.
        IndexFileError: It is cut, damaged or something else.
    """
    path = Path(path)
    remove_leftovers(path)
    if path.is_dir():
        raise IndexFileError(f"{path} is a folder, and a {what} is one file: give its name")
    with path.open("rb") as file:
        try:
            tensors = TensorFile(file)
            found = tensors.metadata.get("format")
            if found != form:
                raise ValueError(f"its format is {found!r}, not {form!r}")
            if tensors.metadata["version"] != version:
                raise IndexFileError(
                    f"{path} is a {what} of format {tensors.metadata['version']!r}; this version "
                    f"of the package reads format {version!r}: make it anew or use the version "
                    "that wrote it"
                )
            tensors.check()
            yield tensors
        except _DAMAGES as error:
            raise IndexFileError(
                f"{path} is no {what}, cut or damaged ({error}); restore it or make it anew"
            ) from error
