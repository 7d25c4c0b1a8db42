"""The tensors of a checkpoint's network, from its files to where they shall lie.

First every tensor is asked for by name and shape, and taken memory for if the files' headers have
it; then all are read, a part at a time: of safetensors no second copy is ever held, in whatever
type they are stored. What int8 takes the place of is quantised part by part too.
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from safetensors import safe_open

from m3_core.errors import CorruptCheckpointError, OutOfMemoryError
from m3_core.network.blocks import BLOCKS_FILE, NIBBLES, SCALES, expand, plain_shapes
from m3_core.network.checkpoint import read_json
from m3_core.network.device import float_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# In the order in which transformers looks for the first two.
_FILES = ("model.safetensors", "pytorch_model.bin", BLOCKS_FILE)
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
        self._bad: list[str] = []
        self._absent = 0
        # Which file has a tensor, and what it is called there.
        self._found = {
            _own_name(name): (file, name) for file in _opened_files(folder) for name in file.shapes
        }

    def has(self, *names: str, shape: tuple[int, ...]) -> bool:
        """Whether there are tensors, so that memory may be taken for them.

        Args:
            *names: What they are called, without the model's prefix.
            shape: Of each of them.

        Returns:
            False once something was asked for in vain, which ``fill`` reports.

        Raises:
            CorruptCheckpointError: More was asked for in vain than the files hold.
        """
        absent = [name for name in names if name not in self._found]
        # What is absent says more than what has another shape: a file of another model has both.
        self._bad[self._absent : self._absent] = absent
        self._absent += len(absent)
        self._bad += [name for name in names if name not in absent and not self._fits(name, shape)]
        if len(self._bad) > len(self._found) + len(names):
            raise self._unfit()
        return not self._bad

    def ask(self, *names: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Ask for a tensor, or for several to lie one below the other.

        Args:
            *names: What they are called, without the model's prefix.
            shape: Of each of them.

        Returns:
            A tensor that ``fill`` fills, shape (names * shape[0], ...); an empty one where ``has``
            says False.

        Raises:
            CorruptCheckpointError: As of ``has``.
            OutOfMemoryError: There is no room for it.
        """
        if not self.has(*names, shape=shape):
            return torch.empty(0, device="meta")
        size = (len(names) * shape[0], *shape[1:])
        try:
            whole = torch.empty(size, dtype=float_type(self.dtype), device=self.device)
        except RuntimeError as error:
            raise OutOfMemoryError(
                f"the weights of {self.folder} do not fit into the memory of {self.device}: there "
                f"is no room for {names[0]} of shape {size}"
            ) from error
        for name, part in zip(names, whole.split(shape[0]), strict=True):
            self.ask_into(name, _Plain(part))
        return whole

    def ask_into(self, name: str, target: Target) -> None:
        """Ask for a tensor, which ``has`` found, that something else than one of its type takes.

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

    def fill(self) -> None:
        """Read all tensors that were asked for.

        Raises:
            CorruptCheckpointError: Weights are absent, cut, incomplete or of other shapes.
        """
        if self._bad:
            raise self._unfit()
        try:
            for name, target in self._wanted.items():
                file, stored = self._found[name]
                file.copy(stored, target)
        except Exception as error:
            raise _unreadable(self.folder, error) from error
        self._wanted.clear()
        self._found.clear()
        for call in self._then:
            call()

    def _fits(self, name: str, shape: tuple[int, ...]) -> bool:
        file, stored = self._found[name]
        return file.shapes[stored] == shape

    def _unfit(self) -> CorruptCheckpointError:
        return CorruptCheckpointError(
            f"the weights of {self.folder} lack {len(self._bad)} tensors of the network or have "
            f"them in other shapes, such as {self._bad[0]}: the file is incomplete or not this "
            "model's"
        )


class AskedShapes(Weights):
    """Takes down what a network asks for, where there is no checkpoint yet."""

    def __init__(self) -> None:
        self.folder = Path()
        self.device = torch.device("meta")
        self.dtype = torch.float32
        self._wanted: dict[str, Target] = {}
        self._then: list[Callable[[], object]] = []

    def has(self, *names: str, shape: tuple[int, ...]) -> bool:
        """As of ``Weights``; everything is."""
        del names, shape
        return True

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """What was asked for, by name."""
        return {name: target.shape for name, target in self._wanted.items()}


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Read the headers of a checkpoint's weights.

    Args:
        folder: The checkpoint.

    Returns:
        Names and shapes of the stored tensors.

    Raises:
        CorruptCheckpointError: The weights are absent or unreadable.
    """
    return {name: shape for file in _opened_files(folder) for name, shape in file.shapes.items()}


def _unreadable(folder: Path, error: Exception) -> CorruptCheckpointError:
    return CorruptCheckpointError(
        f"the weights of {folder} cannot be loaded: {error or type(error).__name__}"
    )


class _File(Protocol):
    shapes: dict[str, tuple[int, ...]]

    def copy(self, name: str, target: Target) -> None: ...


class _SafetensorsFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        with safe_open(path, "pt") as file:
            stored = {name: tuple(file.get_slice(name).get_shape()) for name in list(file.keys())}
        self.shapes: dict[str, tuple[int, ...]] = plain_shapes(stored)
        self._blocked = self.shapes.keys() - stored.keys()

    def copy(self, name: str, target: Target) -> None:
        for start, end in _parts(target.shape):
            # Opened anew each time: what was read of an open file stays in the process's memory.
            with safe_open(self._path, "pt") as file:
                if name in self._blocked:
                    kinds = (file.get_slice(name + kind)[start:end] for kind in (NIBBLES, SCALES))
                    part = expand(*kinds)
                else:
                    part = file.get_slice(name)[start:end]
                target.write(start, part)
                del part


class _TorchFile:
    def __init__(self, path: Path) -> None:
        # torch's first format is no zip file and cannot be mapped.
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
        self._state = {key: value for key, value in state.items() if _is_stored(value)}
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._state.items()}

    def copy(self, name: str, target: Target) -> None:
        tensor = self._state.pop(name)
        for start, end in _parts(target.shape):
            target.write(start, tensor[start:end])


def _parts(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Rows of a tensor to be read at once: where they begin and end."""
    rows = max(_VALUES_AT_ONCE // math.prod(shape[1:]), 1)
    return ((start, min(start + rows, shape[0])) for start in range(0, shape[0], rows))


def _is_stored(value: object) -> bool:
    """Whether something is a tensor with all its numbers; a view may repeat one without end."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _opened_files(folder: Path) -> list[_File]:
    try:
        return [
            _SafetensorsFile(path) if path.suffix == ".safetensors" else _TorchFile(path)
            for path in _weight_files(folder)
        ]
    except CorruptCheckpointError:
        raise
    except Exception as error:
        raise _unreadable(folder, error) from error


def _weight_files(folder: Path) -> list[Path]:
    """The one file of a network's weights, or its parts, as an index names them."""
    for name in _FILES:
        if (folder / name).is_file():
            return [folder / name]
        index = read_json(folder / f"{name}.index.json")
        if index is not None:
            parts = sorted(set(index["weight_map"].values()))
            if any(Path(part).name != part for part in parts):
                raise ValueError(f"{name}.index.json names files outside of the folder")
            return [folder / part for part in parts]
    raise FileNotFoundError(
        f"there is neither {' nor '.join(_FILES[:2])}, nor an index of their parts"
    )


def _own_name(stored: str) -> str:
    """What a tensor is called here, whatever model it was saved with."""
    for prefix in _PREFIXES:
        stored = stored.removeprefix(prefix)
    for old, new in _LEGACY.items():
        stored = stored.replace(old, new)
    return stored
