"""What the packages export and what importing them loads."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

HEAVY = {
    *("torch", "transformers", "tokenizers", "langchain_core", "llama_index", "scipy"),
    *("fastapi", "uvicorn"),
}


PACKAGES = ["m3_core", "langchain_m3", "llamaindex_m3"]
ROOMS = [
    f"m3_core.{room}"
    for room in (
        *("network", "encoder", "lexical_index", "collection", "rerankers", "adapters"),
        *("testing", "training", "cli", "flagembedding", "server", "bulk"),
    )
]


@pytest.mark.parametrize("name", [*PACKAGES, *ROOMS])
def test_importing_loads_nothing_heavy(name: str) -> None:
    assert loaded_by(f"import {name}") == set()


@pytest.mark.parametrize(
    ("room", "name"),
    [
        ("testing", "FakeEncoder"),
        ("encoder", "TextEncoder"),
        ("encoder", "CachedEncoder"),
        ("encoder", "RemoteEncoder"),
        ("rerankers", "RemoteReranker"),
        ("adapters", "EncoderFields"),
        ("adapters", "RerankerFields"),
        ("network", "Backbone"),
        ("network", "Pooling"),
        ("collection", "DocumentCollection"),
        ("lexical_index", "LexicalIndex"),
        ("rerankers", "HybridScorer"),
    ],
)
def test_what_needs_no_network_loads_none(room: str, name: str) -> None:
    code = f"from m3_core.{room} import {name}"
    assert loaded_by(code) & {"torch", "transformers", "tokenizers"} == set()


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    return HEAVY & set(output.split())


@pytest.mark.parametrize("name", [*PACKAGES, *ROOMS])
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
        ("m3_core.bulk", "encode_dataset", "pyarrow", "bulk"),
        ("m3_core.server", "create_app", "fastapi", "serve"),
        ("m3_core.server", "create_app", "prometheus_client", "serve"),
        ("m3_core.server", "serve", "uvicorn", "serve"),
    ],
)
def test_an_absent_framework_is_named_with_its_extra(package, exported, absent, extra) -> None:
    code = WITHOUT.format(package=package, exported=exported, absent=absent)
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert f"{exported} needs {absent}" in output
    assert f"pip install 'm3-retrieval[{extra}]'" in output


WITHOUT_TRANSFORMERS = """
import importlib.abc, sys
from pathlib import Path

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "transformers":
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Absent())
from m3_core import Encoder, Reranker
from m3_core.errors import MissingPackageError
from m3_core.testing import tiny_checkpoint
from m3_core.testing.rerankers import tiny_reranker
import langchain_m3, llamaindex_m3

folder = Path(sys.argv[1])
everything = dict(return_sparse=True, return_colbert_vecs=True)
assert Encoder.from_pretrained("m3-small").encode_documents(["a"], **everything).dense_vecs.any()
for kind in ("m3", "bge"):
    Encoder.from_pretrained(tiny_checkpoint(folder / kind, kind=kind)).encode_queries(["a"])
for kind in ("cross-encoder", "bert"):
    Reranker.from_pretrained(tiny_reranker(folder / f"r-{kind}", kind=kind)).rank("a", ["b"])
assert langchain_m3.M3Embeddings(model_name="m3-small").embed_query("a")
assert llamaindex_m3.M3Embedding(model_name="m3-small").get_text_embedding("a")
config = folder / "bge" / "config.json"
config.write_text(config.read_text().replace("{", '{"hidden_act": "mish",', 1))
for what in (
    lambda: Encoder.from_pretrained(folder / "bge"),
    lambda: Reranker.from_pretrained(sys.argv[2]),
    lambda: Reranker.from_pretrained(sys.argv[3]),
    lambda: tiny_reranker(folder / "llm", kind="llm"),
):
    try:
        what()
    except MissingPackageError as error:
        print(error)
"""


def test_encoders_and_cross_encoders_need_no_transformers(tmp_path) -> None:
    from m3_core.testing.rerankers import tiny_reranker

    decoders = [tiny_reranker(tmp_path / kind, kind=kind) for kind in ("llm", "layerwise")]
    output = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRANSFORMERS, tmp_path / "x", *decoders],
        capture_output=True,
        text=True,
        check=False,
    )
    assert output.returncode == 0, output.stderr
    lines = output.stdout.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.endswith("needs transformers: pip install 'm3-retrieval[transformers]'")


def test_every_extra_that_is_named_exists() -> None:
    from pathlib import Path

    import langchain_m3
    import llamaindex_m3

    project = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    for extra in {
        *langchain_m3._EXTRAS.values(),
        *llamaindex_m3._EXTRAS.values(),
        "qdrant",
        "transformers",
    }:
        assert f"\n{extra} = [" in project


def test_the_changelog_knows_the_version() -> None:
    from pathlib import Path

    import m3_core

    changelog = Path(__file__).parent.parent / "CHANGELOG.md"
    assert f"## {m3_core.__version__}" in changelog.read_text(encoding="utf-8")
