"""One file for everything that belongs together: replaced whole, checked whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.files.aside import remove_leftovers, replacing_file
    from m3_core.files.strings import packed_strings, unpacked_strings
    from m3_core.files.tensors import TensorFile, TensorParts, open_tensors, write_tensors

__all__ = [
    "TensorFile",
    "TensorParts",
    "open_tensors",
    "packed_strings",
    "remove_leftovers",
    "replacing_file",
    "unpacked_strings",
    "write_tensors",
]

_HOMES = {
    "open_tensors": "tensors",
    "packed_strings": "strings",
    "remove_leftovers": "aside",
    "replacing_file": "aside",
    "TensorFile": "tensors",
    "TensorParts": "tensors",
    "unpacked_strings": "strings",
    "write_tensors": "tensors",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
