"""Memory that runs out and outputs that are no numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import make_text

from m3_core import Encoder
from m3_core.errors import NonFiniteError, OutOfMemoryError
from m3_core.network.batches import Job, PackedBatch, Share, Work, pack
from m3_core.network.memory import is_out_of_memory
from m3_core.network.tokens import TokenBatch

ALL = {"return_sparse": True, "return_colbert_vecs": True}


@pytest.fixture
def fresh(tiny_m3: Path) -> Encoder:
    return Encoder.from_pretrained(tiny_m3, device="cpu", dtype="float32")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory"),
        MemoryError(),
    ],
)
def test_every_batch_may_run_out_of_memory_and_goes_on(
    fresh: Encoder, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    texts = [make_text(i, 5 + i % 11) for i in range(60)]
    expected = fresh.encode_documents(texts, **ALL)
    forward, sizes = fresh.model.network.backbone.forward, []

    def limited(batch: PackedBatch) -> object:
        sizes.append(len(batch.ids))
        # Memory gets scarcer while the call runs.
        if len(batch.ids) > (150 if len(sizes) < 8 else 40):
            raise error
        return forward(batch)

    monkeypatch.setattr(fresh.model.network.backbone, "forward", limited)
    survived = fresh.encode_documents(texts, **ALL)
    np.testing.assert_allclose(survived.dense_vecs, expected.dense_vecs, atol=1e-5)
    np.testing.assert_allclose(
        survived.colbert_vecs.vectors, expected.colbert_vecs.vectors, atol=1e-5
    )
    assert list(survived.lexical_weights) == [
        pytest.approx(row, abs=1e-5) for row in expected.lexical_weights
    ]
    done = [size for size in sizes if size <= 150]
    assert sum(sizes) > sum(done), "nothing was ever too large"


def test_a_text_that_never_fits_is_named(fresh: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def limited(batch: PackedBatch) -> object:
        if len(batch.ids) > 30:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return type(fresh.model.network.backbone).forward(fresh.model.network.backbone, batch)

    monkeypatch.setattr(fresh.model.network.backbone, "forward", limited)
    with pytest.raises(OutOfMemoryError, match=r"text 2 of \d\d tokens does not fit"):
        fresh.encode_documents(["a", "b", "world " * 40])
    assert len(fresh.encode_documents(["a", "b"])) == 2


def test_other_errors_pass_through(fresh: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: PackedBatch) -> object:
        raise RuntimeError("a bug")

    monkeypatch.setattr(fresh.model.network.backbone, "forward", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        fresh.encode_documents(["a"])
    assert not is_out_of_memory(RuntimeError("a bug"))


@pytest.mark.parametrize("wanted", ["dense", "sparse", "colbert_vecs"])
def test_outputs_that_are_no_numbers_name_their_texts(fresh: Encoder, wanted: str) -> None:
    embeddings = fresh.model.network.backbone.words.weight
    token = fresh.model.tokenizer._raw.token_to_id("▁panda")
    with torch.no_grad():
        embeddings[token] = float("nan")
    flags = {"return_dense": False, f"return_{wanted}": True}
    texts = ["river city", "panda", "world", "a panda river"]
    with pytest.raises(NonFiniteError, match=r"2 texts \(positions 1, 3\)"):
        fresh.encode_documents(texts, **flags)
    assert len(fresh.encode_documents(["river"], **flags)) == 1


def test_batches_hand_out_each_text_once_within_the_budget() -> None:
    lengths = np.array([3, 9, 2, 9, 30, 1, 4])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = TokenBatch(
        np.arange(offsets[-1], dtype=np.int32), offsets, np.zeros(len(lengths), bool)
    )
    job, seen = Job(Work(tokens, 1, None), 1, lambda: None), []
    assert job.take(10).tolist() == []
    first = job.take_one()
    assert first.tolist() == [4]
    job.put_back(first)
    while job.waiting_tokens:
        rows = job.take(12)
        if not len(rows):
            rows = job.take_one()
        share = Share(job, rows, rows)
        batch, asked = pack([share])
        assert len(rows) == 1 or len(batch.ids) <= 12
        for row, start, stop in zip(rows, batch.offsets, batch.offsets[1:], strict=False):
            expected = np.arange(offsets[row], offsets[row + 1])
            np.testing.assert_array_equal(batch.ids[start:stop], expected)
        assert sum(count * length for _, count, length in batch.groups) == len(batch.ids)
        assert list(asked) == [1]
        assert share.places.tolist() == list(range(len(rows)))
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(lengths)))
    assert sorted(lengths[seen].tolist(), reverse=True) == lengths[seen].tolist()
