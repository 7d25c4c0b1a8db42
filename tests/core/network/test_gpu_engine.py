"""The engine on a CUDA device: copies beside computing, failures, forks, memory."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import make_text

from m3_core import Encoder, Reranker
from m3_core.errors import ClosedError, DeviceError, NonFiniteError, OutOfMemoryError
from m3_core.network import engine as engines
from m3_core.network.batches import PackedBatch
from m3_core.rerankers.network import RerankerOptions
from m3_core.testing import tiny_checkpoint, tiny_reranker

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

DEVICE = "cuda"
QUERIES = [make_text(i, 1 + i % 30) for i in range(300)]
ALL = {"return_sparse": True, "return_colbert_vecs": True}
KINDS = ["cross-encoder", "bert", "llm", "layerwise", "lightweight"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("gpu") / "m3", hidden_size=256, layers=3)


@pytest.fixture(scope="module")
def reranker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_reranker(tmp_path_factory.mktemp("gpu") / "reranker", hidden_size=256)


@pytest.fixture
def encoder(folder: Path) -> Iterator[Encoder]:
    with Encoder.from_pretrained(folder, device=DEVICE) as made:
        yield made


@pytest.fixture
def reranker(reranker_folder: Path) -> Iterator[Reranker]:
    with Reranker.from_pretrained(reranker_folder, device=DEVICE) as made:
        yield made


@pytest.fixture(autouse=True)
def _whole_memory() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def allocated() -> int:
    gc.collect()
    torch.cuda.synchronize()
    # Matrix products keep room of their own for each thread that asked for one.
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated()


def only_mib(mib: float) -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(mib * (1 << 20) / total)


@pytest.fixture
def _large_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch loads kernels; what it took shall not cut those after it."""
    monkeypatch.setattr(engines, "BATCH_SECONDS", 60.0)


def poison(embeddings: torch.nn.Embedding, token: int) -> None:
    with torch.no_grad():
        embeddings.weight[token] = float("nan")


def held(program: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Hold a program in its next batch: what says that it is there, and what lets it go on."""
    reached, go_on, compute = threading.Event(), threading.Event(), program.compute

    def waiting(batch: PackedBatch, tasks: Any) -> Any:
        reached.set()
        assert go_on.wait(60)
        return compute(batch, tasks)

    monkeypatch.setattr(program, "compute", waiting)
    return reached, go_on


def together(call: Callable[[Any], Any], things: list[Any], threads: int = 32) -> list[Any]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(call, things))


def caught(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 (the tests look at it)
        return error


def waited(child: int) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1


def test_the_device_is_the_same_in_every_thread(encoder: Encoder) -> None:
    assert encoder.device == torch.device("cuda", torch.cuda.current_device())


def test_nothing_waits_within_a_forward(encoder: Encoder) -> None:
    pipeline, tokens = encoder.model.network, encoder.model.tokenizer.encode(QUERIES, 64)
    order = np.argsort(-tokens.lengths, kind="stable")
    batch, _ = PackedBatch(tokens.ids, tokens.offsets).take(order)
    every, some = np.arange(len(order)), np.arange(0, len(order), 3)
    parts = ("dense", "sparse", "colbert")
    whole = encoder.request(parts)
    marked = encoder.request(parts, mcls=True)
    averaged = encoder.with_options(pooling="mean").request(parts)
    tasks = [(whole, every), (marked, some), (averaged, some)]
    with torch.inference_mode():
        pipeline.compute(batch, tasks)
        torch.cuda.set_sync_debug_mode("error")
        try:
            pipeline.compute(batch, tasks)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_waits_within_a_rerankers_forward(tmp_path: Path, kind: Any) -> None:
    lengths = np.array([40, 17, 17, 9, 3, 3])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    bounds = np.stack([np.ones_like(lengths), lengths - 1], axis=1)
    batch = PackedBatch(np.full(offsets[-1], 7, np.int32), offsets, bounds)
    options = RerankerOptions()
    if kind == "lightweight":
        options = RerankerOptions(compress_layers=(1, 3), compress_ratio=2)
    with Reranker.from_pretrained(tiny_reranker(tmp_path, kind=kind), device=DEVICE) as one:
        program = one.model.network
        with torch.inference_mode():
            program.compute(batch, [(options, np.arange(6))])
            torch.cuda.set_sync_debug_mode("error")
            try:
                program.compute(batch, [(options, np.arange(6))])
            finally:
                torch.cuda.set_sync_debug_mode("default")


def test_concurrent_queries_equal_serial_ones(encoder: Encoder) -> None:
    # Rounding may differ with the batch, by some bits of float16.
    serial = [encoder.encode_queries([text], **ALL) for text in QUERIES]

    async def at_once() -> list[Any]:
        return await asyncio.gather(*(encoder.aencode_queries([t], **ALL) for t in QUERIES))

    by_threads = together(lambda text: encoder.encode_queries([text], **ALL), QUERIES)
    assert encoder.stats().requests_per_batch > 1
    for results in (by_threads, asyncio.run(at_once())):
        for one, other in zip(serial, results, strict=True):
            np.testing.assert_allclose(one.dense_vecs, other.dense_vecs, atol=4e-3)
            vectors, others = one.colbert_vecs.vectors, other.colbert_vecs.vectors
            np.testing.assert_allclose(vectors, others, atol=8e-3)
            weights, expected = other.lexical_weights[0], one.lexical_weights[0]
            for token in weights.keys() | expected.keys():
                assert weights.get(token, 0) == pytest.approx(expected.get(token, 0), abs=0.03)


def test_concurrent_scores_equal_serial_ones(reranker: Reranker) -> None:
    pairs = [(text, QUERIES[-1 - i]) for i, text in enumerate(QUERIES)]
    serial = [reranker.compute_score([pair])[0] for pair in pairs]
    at_once = together(lambda pair: reranker.compute_score([pair])[0], pairs)
    np.testing.assert_allclose(at_once, serial, atol=0.03)
    np.testing.assert_allclose(reranker.compute_score(pairs), serial, atol=0.03)


def test_results_do_not_keep_page_locked_memory(encoder: Encoder) -> None:
    for texts in (QUERIES[:1], QUERIES):
        result = encoder.encode_documents(texts, **ALL)
        arrays = [result.dense_vecs, result.lexical_weights.weights, result.colbert_vecs.vectors]
        assert not any(torch.from_numpy(array).is_pinned() for array in arrays)


def test_a_nan_reaches_only_its_caller(encoder: Encoder) -> None:
    tokenizer = encoder.model.tokenizer
    ids = tokenizer.encode(["panda", "river"], 16)
    (token,) = set(ids.ids[: ids.offsets[1]]) - set(ids.ids[ids.offsets[1] :])
    poison(encoder.model.network.backbone.network.get_input_embeddings(), int(token))
    texts = ["panda" if i % 9 == 4 else "river" for i in range(90)]
    results = together(lambda text: caught(lambda: encoder.encode_queries([text], **ALL)), texts)
    for text, result in zip(texts, results, strict=True):
        assert isinstance(result, NonFiniteError) == (text == "panda")
    assert encoder.stats().failed == 10


def test_a_pair_without_a_score_reaches_only_its_caller(reranker: Reranker) -> None:
    ids = reranker.model.tokenizer.content_ids(["panda", "river"], 16)
    (token,) = set(ids[0]) - set(ids[1])
    poison(reranker.model.network.network._network.get_input_embeddings(), int(token))
    pairs = [("river", "panda" if i % 9 == 4 else "river") for i in range(90)]
    results = together(lambda pair: caught(lambda: reranker.compute_score([pair])), pairs)
    for (_, document), result in zip(pairs, results, strict=True):
        assert isinstance(result, NonFiniteError) == (document == "panda")


async def test_cancelled_callers_harm_nobody(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = encoder.encode_queries(QUERIES).dense_vecs
    _, go_on = held(encoder.model.network, monkeypatch)
    tasks = [asyncio.create_task(encoder.aencode_queries([text])) for text in QUERIES]
    await asyncio.sleep(0.05)
    for task in tasks[::3]:
        task.cancel()
    go_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for i, result in enumerate(results):
        if i % 3 == 0:
            assert isinstance(result, asyncio.CancelledError)
        else:
            np.testing.assert_allclose(result.dense_vecs[0], expected[i], atol=4e-3)
    # One may have been in the batch that was held.
    assert encoder.stats().cancelled == len(tasks[::3])
    assert encoder.model.engine.stats().waiting_tokens == 0


@pytest.mark.usefixtures("_large_batches")
def test_memory_that_runs_out_halves_batches_for_all(folder: Path) -> None:
    many = [make_text(i, 800) for i in range(96)]
    with Encoder.from_pretrained(folder, device=DEVICE, token_budget=1 << 19) as encoder:
        expected = encoder.encode_documents(many).dense_vecs
        before = allocated()
        only_mib(160)
        parts = together(lambda i: encoder.encode_documents(many[i::8], **ALL), list(range(8)))
        assert encoder.model.engine.budget.tokens < 1 << 19
        assert allocated() == before
    for i, part in enumerate(parts):
        np.testing.assert_allclose(part.dense_vecs, expected[i::8], atol=4e-3)


def test_a_text_that_never_fits_fails_alone_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, hidden_size=1024)
    with Encoder.from_pretrained(folder, device=DEVICE) as encoder:
        encoder.encode_queries(QUERIES)
        before = allocated()
        only_mib(1 + before / (1 << 20))
        error = caught(lambda: encoder.encode_documents(["panda " * 8190], **ALL))
        assert isinstance(error, OutOfMemoryError)
        assert allocated() == before
        torch.cuda.set_per_process_memory_fraction(1.0)
        assert len(encoder.encode_queries(QUERIES[:3])) == 3


@pytest.mark.usefixtures("_large_batches")
def test_pairs_that_do_not_fit_are_scored_in_halves(reranker_folder: Path) -> None:
    pairs = [("panda", make_text(i, 400)) for i in range(96)]
    with Reranker.from_pretrained(reranker_folder, device=DEVICE, token_budget=1 << 19) as one:
        expected = one.compute_score(pairs)
        before = allocated()
        only_mib(64)
        scores = one.compute_score(pairs)
        assert one.model.engine.budget.tokens < 1 << 19
        assert allocated() == before
    np.testing.assert_allclose(scores, expected, atol=0.03)


@pytest.mark.parametrize("kind", ["encoder", "reranker"])
def test_a_forked_child_is_told_that_it_cannot(kind: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(kind)
    calls = {
        "encoder": lambda: model.encode_queries(["panda"]),
        "reranker": lambda: model.compute_score([("panda", "river")]),
    }
    calls[kind]()
    child = os.fork()
    if not child:
        status = 1
        try:
            calls[kind]()
        except DeviceError as error:
            status = 0 if "start children with 'spawn'" in str(error) else 2
        finally:
            os._exit(status)
    assert waited(child) == 0
    calls[kind]()


@pytest.mark.parametrize("kind", ["encoder", "reranker"])
def test_close_frees_memory_with_calls_in_flight(
    kind: str, folder: Path, reranker_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = allocated()
    if kind == "encoder":
        model: Any = Encoder.from_pretrained(folder, device=DEVICE)
        call = lambda text: caught(lambda: model.encode_queries([text]))  # noqa: E731
    else:
        model = Reranker.from_pretrained(reranker_folder, device=DEVICE)
        call = lambda text: caught(lambda: model.compute_score([(text, text)]))  # noqa: E731
    reached, go_on = held(model.model.network, monkeypatch)
    with ThreadPoolExecutor(32) as pool:
        running = [pool.submit(call, text) for text in QUERIES[:32]]
        assert reached.wait(60)
        deadline = time.monotonic() + 60
        while model.stats().requests < 32 and time.monotonic() < deadline:
            time.sleep(0.001)
        closing = threading.Thread(target=model.close)
        closing.start()
        while not model.closed:
            time.sleep(0.001)
        go_on.set()
        closing.join()
        results = [one.result() for one in running]
    # What ran was given out or ended; what waited was ended, and the errors are kept here.
    assert any(isinstance(result, ClosedError) for result in results)
    monkeypatch.undo()
    del reached, go_on
    assert allocated() == before
