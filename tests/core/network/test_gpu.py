"""What only a CUDA device can show: half precision, variable-length attention, memory."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from m3_core import Encoder, Representations
from m3_core.network import engine as engines
from m3_core.network.batches import PackedBatch
from m3_core.network.packing import Packing, attend, varlen_kernel
from m3_core.testing import tiny_checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

LENGTHS = [2, 3, 5, 8, 17, 64, 65, 127, 128, 129, 255, 512, 1000, 2048, 4097, 8190]
ALL = {"return_sparse": True, "return_colbert_vecs": True}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("gpu") / "m3", hidden_size=256, layers=3)


@pytest.fixture(autouse=True)
def _whole_memory() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def texts() -> list[str]:
    return ["".join("panda 世界 мир river "[(i + n) % 18] for i in range(n)) for n in LENGTHS] + [
        ""
    ]


def least_cosine(ours: np.ndarray, reference: np.ndarray) -> float:
    ours, reference = ours.astype(np.float64), reference.astype(np.float64)
    norms = np.linalg.norm(ours, axis=-1) * np.linalg.norm(reference, axis=-1)
    return float(((ours * reference).sum(-1) / norms).min())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_varlen_attention_equals_grouped_attention_and_float32(dtype: torch.dtype) -> None:
    device = torch.device("cuda")
    kernel = varlen_kernel(device, dtype)
    if kernel is None:
        pytest.skip("this torch or device has no variable-length attention")
    lengths = np.array(sorted([*LENGTHS, 1, 1, 8192], reverse=True))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    batch = PackedBatch(np.zeros(offsets[-1], np.int32), offsets)
    shape = (3, int(offsets[-1]), 4, 64)
    parts = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    on_gpu = [part.to(device, dtype) for part in parts]
    cpu = [part.float().cpu() for part in on_gpu]
    for scaling in (None, 64**-0.5, 0.05):
        results = []
        for inputs, used in ((on_gpu, kernel), (on_gpu, None), (cpu, None)):
            packing = Packing(batch, inputs[0].device, used)
            results.append(attend(*inputs, packing, scaling).float())
        varlen, grouped, reference = (result.cpu() for result in results)
        tolerance = 2e-3 if dtype == torch.float16 else 1.6e-2
        assert (varlen - reference).abs().max() < tolerance
        assert (grouped - reference).abs().max() < tolerance
        assert (varlen - grouped).abs().max() < tolerance


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_near_float32_on_the_cpu(checkpoint: Path, dtype: str) -> None:
    with (
        Encoder.from_pretrained(checkpoint, device="cuda", dtype=dtype) as gpu,
        Encoder.from_pretrained(checkpoint, device="cpu", dtype="float32") as cpu,
    ):
        ours, reference = (e.encode_documents(texts(), **ALL) for e in (gpu, cpu))
    # float16 keeps 11 bits, bfloat16 8.
    bound = 0.99999 if dtype == "float16" else 0.999
    assert least_cosine(ours.dense_vecs, reference.dense_vecs) > bound
    assert ours.colbert_vecs.vectors.dtype == np.float16
    assert least_cosine(ours.colbert_vecs.vectors, reference.colbert_vecs.vectors) > bound
    for mine, theirs in zip(ours.lexical_weights, reference.lexical_weights, strict=True):
        for token in mine.keys() | theirs.keys():
            assert mine.get(token, 0) == pytest.approx(theirs.get(token, 0), abs=0.03, rel=0.02)


def test_float32_on_the_gpu_equals_the_cpu(checkpoint: Path) -> None:
    with (
        Encoder.from_pretrained(checkpoint, device="cuda", dtype="float32") as gpu,
        Encoder.from_pretrained(checkpoint, device="cpu", dtype="float32") as cpu,
    ):
        ours, reference = (e.encode_documents(texts(), **ALL) for e in (gpu, cpu))
    np.testing.assert_allclose(ours.dense_vecs, reference.dense_vecs, atol=1e-5)
    np.testing.assert_allclose(ours.colbert_vecs.vectors, reference.colbert_vecs.vectors, atol=1e-5)


def equal(left: Representations, right: Representations) -> bool:
    return least_cosine(left.dense_vecs, right.dense_vecs) > 0.99999 and bool(
        least_cosine(left.colbert_vecs.vectors, right.colbert_vecs.vectors) > 0.9999
    )


def test_runs_out_of_memory_and_goes_on_with_smaller_batches(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first batch loads kernels; what it took shall not cut those after it.
    monkeypatch.setattr(engines, "BATCH_SECONDS", 60.0)
    many = ["世界" * 4000] * 64 + ["panda river"] * 200
    with Encoder.from_pretrained(checkpoint, device="cuda", token_budget=1 << 20) as encoder:
        expected = encoder.encode_documents(many, **ALL)
        assert encoder.model.engine.budget.tokens == 1 << 20
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((700 << 20) / total)
        survived = encoder.encode_documents(many, **ALL)
        assert encoder.model.engine.budget.tokens < 1 << 20
    assert equal(survived, expected)


def test_nothing_is_left_on_the_device_after_close(checkpoint: Path) -> None:
    gc.collect()
    torch.cuda.empty_cache()
    torch._C._cuda_clearCublasWorkspaces()
    before = torch.cuda.memory_allocated()
    encoder = Encoder.from_pretrained(checkpoint, device="cuda")
    encoder.encode_documents(texts(), **ALL)
    assert torch.cuda.memory_allocated() > before
    encoder.close()
    gc.collect()
    # Matrix products keep room of their own for each thread that asked for one.
    torch._C._cuda_clearCublasWorkspaces()
    assert torch.cuda.memory_allocated() == before


def test_threads_share_the_device(checkpoint: Path) -> None:
    with Encoder.from_pretrained(checkpoint, device="cuda") as encoder:
        expected = encoder.encode_documents(texts(), **ALL)
        results: list[Representations] = []
        threads = [
            threading.Thread(
                target=lambda: results.append(encoder.encode_documents(texts(), **ALL))
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 8
    assert all(equal(result, expected) for result in results)
