"""The tensors of a checkpoint's network, from its files to where they shall lie.

First every tensor is asked for by name and shape, then all are read, a part at a time: of
safetensors no second copy is ever held, in whatever type they are stored. What int8 takes the place
of is quantised part by part too.
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from safetensors import safe_open

from m3_core.errors import CorruptCheckpointError
from m3_core.network.checkpoint import read_json
from m3_core.network.device import float_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# In the order in which transformers looks for them.
_FILES = ("model.safetensors", "pytorch_model.bin")
_VALUES_AT_ONCE = 1 << 22
# What a model's tensors are called within one that has a head on top.
_PREFIXES = ("roberta.", "bert.")
# The names of TensorFlow's first BERT checkpoints.
_LEGACY = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


class Target(Protocol):
    """Where a tensor of the files goes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's."""

    def write(self, start: int, rows: torch.Tensor) -> None:
        """Take some rows of the tensor.

        Args:
            start: Which is the first of them.
            rows: As stored.
        """


@dataclass(frozen=True, slots=True)
class _Plain:
    tensor: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def write(self, start: int, rows: torch.Tensor) -> None:
        self.tensor[start : start + len(rows)].copy_(rows)


class Weights:
    """The tensors that a network is made of.

    Args:
        folder: The checkpoint.
        device: Where the tensors shall lie.
        dtype: In what data type; with int8 that of the matrices, whose other tensors are float32.
    """

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        self.folder = folder
        self.device = device
        self.dtype = dtype
        self._wanted: dict[str, Target] = {}
        self._then: list[Callable[[], object]] = []

    def ask(self, *names: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Ask for a tensor, or for several to lie one below the other.

        Args:
            *names: What they are called, without the model's prefix.
            shape: Of each of them.

        Returns:
            A tensor that ``fill`` fills. Shape: (names * shape[0], ...).
        """
        whole = torch.empty(
            (len(names) * shape[0], *shape[1:]), dtype=float_type(self.dtype), device=self.device
        )
        for name, part in zip(names, whole.split(shape[0]), strict=True):
            self.ask_into(name, _Plain(part))
        return whole

    def ask_into(self, name: str, target: Target) -> None:
        """Ask for a tensor that something else than a tensor of its type takes.

        Args:
            name: What it is called, without the model's prefix.
            target: Gets its rows when ``fill`` is called.
        """
        self._wanted[name] = target

    def when_filled(self, call: Callable[[], object]) -> None:
        """Have something called at the end of ``fill``, when nothing here holds tensors any more.

        Args:
            call: What is called, in the order in which it was given.
        """
        self._then.append(call)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """What was asked for, by name."""
        return {name: target.shape for name, target in self._wanted.items()}

    def fill(self) -> None:
        """Read all tensors that were asked for.

        Raises:
            CorruptCheckpointError: Weights are absent, cut, incomplete or of other shapes.
        """
        self._read()
        self._wanted.clear()
        for call in self._then:
            call()

    def _read(self) -> None:
        try:
            files = [_opened(path) for path in _weight_files(self.folder)]
            # Which file has a tensor, and what it is called there.
            found = {_own_name(name): (file, name) for file in files for name in file.shapes}
        except Exception as error:
            raise self._unreadable(error) from error
        # What is absent says more than what has another shape: a file of another model has both.
        bad = sorted(self._wanted.keys() - found.keys()) or sorted(
            name
            for name, target in self._wanted.items()
            if found[name][0].shapes[found[name][1]] != target.shape
        )
        if bad:
            raise CorruptCheckpointError(
                f"the weights of {self.folder} lack {len(bad)} tensors of the network or have "
                f"them in other shapes, such as {bad[0]}: the file is incomplete or not this "
                "model's"
            )
        try:
            for name, target in self._wanted.items():
                file, stored = found[name]
                file.copy(stored, target)
        except Exception as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> CorruptCheckpointError:
        return CorruptCheckpointError(
            f"the weights of {self.folder} cannot be loaded: {error or type(error).__name__}"
        )


class _File(Protocol):
    shapes: dict[str, tuple[int, ...]]

    def copy(self, name: str, target: Target) -> None: ...


class _SafetensorsFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            self.shapes: dict[str, tuple[int, ...]] = {
                name: tuple(file.get_slice(name).get_shape()) for name in names
            }

    def copy(self, name: str, target: Target) -> None:
        for start, end in _parts(target.shape):
            # Opened anew each time: what was read of an open file stays in the process's memory.
            with safe_open(self._path, "pt") as file:
                part = file.get_slice(name)[start:end]
                target.write(start, part)
                del part


class _TorchFile:
    def __init__(self, path: Path) -> None:
        # torch's first format is no zip file and cannot be mapped.
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
        self._state = {key: value for key, value in state.items() if torch.is_tensor(value)}
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._state.items()}

    def copy(self, name: str, target: Target) -> None:
        tensor = self._state.pop(name)
        for start, end in _parts(target.shape):
            target.write(start, tensor[start:end])


def _parts(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Rows of a tensor to be read at once: where they begin and end."""
    rows = max(_VALUES_AT_ONCE // math.prod(shape[1:]), 1)
    return ((start, min(start + rows, shape[0])) for start in range(0, shape[0], rows))


def _opened(path: Path) -> _File:
    return _SafetensorsFile(path) if path.suffix == ".safetensors" else _TorchFile(path)


def _weight_files(folder: Path) -> list[Path]:
    """The one file of a network's weights, or its parts, as an index names them."""
    for name in _FILES:
        if (folder / name).is_file():
            return [folder / name]
        index = read_json(folder / f"{name}.index.json")
        if index is not None:
            return [folder / part for part in sorted(set(index["weight_map"].values()))]
    raise FileNotFoundError(f"there is neither {' nor '.join(_FILES)}, nor an index of their parts")


def _own_name(stored: str) -> str:
    """What a tensor is called here, whatever model it was saved with."""
    for prefix in _PREFIXES:
        stored = stored.removeprefix(prefix)
    for old, new in _LEGACY.items():
        stored = stored.replace(old, new)
    return stored
