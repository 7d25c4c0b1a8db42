"""The tests with each of the instruction sets that this CPU has: ``make lanes``.

    python tests/lanes.py [--lane NAME] [--times N] [--busy N] [--seed N] [-- PYTEST ARGUMENTS]

Fewer instructions than the CPU has are made with the limits that torch, oneDNN, MKL and OpenBLAS
read from the environment; the default data type follows them, as on a CPU that has no more. Each
run takes the tests in another order, whose seed it prints. ``--busy`` lets as many processes
compute beside them. What ran, in which type, and what did not and why is printed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from m3_core.network.device import cpu_multiplies

ROOT = Path(__file__).parents[1]
LIMITS = (
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
    *("MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE"),
)
PROBE = """
import torch
from m3_core.network.device import resolve_dtype
print(torch.backends.cpu.get_cpu_capability(), resolve_dtype("auto", torch.device("cpu")))
"""


@dataclass(frozen=True, kw_only=True)
class Lane:
    """Limits, what the CPU needs for them, and what torch must answer under them."""

    name: str
    needs: str = ""
    limits: dict[str, str] = field(default_factory=dict)
    answer: str = ""


def limited(capability: str, onednn: str, mkl: str, openblas: str) -> dict[str, str]:
    return {
        "ATEN_CPU_CAPABILITY": capability,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "MKL_ENABLE_INSTRUCTIONS": mkl,
        "OPENBLAS_CORETYPE": openblas,
    }


LANES = (
    Lane(
        name="avx2",
        needs="avx2",
        limits=limited("avx2", "AVX2", "AVX2", "Haswell"),
        answer="AVX2 torch.float32",
    ),
    Lane(
        name="avx512",
        needs="avx512_f",
        limits=limited("avx512", "AVX512_CORE", "AVX512", "SkylakeX"),
        answer="AVX512 torch.float32",
    ),
    Lane(
        name="avx512-bf16",
        needs="avx512_bf16",
        limits=limited("avx512", "AVX512_CORE_BF16", "AVX512", "SkylakeX"),
        answer="AVX512 torch.bfloat16",
    ),
    # AMX where the CPU has it, or whatever another processor offers.
    Lane(name="unlimited"),
)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def environment(lane: Lane) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in LIMITS}
    return kept | {"HF_HUB_OFFLINE": "1", **lane.limits}


def missing(lane: Lane) -> str:
    """Why this lane cannot run here; empty if it can."""
    has = torch.backends.cpu.get_cpu_capability()
    capabilities = {
        "avx2": has in ("AVX2", "AVX512"),
        "avx512_f": has == "AVX512",
        "avx512_bf16": has == "AVX512" and cpu_multiplies(torch.bfloat16),
    }
    if lane.needs and not capabilities[lane.needs]:
        return f"this CPU lacks {lane.needs}"
    return ""


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Processes that compute without end, beside what is inside."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def run(lane: Lane, seed: int, arguments: list[str]) -> str:
    """One run of the tests."""
    order = ["--random-order-bucket=global", f"--random-order-seed={seed}"]
    command = [sys.executable, "-m", "pytest", "--quiet", *order, *arguments]
    begun = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, env=environment(lane)).returncode
    minutes = (time.monotonic() - begun) / 60
    return f"{'passed' if code == 0 else 'FAILED'}, order {seed}, {minutes:.1f} min"


def try_lane(lane: Lane, options: argparse.Namespace) -> list[str]:
    reason = missing(lane)
    if reason:
        return [f"left out: {reason}"]
    probe = [sys.executable, "-c", PROBE]
    found = subprocess.run(
        probe, cwd=ROOT, env=environment(lane), check=True, capture_output=True, text=True
    ).stdout.strip()
    if lane.answer and found != lane.answer:
        return [f"FAILED: under its limits torch answers {found!r}, not {lane.answer!r}"]
    results = []
    for number in range(options.times):
        say(f"== {lane.name}: {found}, run {number + 1} of {options.times}")
        results.append(f"{run(lane, options.seed + number, options.arguments)}, {found}")
        if results[-1].startswith("FAILED"):
            break
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = [lane.name for lane in LANES]
    parser.add_argument("--lane", action="append", choices=names, help="all of them by default")
    parser.add_argument("--times", type=int, default=1, help="runs a lane, each in another order")
    parser.add_argument("--busy", type=int, default=0, help="processes that compute meanwhile")
    parser.add_argument(
        "--seed", type=int, help="of the first order; another each time if left out"
    )
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="for pytest, after --")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.randrange(100_000)
    with busy(options.busy):
        results = {
            lane.name: try_lane(lane, options)
            for lane in LANES
            if not options.lane or lane.name in options.lane
        }
    say("\nLanes:")
    for name, lines in results.items():
        for line in lines:
            say(f"  {name:12} {line}")
    return int(any("FAILED" in line for lines in results.values() for line in lines))


if __name__ == "__main__":
    for name in LIMITS:
        if name in os.environ:
            raise SystemExit(f"{name} is set, so that this CPU cannot be seen: unset it")
    sys.exit(main())
