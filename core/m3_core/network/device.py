"""Choice of device and data type."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

import torch

from m3_core.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Mapping

# MKL chooses the kernels of these functions on their first call. Where that call is divided between
# threads already, one of them may take a kernel of half the accuracy: about once in a thousand
# processes a half of the first batch's rotary positions was off by 1e-4. So the first call is made
# here, by the one thread that imports this module.
for _function in (torch.cos, torch.sin, torch.exp, torch.log, torch.sqrt, torch.erf, torch.tanh):
    _function(torch.ones(1))

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
}
_ALIASES = {"fp32": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16"}

# oneDNN multiplies half types and int8 on CPUs. These limits, by its own environment variables,
# leave it without instructions for them, whatever the processor has: it refuses or emulates them.
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_WITHOUT_BF16 = frozenset(
    {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}
)
_WITHOUT = {
    torch.bfloat16: _WITHOUT_BF16,
    torch.float16: _WITHOUT_BF16 | {"AVX512_CORE_BF16"},
    torch.int8: frozenset({"SSE41", "AVX", "AVX2", "AVX512_CORE"}),
}


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Choose the device: the given one if it exists, else CUDA, else MPS, else the CPU.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, a ``torch.device``, or ``None``.

    Returns:
        The device; of CUDA's with its index.

    Raises:
        ValueError: The string names no device.
        DeviceError: This machine has no such device, or this process cannot use it.
    """
    if device is None:
        if torch.cuda.is_available():
            return _current_cuda_device()
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device {device!r} is none that torch knows: use 'cpu', 'cuda', 'cuda:1' or 'mps'"
        ) from error
    if chosen.type == "cuda":
        found = torch.cuda.device_count()
        if (chosen.index or 0) >= found:
            raise DeviceError(
                f"device {device!r} was asked for; torch {torch.__version__} finds {found} CUDA "
                "devices: install a CUDA build of torch or pass device='cpu'"
            )
        # Which one is current depends on the thread, and the engine has its own.
        current = _current_cuda_device()
        chosen = current if chosen.index is None else chosen
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device 'mps' was asked for; it is not available: pass device='cpu'")
    return chosen


def _current_cuda_device() -> torch.device:
    try:
        return torch.device("cuda", torch.cuda.current_device())
    except RuntimeError as error:
        raise DeviceError(
            f"CUDA cannot be used in this process: {error}; a process that was forked from one "
            "that uses CUDA cannot use it: start it with 'spawn', or pass device='cpu'"
        ) from error


def _cpu_capabilities() -> Mapping[str, object]:
    # torch.cpu.get_capabilities came with torch 2.10; before it the same facts had private names.
    getter = getattr(torch.cpu, "get_capabilities", None)
    if getter is not None:
        capabilities: Mapping[str, object] = getter()
        return capabilities
    checks = {
        "avx512_bf16": "_is_avx512_bf16_supported",
        "amx_tile": "_is_amx_tile_supported",
        "amx_fp16": "_is_amx_fp16_supported",
        "avx512_vnni": "_is_vnni_supported",
    }
    return {key: getattr(torch.cpu, name, bool)() for key, name in checks.items()}


def cpu_multiplies(dtype: torch.dtype) -> bool:
    """Whether this CPU has matrix instructions of the type, so that it is not emulated.

    Args:
        dtype: The data type of a matrix product.

    Returns:
        True for float32; for the half types and int8 if the processor has instructions for them
        and ``ONEDNN_MAX_CPU_ISA`` does not forbid oneDNN to use them.
    """
    if dtype == torch.float32:
        return True
    if _limit() in _WITHOUT.get(dtype, ()):
        return False
    capabilities = _cpu_capabilities()
    names = {
        torch.bfloat16: ("avx512_bf16", "amx_bf16", "amx_tile", "bf16", "sve_bf16"),
        torch.float16: ("avx512_fp16", "amx_fp16", "fp16", "sve_fp16"),
        torch.int8: ("avx512_vnni", "avx_vnni", "amx_int8", "i8mm"),
    }
    return any(capabilities.get(name) for name in names.get(dtype, ()))


def _limit() -> str:
    return next((os.environ[name] for name in _LIMITS if name in os.environ), "").upper()


def has_amx() -> bool:
    """Whether this CPU multiplies bfloat16 with AMX, which is faster than anything in int8 here.

    Returns:
        True if the processor has it and ``ONEDNN_MAX_CPU_ISA`` does not forbid oneDNN to use it.
    """
    allowed = _limit() in ("", "ALL", "DEFAULT") or "AMX" in _limit() or "AVX10_2" in _limit()
    return allowed and bool(_cpu_capabilities().get("amx_tile"))


def _refuse_int8(device: torch.device) -> None:
    if device.type != "cpu":
        raise DeviceError(
            f"dtype 'int8' was asked for on {device}; it is computed on CPUs alone: pass "
            "device='cpu', or dtype='auto' for the type that is fastest there"
        )
    if not on_x86() or not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        raise DeviceError(
            f"dtype 'int8' was asked for on a CPU of kind {platform.machine()!r} with torch "
            f"{torch.__version__}; it is computed by oneDNN on x86 CPUs: pass dtype='auto'"
        )
    if not cpu_multiplies(torch.int8):
        # Pairs of products are added up in 16 bits there, where those of 8-bit weights overflow
        # and are cut without notice; 7-bit weights fit, but gave the same ten best for half of
        # the questions only.
        raise DeviceError(
            "dtype 'int8' was asked for on a CPU without VNNI instructions, or with a limit in "
            "ONEDNN_MAX_CPU_ISA that leaves them out, where int8 is not exact: pass dtype='auto'"
        )


def on_x86() -> bool:
    """Whether torch computes with oneDNN on an x86 CPU."""
    known = platform.machine().lower() in ("x86_64", "amd64")
    return known and torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Choose the data type in which the network computes.

    ``"auto"`` is float16 on CUDA, bfloat16 on a CPU that has instructions for it, else float32.

    Args:
        dtype: ``"auto"``, ``"float32"``, ``"float16"``, ``"bfloat16"``, ``"int8"`` or the torch
            type.
        device: Where the network runs.

    Returns:
        The data type.

    Raises:
        ValueError: The name is none of these.
        DeviceError: A half type was asked for on a CPU that would have to emulate it, or int8
            elsewhere than on an x86 CPU.
    """
    if isinstance(dtype, str):
        name = _ALIASES.get(dtype, dtype)
        if name == "auto":
            if device.type == "cuda":
                return torch.float16
            on_cpu = device.type == "cpu" and cpu_multiplies(torch.bfloat16)
            return torch.bfloat16 if on_cpu else torch.float32
        chosen = _DTYPES.get(name)
    else:
        chosen = dtype if dtype in _DTYPES.values() else None
    if chosen is None:
        raise ValueError(f"dtype {dtype!r} is not one of 'auto', {', '.join(map(repr, _DTYPES))}")
    if chosen == torch.int8:
        _refuse_int8(device)
        return chosen
    if device.type == "cpu" and not cpu_multiplies(chosen):
        raise DeviceError(
            f"dtype {dtype!r} was asked for on a CPU without instructions for it, where it is "
            "slower than float32 and less exact: pass dtype='float32' or dtype='auto'"
        )
    return chosen


def float_type(dtype: torch.dtype) -> torch.dtype:
    """In what data type a network of a data type gives its hidden states.

    Args:
        dtype: As of ``resolve_dtype``.

    Returns:
        The same; float32 for int8, in which only matrices are multiplied.

    Example:
        >>> float_type(torch.bfloat16), float_type(torch.int8)
        (torch.bfloat16, torch.float32)
    """
    return torch.float32 if dtype == torch.int8 else dtype


def default_token_budget(device: torch.device, dtype: torch.dtype, width: int) -> int:
    """Tokens a batch at which the device is well used, from its kind and memory.

    Args:
        device: Where the network runs.
        dtype: Its data type.
        width: Of its hidden states; a quarter of the feed-forward's width where that is more.

    Returns:
        On a CPU 1,024 for each thread, at least 2,048 and at most 16,384; on a GPU what a
        quarter of its memory holds, at most 65,536.

    Example:
        >>> 2048 <= default_token_budget(torch.device("cpu"), torch.float32, 1024) <= 16384
        True
    """
    if device.type != "cuda":
        return min(max(1024 * torch.get_num_threads(), 2048), 16384)
    # Peak of a layer: its input, both sides of the feed-forward, and the outputs in float32.
    bytes_per_token = 24 * width * dtype.itemsize
    memory = torch.cuda.get_device_properties(device).total_memory
    return int(min(max(memory // 4 // bytes_per_token, 4096), 65536))
