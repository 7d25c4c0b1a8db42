"""Checkpoints that many tests share, written once a run."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.table import CORPUS, table

from m3_core import Encoder
from m3_core.testing import tiny_checkpoint

# How long an example takes says nothing here: models compute in them, beside other processes.
settings.register_profile("m3", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("m3")


WORDS = (
    *("panda", "bear", "river", "city", "search", "query", "token", "model", "world", "water"),
    *("der", "Fluss", "und", "Stadt", "el", "río", "ciudad", "мир", "город"),
    *("你好", "世界", "大熊猫", "नमस्ते", "दुनिया"),
)


def make_text(number: int, words: int) -> str:
    """A text of so many words, another one for each number."""
    return " ".join(WORDS[(number * 7 + i * (number % 5 + 1)) % len(WORDS)] for i in range(words))


class Passes(list[int]):
    """What goes through an encoder's network: how many texts a time, and in which threads."""

    def __init__(self, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.threads: set[str] = set()
        self._asked, self._awaited = 0, 0
        compute, engine = encoder.model.network.compute, encoder.model.engine
        enter = engine._enter

        def asking(job):
            enter(job)
            self._asked += 1

        def counting(batch, tasks):
            patience = time.monotonic() + 30
            while self._asked < self._awaited and time.monotonic() < patience:
                time.sleep(0.001)
            self.append(len(batch.lengths))
            self.threads.add(threading.current_thread().name)
            return compute(batch, tasks)

        monkeypatch.setattr(encoder.model.network, "compute", counting)
        monkeypatch.setattr(engine, "_enter", asking)

    def hold(self, requests: int) -> None:
        """Let the next pass take until so many more calls were handed in.

        Args:
            requests: How many, the one that has the pass included.
        """
        self._awaited = self._asked + requests


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
def m3_small() -> Encoder:
    """The model that comes with the package."""
    return Encoder.from_pretrained("m3-small", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def table_encoder() -> Encoder:
    """The quickest model whose results mean something."""
    return Encoder.from_pretrained(table(), device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def corpus() -> dict[str, list[dict[str, str]]]:
    """The demo's multilingual documents (id, language, topic, text) and queries about them."""
    return CORPUS


@pytest.fixture
def fresh_table() -> Encoder:
    """The same with an empty cache of encodings."""
    return Encoder.from_pretrained(table(), device="cpu", dtype="float32")


@pytest.fixture
def passes(fresh_table: Encoder, monkeypatch: pytest.MonkeyPatch) -> Passes:
    """Texts that go through the network of ``fresh_table``, a number a pass."""
    return Passes(fresh_table, monkeypatch)
