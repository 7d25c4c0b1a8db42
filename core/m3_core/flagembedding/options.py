"""How FlagEmbedding's constructor arguments translate: devices, data types, instructions."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from m3_core.network import TruncationWarning, cpu_multiplies, level_of_caller, resolve_device

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGER = "longer texts are cut to that"


def one_device(devices: str | int | Sequence[str] | Sequence[int] | None) -> str | None:
    """Choose the one device that is used.

    Args:
        devices: FlagEmbedding's argument: a name, a CUDA index, a list of either, or ``None``.

    Returns:
        Its name; ``None`` for the best there is.

    Raises:
        ValueError: The list is empty or holds something else.

    Example:
        >>> one_device(["cpu"]), one_device(1), one_device(None)
        ('cpu', 'cuda:1', None)
    """
    if devices is None or isinstance(devices, str):
        return devices
    if isinstance(devices, int) and not isinstance(devices, bool):
        return f"cuda:{devices}"
    if not isinstance(devices, (list, tuple)) or not devices:
        raise ValueError(
            "devices must be a name such as 'cuda:0', a CUDA index or a list with one of them; "
            f"got {devices!r}"
        )
    if len(devices) > 1:
        warnings.warn(
            f"{len(devices)} devices were named; {devices[0]!r} alone is used: start one process "
            "a device to use several",
            UserWarning,
            stacklevel=4,
        )
    return one_device(devices[0])


def dtype_name(*, use_fp16: bool, use_bf16: bool, device: str | None) -> str:
    """Choose the data type in which the network computes.

    FlagEmbedding rounds the weights and, on a CPU, computes with them in float32. Here
    ``use_fp16`` asks for speed in whatever type the device has instructions for, and no type is
    emulated.

    Args:
        use_fp16: Half precision is welcome.
        use_bf16: It shall be bfloat16; goes before ``use_fp16``.
        device: As of ``one_device``.

    Returns:
        A ``dtype`` of ``Encoder.from_pretrained``.

    Example:
        >>> dtype_name(use_fp16=True, use_bf16=False, device="cpu")
        'auto'
        >>> dtype_name(use_fp16=False, use_bf16=False, device="cpu")
        'float32'
    """
    if use_bf16:
        on_cpu = resolve_device(device).type == "cpu"
        return "float32" if on_cpu and not cpu_multiplies(torch.bfloat16) else "bfloat16"
    return "auto" if use_fp16 else "float32"


class LengthLimit:
    """Lowers lengths to what a model takes, as FlagEmbedding's callers expect, and says so once.

    Args:
        name: Of the model.
        positions: Longest text that it takes, in tokens.
    """

    def __init__(self, name: str, positions: int) -> None:
        self.name = name
        self.positions = positions
        self._said = False

    def lowered(self, max_length: int) -> int:
        """Lower a length, with a warning the first time.

        Args:
            max_length: Tokens a text at most.

        Returns:
            The length, or the model's.
        """
        if max_length > self.positions and not self._said:
            self._warn(max_length, _LONGER)
        return min(max_length, self.positions)

    def say(self, max_length: int, cut: int, texts: int) -> None:
        """Warn once about one call's texts, if some were cut or if it was never said.

        Args:
            max_length: Tokens a text at most, as asked for.
            cut: How many texts were cut.
            texts: How many there were.
        """
        if max_length > self.positions and (cut or not self._said):
            were = f"{cut} of {texts} texts were longer and were cut to that"
            self._warn(max_length, were if cut else _LONGER)
        elif cut:
            warnings.warn(
                f"{cut} of {texts} texts were longer than max_length={max_length} tokens and were "
                "cut to it",
                TruncationWarning,
                stacklevel=level_of_caller(),
            )

    def _warn(self, max_length: int, outcome: str) -> None:
        self._said = True
        warnings.warn(
            f"max_length is {max_length}, but {self.name!r} takes up to {self.positions} tokens: "
            f"{outcome}",
            TruncationWarning,
            stacklevel=level_of_caller(),
        )


def detailed_instruct(instruction_format: str, instruction: str, sentence: str) -> str:
    r"""Put an instruction and a text into a format.

    Source: ``AbsEmbedder.get_detailed_instruct`` of FlagEmbedding 1.4.2.

    Args:
        instruction_format: With two ``{}``; a backslash and an ``n`` stand for a line break.
        instruction: The first of them; braces in it mean nothing.
        sentence: The second, likewise.

    Returns:
        The text to encode.

    Example:
        >>> detailed_instruct("{}{}", "Find: ", "a {b}")
        'Find: a {b}'
        >>> detailed_instruct(r"<instruct>{}\n<query>{}", "Find", "a")
        '<instruct>Find\n<query>a'
    """
    return instruction_format.replace("\\n", "\n").format(instruction, sentence)
