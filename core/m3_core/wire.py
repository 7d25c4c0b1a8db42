"""The replies of ``POST /v1/encode``: representations as one binary body, or as JSON.

The binary body is plain safetensors, which the ``safetensors`` package and its ports to other
languages read, with no Python number in between. Its metadata say what was encoded, and hold the
CRC-32 of the whole body with zeros in its place: a body that was cut or in which any byte has
changed is not read.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.errors import BadReplyError
from m3_core.json_text import parse_json
from m3_core.representations import LexicalWeights, MultiVectors, Representations
from m3_core.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MEDIA_TYPE = "application/vnd.safetensors"
"""Of the binary body, as the server names it."""

MEDIA_TYPES = (MEDIA_TYPE, "application/x-safetensors", "application/octet-stream")
"""By these clients ask for the binary body."""

_DENSE = "dense_vecs"
_TOKEN_IDS, _WEIGHTS, _WEIGHT_OFFSETS = (
    f"lexical_weights.{name}" for name in ("token_ids", "weights", "offsets")
)
_VECTORS, _VECTOR_OFFSETS = "colbert_vecs.vectors", "colbert_vecs.offsets"

# Larger first, so that each tensor begins at a multiple of its own size.
_DTYPES: dict[str, type[np.generic]] = {
    "I64": np.int64,
    "F32": np.float32,
    "I32": np.int32,
    "F16": np.float16,
}
_ORDER = list(_DTYPES)
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_SHAPES = {
    _DENSE: (2, ("F32",)),
    _TOKEN_IDS: (1, ("I32",)),
    _WEIGHTS: (1, ("F32",)),
    _WEIGHT_OFFSETS: (1, ("I64",)),
    _VECTORS: (2, ("F32", "F16")),
    _VECTOR_OFFSETS: (1, ("I64",)),
}
_TOGETHER = (
    {_DENSE},
    {_TOKEN_IDS, _WEIGHTS, _WEIGHT_OFFSETS},
    {_VECTORS, _VECTOR_OFFSETS},
)
_ALIGNMENT = 8
_NO_SUM = "00000000"
# As safetensors: a longer header is none.
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """The representations of some texts, and what they were made with.

    Attributes:
        reps: The representations.
        model: The name of the model.
        fingerprint: Equal exactly where representations are, as of ``TextEncoder.fingerprint``.
        role: ``"query"`` or ``"document"``.
        tokens: Tokens that went through the network; 0 if that is not known.
    """

    reps: Representations
    model: str
    fingerprint: str
    role: str = "document"
    tokens: int = 0


def wants_binary(accept: str | None) -> bool:
    """Say whether a client asks for the binary body.

    Args:
        accept: Its ``Accept`` header.

    Returns:
        Whether one of ``MEDIA_TYPES`` is in it.

    Example:
        >>> wants_binary("application/vnd.safetensors, application/json;q=0.1")
        True
        >>> wants_binary("*/*"), wants_binary(None)
        (False, False)
    """
    named = {one.partition(";")[0].strip().lower() for one in (accept or "").split(",")}
    return not named.isdisjoint(MEDIA_TYPES)


def to_body(encoded: Encoded) -> bytes:
    """Write the binary body.

    Args:
        encoded: What was encoded.

    Returns:
        One safetensors file.
    """
    tensors = _tensors(encoded.reps)
    names = sorted(tensors, key=lambda name: (_ORDER.index(_NAMES[tensors[name].dtype]), name))
    entries: dict[str, Any] = {"__metadata__": {**_metadata(encoded), "checksum": _NO_SUM}}
    end = 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + tensor.nbytes
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    start = len(header).to_bytes(8, "little") + header
    data = [memoryview(tensors[name].data).cast("B") for name in names if tensors[name].nbytes]
    checksum = zlib.crc32(start)
    for part in data:
        checksum = zlib.crc32(part, checksum)
    place = b'"checksum":"'
    # Names of models come before it, with their quotes escaped: it is found nowhere else.
    signed = start.replace(place + _NO_SUM.encode(), place + f"{checksum:08x}".encode(), 1)
    return b"".join([signed, *data])


def from_body(body: bytes | bytearray | memoryview) -> Encoded:
    """Read the binary body, and check all of it.

    Args:
        body: What ``to_body`` has written.

    Returns:
        The same.

    Raises:
        BadReplyError: It is something else, cut or changed, or its parts do not fit each other.
    """
    # Of its own, so that the arrays can be written to and begin at multiples of 8.
    own = bytearray(body)
    entries, begin = _header(own)
    metadata = entries.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not all(isinstance(one, str) for one in metadata.values()):
        raise BadReplyError("the safetensors body has no metadata that say what it holds")
    _check_sum(own, begin, metadata.get("checksum", ""))
    tensors = _read_tensors(memoryview(own)[begin:], entries)
    try:
        counts = {name: int(metadata[name]) for name in ("texts", "tokens")}
        vocabulary_size = int(metadata.get("vocabulary_size", 0)) or None
        reps = _representations(tensors, vocabulary_size)
        found = Encoded(
            reps, metadata["model"], metadata["fingerprint"], metadata["role"], counts["tokens"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadReplyError(f"the parts of the safetensors body do not fit: {error}") from error
    return _checked(found, counts["texts"])


def to_json(encoded: Encoded) -> dict[str, Any]:
    """Give the JSON reply.

    Args:
        encoded: What was encoded.

    Returns:
        Lists and numbers of Python; keys of lexical weights are strings, as JSON has them.
    """
    reps = encoded.reps
    reply: dict[str, Any] = {
        "model": encoded.model,
        "fingerprint": encoded.fingerprint,
        "role": encoded.role,
    }
    if reps.dense_vecs is not None:
        reply["dense_vecs"] = reps.dense_vecs.tolist()
    if reps.lexical_weights is not None:
        rows = reps.lexical_weights
        reply["lexical_weights"] = [
            {str(token): weight for token, weight in row.items()} for row in rows
        ]
        if rows.vocabulary_size is not None:
            reply["vocabulary_size"] = rows.vocabulary_size
    if reps.colbert_vecs is not None:
        reply["colbert_vecs"] = [rows.tolist() for rows in reps.colbert_vecs]
    reply["usage"] = {"prompt_tokens": encoded.tokens, "total_tokens": encoded.tokens}
    return reply


def from_json(reply: Any) -> Encoded:
    """Read the JSON reply, and check all of it.

    Args:
        reply: What ``to_json`` gave, after a journey as JSON text.

    Returns:
        The same; multi-vectors in float32.

    Raises:
        BadReplyError: It is something else, or its parts do not fit each other.
    """
    if not isinstance(reply, dict):
        raise BadReplyError(f"the reply must be a JSON object; got {shown(reply)}")
    try:
        parts: dict[str, Any] = {}
        if (dense := reply.get("dense_vecs")) is not None:
            parts["dense_vecs"] = _floats(dense) if dense else np.zeros((0, 0), np.float32)
        if (rows := reply.get("lexical_weights")) is not None:
            weights = LexicalWeights.from_dicts(rows)
            size = reply.get("vocabulary_size")
            parts["lexical_weights"] = LexicalWeights(
                weights.token_ids,
                weights.weights,
                weights.offsets,
                None if size is None else int(size),
            )
        if (vectors := reply.get("colbert_vecs")) is not None:
            arrays = [_floats(one) if one else None for one in vectors]
            parts["colbert_vecs"] = _joined(arrays)
        tokens = reply.get("usage", {}).get("total_tokens", 0)
        found = Encoded(
            Representations(**parts),
            str(reply["model"]),
            str(reply["fingerprint"]),
            str(reply.get("role", "document")),
            int(tokens),
        )
    except KeyError as error:
        raise BadReplyError(f"the JSON reply has no {error}: {shown(reply)}") from error
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise BadReplyError(f"the parts of the JSON reply do not fit: {error}") from error
    return _checked(found, None)


def _tensors(reps: Representations) -> dict[str, NDArray[Any]]:
    tensors: dict[str, NDArray[Any]] = {}
    if reps.dense_vecs is not None:
        tensors[_DENSE] = reps.dense_vecs
    if (weights := reps.lexical_weights) is not None:
        tensors[_TOKEN_IDS] = weights.token_ids
        tensors[_WEIGHTS] = weights.weights
        tensors[_WEIGHT_OFFSETS] = weights.offsets
    if (vectors := reps.colbert_vecs) is not None:
        tensors[_VECTORS] = vectors.vectors
        tensors[_VECTOR_OFFSETS] = vectors.offsets
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def _metadata(encoded: Encoded) -> dict[str, str]:
    weights = encoded.reps.lexical_weights
    size = None if weights is None else weights.vocabulary_size
    return {
        "model": encoded.model,
        "fingerprint": encoded.fingerprint,
        "role": encoded.role,
        "texts": str(len(encoded.reps)),
        "tokens": str(encoded.tokens),
        **({} if size is None else {"vocabulary_size": str(size)}),
    }


def _header(body: bytearray) -> tuple[dict[str, Any], int]:
    size = int.from_bytes(body[:8], "little")
    if len(body) < 8 or not 2 <= size <= min(_LONGEST_HEADER, len(body) - 8):
        raise BadReplyError(
            f"the body of {len(body)} bytes is no whole safetensors file: {shown(bytes(body[:40]))}"
        )
    try:
        entries = parse_json(bytes(body[8 : 8 + size]))
    except ValueError as error:
        raise BadReplyError(f"the header of the safetensors body is damaged: {error}") from error
    if not isinstance(entries, dict):
        raise BadReplyError("the header of the safetensors body is no JSON object")
    return entries, 8 + size


def _check_sum(body: bytearray, begin: int, checksum: str) -> None:
    place = f'"checksum":"{checksum}"'.encode()
    start = bytes(body[:begin])
    if len(checksum) == len(_NO_SUM) and start.count(place) == 1:
        blank = start.replace(place, f'"checksum":"{_NO_SUM}"'.encode())
        found = zlib.crc32(memoryview(body)[begin:], zlib.crc32(blank))
        if checksum == f"{found:08x}":
            return
    raise BadReplyError(
        f"the safetensors body of {len(body)} bytes was cut or changed on its way: its checksum "
        "does not fit"
    )


def _read_tensors(data: memoryview, entries: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    tensors: dict[str, NDArray[Any]] = {}
    covered = 0
    try:
        for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
            dimensions, types = _SHAPES[name]
            kind, shape = entry["dtype"], tuple(entry["shape"])
            begin, end = entry["data_offsets"]
            dtype = np.dtype(_DTYPES[kind])
            if kind not in types or len(shape) != dimensions or min(shape) < 0:
                raise ValueError(f"{name} is of type {kind} and shape {shape}")
            if begin != covered or end - begin != prod(shape) * dtype.itemsize:
                raise ValueError(f"{name} lies from {begin} to {end}, its shape is {shape}")
            covered = end
            tensors[name] = np.frombuffer(data[begin:end], dtype).reshape(shape)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise BadReplyError(f"a tensor of the body is not as it must be: {error}") from error
    if covered != len(data):
        raise BadReplyError(f"the tensors take {covered} of {len(data)} bytes of the body")
    return tensors


def _representations(
    tensors: Mapping[str, NDArray[Any]], vocabulary_size: int | None
) -> Representations:
    for names in _TOGETHER:
        if absent := names & tensors.keys() and names - tensors.keys():
            raise ValueError(f"{', '.join(sorted(absent))} is absent")
    return Representations(
        dense_vecs=tensors.get(_DENSE),
        lexical_weights=LexicalWeights(
            tensors[_TOKEN_IDS], tensors[_WEIGHTS], tensors[_WEIGHT_OFFSETS], vocabulary_size
        )
        if _TOKEN_IDS in tensors
        else None,
        colbert_vecs=MultiVectors(tensors[_VECTORS], tensors[_VECTOR_OFFSETS])
        if _VECTORS in tensors
        else None,
    )


def _checked(encoded: Encoded, texts: int | None) -> Encoded:
    reps = encoded.reps
    if texts is not None and len(reps) != texts:
        raise BadReplyError(f"the body says that it holds {texts} texts, and holds {len(reps)}")
    weights, vectors = reps.lexical_weights, reps.colbert_vecs
    numbers = {
        "dense_vecs": reps.dense_vecs,
        "lexical_weights": None if weights is None else weights.weights,
        "colbert_vecs": None if vectors is None else vectors.vectors,
    }
    for name, array in numbers.items():
        if array is not None and not np.isfinite(array).all():
            raise BadReplyError(f"{name} of the reply hold NaN or infinity")
    if weights is not None and len(weights.token_ids):
        most = weights.vocabulary_size or np.iinfo(np.int32).max
        if weights.token_ids.min() < 0 or weights.token_ids.max() >= most:
            raise BadReplyError(f"token ids of the reply are not from 0 to {most - 1}")
    if encoded.role not in ("query", "document"):
        raise BadReplyError(f"the role of the reply is {shown(encoded.role)}")
    return encoded


def _floats(rows: Any) -> NDArray[np.float32]:
    array = np.asarray(rows, np.float64)
    if array.ndim != 2 or not (np.abs(array) <= np.finfo(np.float32).max).all():
        raise ValueError(f"vectors must be rows of finite numbers; got {shown(rows)}")
    return array.astype(np.float32)


def _joined(arrays: list[NDArray[np.float32] | None]) -> MultiVectors:
    width = next((one.shape[-1] for one in arrays if one is not None), 0)
    empty = np.zeros((0, width), np.float32)
    return MultiVectors.from_arrays([empty, *(empty if one is None else one for one in arrays)])[1:]
