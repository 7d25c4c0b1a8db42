"""Try the Pythons and the lowest versions that pyproject.toml allows: ``make versions``.

    python tests/versions/run.py [--keep FOLDER] [NAME ...]

For every lane below an environment outside the work tree gets the built wheel and what the extras
ask for, at the lowest or the newest versions, and goes through ``smoke.py``. torch comes from the
registry, with several GB of CUDA packages: they are downloaded once for all lanes, and deleted at
the end unless ``--keep`` names a folder for them. Pythons that are not on PATH are left out, and
the report says so.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHOWN = (
    *("torch", "transformers", "tokenizers", "safetensors", "huggingface-hub", "numpy", "scipy"),
    *("pydantic", "tqdm", "langchain-core", "langchain-qdrant", "qdrant-client"),
    *("langchain-milvus", "pymilvus", "milvus-lite", "llama-index-core", "accelerate", "datasets"),
)
EVERYTHING = ("core", "decoders", "langchain", "llamaindex", "qdrant", "milvus", "train")
# Name, Python, uv's resolution, extras, parts of smoke.py. The lowest versions are tried extra by
# extra too: together the extras pull one another's dependencies up.
LANES = (
    ("lowest-core", "3.11", "lowest-direct", (), ("core",)),
    ("lowest-transformers", "3.11", "lowest-direct", ("transformers",), ("core", "decoders")),
    ("lowest-langchain", "3.11", "lowest-direct", ("langchain",), ("core", "langchain")),
    ("lowest-llamaindex", "3.11", "lowest-direct", ("llamaindex",), ("core", "llamaindex")),
    ("lowest-train", "3.11", "lowest-direct", ("train",), ("core", "train")),
    ("lowest", "3.11", "lowest-direct", ("all",), EVERYTHING),
    ("lowest-3.10", "3.10", "lowest-direct", ("all",), EVERYTHING),
    ("newest-3.10", "3.10", "highest", ("all",), EVERYTHING),
    ("newest-3.11", "3.11", "highest", ("all",), EVERYTHING),
    ("newest-3.12", "3.12", "highest", ("all",), EVERYTHING),
    ("newest-3.13", "3.13", "highest", ("all",), EVERYTHING),
)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def call(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], text=True, **options)


def interpreter(version: str) -> str | None:
    """Where a Python lies that answers with this version."""
    found = shutil.which(f"python{version}")
    asked = found and call(found, "--version", capture_output=True)
    return found if asked and asked.stdout.startswith(f"Python {version}.") else None


def uv_in(work: Path) -> Path:
    """uv, which resolves to lowest versions; pip cannot."""
    found = shutil.which("uv")
    if found:
        return Path(found)
    call(sys.executable, "-m", "venv", work / "uv", check=True)
    call(work / "uv/bin/pip", "install", "--quiet", "uv", check=True)
    return work / "uv/bin/uv"


def build(uv: Path, work: Path) -> Path:
    call(uv, "build", "--quiet", "--wheel", "--out-dir", work / "wheel", ROOT, check=True)
    (wheel,) = (work / "wheel").glob("*.whl")
    return wheel


def try_lane(lane: tuple, uv: Path, wheel: Path, work: Path) -> str:
    name, version, resolution, extras, parts = lane
    found = interpreter(version)
    if found is None:
        return f"left out: no python{version} on PATH that answers to --version"
    home = work / name
    python = home / "bin/python"
    asked = [option for extra in extras for option in ("--extra", extra)]
    install = [uv, "pip", "install", "--quiet", "--python", python]
    call(uv, "venv", "--quiet", "--clear", "--python", found, home, check=True)
    for command in (
        [*install, "--resolution", resolution, "--requirements", ROOT / "pyproject.toml", *asked],
        [*install, "--no-deps", wheel],
    ):
        done = call(*command, capture_output=True)
        if done.returncode:
            return f"FAILED to install:\n{done.stderr}"
    listed = call(uv, "pip", "list", "--python", python, "--format=freeze", capture_output=True)
    pins = dict(line.split("==") for line in listed.stdout.splitlines() if "==" in line)
    say("    " + " ".join(f"{one} {pins[one]}" for one in SHOWN if one in pins))
    # -I: neither the current folder nor PYTHONPATH may stand in for the wheel.
    smoke = call(
        *(python, "-I", ROOT / "tests/versions/smoke.py", *parts),
        cwd=work,
        capture_output=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"},
    )
    shutil.rmtree(home)
    if smoke.returncode:
        broken = [line.strip() for line in smoke.stderr.splitlines() if line.endswith(" failed")]
        return f"FAILED: {', '.join(broken) or 'at its start'}\n{smoke.stderr[-6000:]}"
    return f"works: {', '.join(parts)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="lanes to try; all by default")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where downloads stay")
    options = parser.parse_args()
    names = [lane[0] for lane in LANES]
    unknown = [name for name in options.names if name not in names]
    if unknown:
        parser.error(f"no such lane: {', '.join(unknown)}; there are {', '.join(names)}")
    chosen = [lane for lane in LANES if not options.names or lane[0] in options.names]
    results = {}
    with tempfile.TemporaryDirectory(prefix="m3-versions-") as temporary:
        work = Path(temporary)
        os.environ["UV_CACHE_DIR"] = str((options.keep or work / "cache").resolve())
        uv = uv_in(work)
        wheel = build(uv, work)
        for number, lane in enumerate(chosen, 1):
            say(f"[{number}/{len(chosen)}] {lane[0]}: Python {lane[1]}, extras {lane[3] or 'none'}")
            results[lane[0]] = try_lane(lane, uv, wheel, work)
            say(f"    {results[lane[0]]}")
    say("\nTried:")
    for name, result in results.items():
        say(f"  {name:18} {result.splitlines()[0]}")
    return int(any(result.startswith("FAILED") for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
