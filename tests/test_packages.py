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


WITHOUT = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if (name + ".").startswith({absent!r} + "."):
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Absent())
import {package}
try:
    {package}.{exported}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("package", "exported", "absent", "extra"),
    [
        ("langchain_m3", "M3HybridRetriever", "langchain_core", "langchain"),
        ("llamaindex_m3", "M3Index", "llama_index", "llamaindex"),
        ("llamaindex_m3", "M3Embedding", "llama_index.core", "llamaindex"),
        (
            *("llamaindex_m3", "M3MilvusSparseEmbeddingFunction"),
            *("llama_index.vector_stores.milvus", "llamaindex-milvus"),
        ),
        ("langchain_m3", "QdrantHybridStore", "qdrant_client", "qdrant"),
        ("langchain_m3", "M3SparseEmbeddings", "langchain_qdrant", "langchain-qdrant"),
        ("llamaindex_m3", "QdrantHybridStore", "qdrant_client", "qdrant"),
        ("m3_core.stores.qdrant", "Names", "qdrant_client", "qdrant"),
    ],
)
def test_an_absent_framework_is_named_with_its_extra(package, exported, absent, extra) -> None:
    code = WITHOUT.format(package=package, exported=exported, absent=absent)
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert f"{exported} needs {absent}" in output
    assert f"pip install 'm3-retrieval[{extra}]'" in output


def test_every_extra_that_is_named_exists() -> None:
    from pathlib import Path

    import langchain_m3
    import llamaindex_m3

    project = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    for extra in {*langchain_m3._EXTRAS.values(), *llamaindex_m3._EXTRAS.values(), "qdrant"}:
        assert f"\n{extra} = [" in project


def test_the_changelog_knows_the_version() -> None:
    from pathlib import Path

    import m3_core

    changelog = Path(__file__).parent.parent / "CHANGELOG.md"
    assert f"## {m3_core.__version__}" in changelog.read_text(encoding="utf-8")
