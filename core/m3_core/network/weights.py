"""The tensors of a checkpoint's network, from its files to where they shall lie.

First every tensor is asked for by name and shape, then all are read, a part at a time: of
safetensors no second copy is ever held, in whatever type they are stored.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Protocol

import torch
from safetensors import safe_open

from m3_core.errors import CorruptCheckpointError
from m3_core.network.blocks import BLOCKS_FILE, NIBBLES, SCALES, expand, plain_shapes
from m3_core.network.checkpoint import read_json

if TYPE_CHECKING:
    from pathlib import Path

# In the order in which transformers looks for the first two.
_FILES = ("model.safetensors", "pytorch_model.bin", BLOCKS_FILE)
_VALUES_AT_ONCE = 1 << 22
# What a model's tensors are called within one that has a head on top.
_PREFIXES = ("roberta.", "bert.")
# The names of TensorFlow's first BERT checkpoints.
_LEGACY = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


class Weights:
    """The tensors that a network is made of.

    Args:
        folder: The checkpoint.
        device: Where the tensors shall lie.
        dtype: In what data type.
    """

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        self.folder = folder
        self.device = device
        self.dtype = dtype
        self._wanted: dict[str, torch.Tensor] = {}

    def ask(self, *names: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Ask for a tensor, or for several to lie one below the other.

        Args:
            *names: What they are called, without the model's prefix.
            shape: Of each of them.

        Returns:
            A tensor that ``fill`` fills. Shape: (names * shape[0], ...).
        """
        whole = torch.empty(
            (len(names) * shape[0], *shape[1:]), dtype=self.dtype, device=self.device
        )
        self._wanted |= zip(names, whole.split(shape[0]), strict=True)
        return whole

    def fill(self) -> None:
        """Read all tensors that were asked for.

        Raises:
            CorruptCheckpointError: Weights are absent, cut, incomplete or of other shapes.
        """
        try:
            files = [_opened(path) for path in _weight_files(self.folder)]
            # Which file has a tensor, and what it is called there.
            found = {_own_name(name): (file, name) for file in files for name in file.shapes}
        except Exception as error:
            raise self._unreadable(error) from error
        # What is absent says more than what has another shape: a file of another model has both.
        bad = sorted(self._wanted.keys() - found.keys()) or sorted(
            name
            for name, tensor in self._wanted.items()
            if found[name][0].shapes[found[name][1]] != tuple(tensor.shape)
        )
        if bad:
            raise CorruptCheckpointError(
                f"the weights of {self.folder} lack {len(bad)} tensors of the network or have "
                f"them in other shapes, such as {bad[0]}: the file is incomplete or not this "
                "model's"
            )
        try:
            for name, tensor in self._wanted.items():
                file, stored = found[name]
                file.copy(stored, tensor)
        except Exception as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> CorruptCheckpointError:
        return CorruptCheckpointError(
            f"the weights of {self.folder} cannot be loaded: {error or type(error).__name__}"
        )


class _File(Protocol):
    shapes: dict[str, tuple[int, ...]]

    def copy(self, name: str, target: torch.Tensor) -> None: ...


class _SafetensorsFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        with safe_open(path, "pt") as file:
            stored = {name: tuple(file.get_slice(name).get_shape()) for name in list(file.keys())}
        self.shapes: dict[str, tuple[int, ...]] = plain_shapes(stored)
        self._blocked = self.shapes.keys() - stored.keys()

    def copy(self, name: str, target: torch.Tensor) -> None:
        rows = max(_VALUES_AT_ONCE // target[0].numel(), 1)
        for start in range(0, len(target), rows):
            # Opened anew each time: what was read of an open file stays in the process's memory.
            with safe_open(self._path, "pt") as file:
                some = slice(start, start + rows)
                if name in self._blocked:
                    parts = (file.get_slice(name + kind)[some] for kind in (NIBBLES, SCALES))
                    part = expand(*parts)
                else:
                    part = file.get_slice(name)[some]
                target[start : start + rows].copy_(part)
                del part


class _TorchFile:
    def __init__(self, path: Path) -> None:
        # torch's first format is no zip file and cannot be mapped.
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
        self._state = {key: value for key, value in state.items() if torch.is_tensor(value)}
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._state.items()}

    def copy(self, name: str, target: torch.Tensor) -> None:
        target.copy_(self._state.pop(name))


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
