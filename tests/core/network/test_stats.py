"""What a model says of its work: numbers, and lines in the log."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from m3_core import Encoder, Reranker
from m3_core.encoder.cache import cache_of, known_cache
from m3_core.encoder.cached import CachedEncoder
from m3_core.testing import tiny_checkpoint, tiny_reranker

SECRET = "panda secret world"


@pytest.fixture
def fresh(tmp_path: Path) -> Encoder:
    return Encoder.from_pretrained(tiny_checkpoint(tmp_path), device="cpu", dtype="float32")


def test_an_encoder_counts_what_its_engine_did_and_its_cache_spared(fresh: Encoder) -> None:
    fresh.encode_documents([SECRET, "river"])
    alone = fresh.stats()
    assert (alone.requests, alone.texts, alone.batches) == (1, 2, 1)
    assert alone.tokens == alone.tokens_per_batch > 4
    assert alone.requests_per_batch == 1
    assert alone.waiting_seconds > 0
    assert (alone.cache_hits, alone.cache_misses) == (0, 0)
    assert known_cache(fresh) is None, "asking for numbers made a cache"
    cached = CachedEncoder(fresh, ["dense"])
    cached.queries([SECRET, "bear"])
    cached.queries(["bear", "water"])
    stats = fresh.with_options(truncate_dim=8).stats()
    assert (stats.cache_hits, stats.cache_misses) == (1, 3)
    assert (stats.requests, stats.texts) == (3, 5)
    cache_of(fresh).after_fork()
    assert fresh.stats().cache_misses == 0


def test_a_reranker_counts_too(tmp_path: Path) -> None:
    with Reranker.from_pretrained(tiny_reranker(tmp_path), device="cpu", dtype="float32") as one:
        one.compute_score([("panda", "bear"), ("panda", "river")])
        stats = one.stats()
    assert (stats.texts, stats.batches, stats.failed) == (2, 1, 0)


def test_the_log_says_what_was_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tiny_checkpoint(tmp_path)
    with caplog.at_level(logging.INFO, "m3_core"):
        Encoder.from_pretrained(folder, device="cpu", dtype="float32")
    ((logger, level, line),) = caplog.record_tuples
    assert (logger, level) == ("m3_core", logging.INFO)
    assert line.startswith(f"loaded {folder} on cpu in float32 within ")


def test_the_log_says_that_batches_were_halved_and_no_text(
    fresh: Encoder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = fresh.model.network.compute

    def limited(batch, tasks):
        if len(batch.lengths) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(batch, tasks)

    monkeypatch.setattr(fresh.model.network, "compute", limited)
    with caplog.at_level(logging.DEBUG, "m3_core"):
        fresh.encode_documents([SECRET] * 4)
    levels = {record.levelno for record in caplog.records}
    assert levels == {logging.WARNING}
    assert "did not fit into the memory of cpu; batches have" in caplog.text
    assert "secret" not in caplog.text
