"""Checkpoints that many tests share, written once a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from m3_core import Encoder
from m3_core.testing import tiny_checkpoint

CORPUS = Path(__file__).parent.parent / "demo" / "corpus.json"

WORDS = (
    *("panda", "bear", "river", "city", "search", "query", "token", "model", "world", "water"),
    *("der", "Fluss", "und", "Stadt", "el", "río", "ciudad", "мир", "город"),
    *("你好", "世界", "大熊猫", "नमस्ते", "दुनिया"),
)


def make_text(number: int, words: int) -> str:
    """A text of so many words, another one for each number."""
    return " ".join(WORDS[(number * 7 + i * (number % 5 + 1)) % len(WORDS)] for i in range(words))


@pytest.fixture(scope="session")
def tiny_m3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "m3")


@pytest.fixture(scope="session")
def tiny_mean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "mean", pooling="mean", seed=1)


@pytest.fixture(scope="session")
def tiny_dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "dense", kind="dense")


@pytest.fixture(scope="session")
def tiny_bge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "bge", kind="bge")


@pytest.fixture(scope="session")
def encoder(tiny_m3: Path) -> Encoder:
    return Encoder.from_pretrained(tiny_m3, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def m3_tiny() -> Encoder:
    """The packaged model: small, but its results mean something."""
    return Encoder.from_pretrained("m3-tiny", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def corpus() -> dict[str, list[dict[str, str]]]:
    """The demo's multilingual documents (id, language, topic, text) and queries about them."""
    return json.loads(CORPUS.read_text(encoding="utf-8"))


@pytest.fixture
def fresh_tiny() -> Encoder:
    """m3-tiny with an empty cache of encodings."""
    return Encoder.from_pretrained("m3-tiny", device="cpu", dtype="float32")


@pytest.fixture
def passes(fresh_tiny: Encoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Texts that go through the network of ``fresh_tiny``, a number a pass."""
    counted, run = list[int](), fresh_tiny.model.pipeline.run

    def counting(tokens, *args):
        counted.append(len(tokens.lengths))
        return run(tokens, *args)

    monkeypatch.setattr(fresh_tiny.model.pipeline, "run", counting)
    return counted
