"""What the packages export and what importing them loads."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "tokenizers", "langchain_core", "llama_index", "scipy"}


@pytest.mark.parametrize("name", ["m3_core", "langchain_m3", "llamaindex_m3"])
def test_importing_loads_nothing_heavy(name: str) -> None:
    code = f"import sys, {name}; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert HEAVY & set(output.split()) == set()


@pytest.mark.parametrize("name", ["m3_core", "langchain_m3", "llamaindex_m3"])
def test_every_exported_name_exists(name: str) -> None:
    package = importlib.import_module(name)
    assert sorted(package.__all__, key=str.lower) == sorted(dir(package), key=str.lower)
    for exported in package.__all__:
        assert getattr(package, exported) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        package.Nothing  # noqa: B018


def test_the_changelog_knows_the_version() -> None:
    from pathlib import Path

    import m3_core

    changelog = Path(__file__).parent.parent / "CHANGELOG.md"
    assert f"## {m3_core.__version__}" in changelog.read_text(encoding="utf-8")
