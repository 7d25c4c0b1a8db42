from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading

import numpy as np
import pytest
from tests.conftest import Passes

from m3_core import Encoder
from m3_core.encoder.cache import cache_of
from m3_core.encoder.cached import CachedEncoder
from m3_core.errors import ClosedError, MissingRepresentationError
from m3_core.network.fingerprint import checkpoint_fingerprint
from m3_core.testing import FakeEncoder, tiny_checkpoint

TEXTS = ["panda", "bear river", "", "мир", "panda", "大熊猫 世界"]


class Hooked(FakeEncoder):
    """Does something before it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.before = lambda: None

    def _encode(self, *args, **options):
        self.before()
        return super()._encode(*args, **options)

    @property
    def sizes(self) -> list[int]:
        return [count for _, count in self.calls]


@pytest.fixture
def fake() -> Hooked:
    return Hooked()


@pytest.fixture
def fresh(tmp_path) -> Encoder:
    return Encoder.from_pretrained(tiny_checkpoint(tmp_path / "m3"), device="cpu", dtype="float32")


@pytest.fixture
def passes(fresh: Encoder, monkeypatch: pytest.MonkeyPatch) -> Passes:
    return Passes(fresh, monkeypatch)


def test_dense_then_sparse_is_one_pass_with_the_encoders_numbers(fresh, passes) -> None:
    expected = fresh.encode_documents(TEXTS, return_sparse=True)
    passes.clear()
    dense, sparse = CachedEncoder(fresh, ["dense"]), CachedEncoder(fresh, ["sparse"])
    first, second = dense.documents(TEXTS), sparse.documents(TEXTS)
    assert passes == [5]
    np.testing.assert_allclose(first.dense_vecs, expected.dense_vecs, atol=1e-6)
    assert first.lexical_weights is None
    assert second.dense_vecs is None
    for ours, theirs in zip(second.lexical_weights, expected.lexical_weights, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("order", [["dense", "sparse"], ["sparse", "dense"]])
def test_either_may_ask_first_and_only_missing_texts_are_computed(fresh, passes, order) -> None:
    wide = fresh.with_options(truncate_dim=8)
    adapters = [CachedEncoder(wide if p == "dense" else fresh, [p]) for p in order]
    for adapter in adapters:
        adapter.documents(TEXTS)
    # M3 has no instructions: as queries the texts are the same to the network.
    for adapter in adapters:
        adapter.queries([*TEXTS, "new"])
    assert passes == [5, 1]


def test_other_options_and_instructions_are_other_encodings(fresh, passes) -> None:
    plain = CachedEncoder(fresh, ["dense"])
    expected = plain.queries(["panda"]).dense_vecs
    for other in (
        fresh.with_options(query_instruction="query: "),
        fresh.with_options(normalize=False),
        fresh.with_options(truncate_dim=4),
        fresh.with_options(pooling="mean"),
    ):
        changed = CachedEncoder(other, ["dense"]).queries(["panda"]).dense_vecs
        assert changed.shape != expected.shape or not np.allclose(changed, expected)
    CachedEncoder(fresh.with_options(max_length=9), ["dense"]).queries(["panda"])
    assert passes == [1] * 6
    # The instruction moved into the text is the same to the network.
    instructed = CachedEncoder(fresh.with_options(query_instruction="query: "), ["dense"])
    plain.queries(["query: panda"])
    instructed.queries(["panda"])
    assert passes == [1] * 6


def test_an_adapter_that_is_gone_is_not_computed_for(fake) -> None:
    sparse = CachedEncoder(fake, ["sparse"])
    dense = CachedEncoder(fake, ["dense"])
    del sparse
    gc.collect()
    dense.queries(["panda"])
    CachedEncoder(fake, ["sparse"]).queries(["panda"])
    assert fake.sizes == [1, 1]


def test_off_by_a_switch(fake) -> None:
    adapter = CachedEncoder(fake, ["dense"], reuse=False)
    adapter.queries(["panda"])
    adapter.queries(["panda"])
    assert fake.sizes == [1, 1]
    assert len(cache_of(fake)) == 0


def test_bounded_in_bytes_and_entries(fake) -> None:
    cache = cache_of(fake)
    cache.max_entries = 3
    adapter = CachedEncoder(fake, ["dense", "sparse", "colbert"])
    assert len(adapter.documents([f"text {i}" for i in range(10)])) == 10
    assert len(cache) == 3
    assert cache.nbytes > 0
    cache.max_bytes = 100
    adapter.documents(["another"])
    assert (len(cache), cache.nbytes) == (0, 0)


def test_two_threads_with_the_same_texts_compute_once(fake) -> None:
    adapter = CachedEncoder(fake, ["dense"])
    results, inside = [], threading.Event()
    second = threading.Thread(target=lambda: results.append(adapter.queries(["a", "b", "c"])))

    def start_the_other() -> None:
        if not inside.is_set():
            inside.set()
            second.start()

    fake.before = start_the_other
    results.append(adapter.queries(["a", "b"]))
    second.join()
    # The second computes what the first did not, and waits for the rest.
    assert sorted(fake.sizes) == [1, 2]
    assert sorted(map(len, results)) == [2, 3]


def test_who_waits_for_a_thread_that_fails_computes_itself(fake) -> None:
    adapter = CachedEncoder(fake, ["dense"])
    results, failing = [], threading.Event()
    second = threading.Thread(target=lambda: results.append(adapter.queries(["a"])))

    def fail() -> None:
        if not failing.is_set():
            failing.set()
            second.start()
            raise ArithmeticError

    fake.before = fail
    with pytest.raises(ArithmeticError):
        adapter.queries(["a"])
    second.join()
    assert len(results[0]) == 1


def test_many_threads_get_the_serial_results(fake) -> None:
    cache_of(fake).max_entries = 8
    adapters = [CachedEncoder(fake, [part]) for part in ("dense", "sparse", "colbert")]
    texts = [f"text {i % 12}" for i in range(48)]
    expected = fake.encode_queries(texts[:12])
    wrong = []

    def work(start: int) -> None:
        for step in range(6):
            part = [(start + step + i) % 12 for i in range(4)]
            reps = adapters[(start + step) % 3].queries([texts[i] for i in part])
            if reps.dense_vecs is not None and not np.allclose(
                reps.dense_vecs, expected.dense_vecs[part], atol=1e-5
            ):
                wrong.append(part)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_wrong_wishes_and_closed_encoders_are_refused(fresh, tiny_dense) -> None:
    adapter = CachedEncoder(fresh, ["dense"])
    assert len(adapter.queries([])) == 0
    adapter.queries(["panda"])
    with pytest.raises(ValueError, match="got lexical"):
        CachedEncoder(fresh, ["lexical"])
    with pytest.raises(MissingRepresentationError, match="sparse is needed"):
        CachedEncoder(Encoder.from_pretrained(tiny_dense, device="cpu"), ["sparse"])
    with pytest.raises(TypeError, match="text 1"):
        adapter.documents(["panda", 3])
    fresh.close()
    with pytest.raises(ClosedError):
        adapter.queries(["panda"])


async def test_async_copies_and_pickles(fresh) -> None:
    adapter = CachedEncoder(fresh, ["dense", "colbert"])
    expected = adapter.documents(TEXTS)
    for other in (adapter, copy.deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):
        reps = await other.adocuments(TEXTS)
        np.testing.assert_allclose(reps.dense_vecs, expected.dense_vecs, atol=1e-6)
        np.testing.assert_array_equal(reps.colbert_vecs.offsets, expected.colbert_vecs.offsets)


@pytest.mark.parametrize("count", [3, 100])
async def test_who_is_cancelled_leaves_the_texts_to_those_who_wait(fake, count) -> None:
    adapter = CachedEncoder(fake, ["dense"])
    listed = [f"text {i}" for i in range(count)]
    entered, encode = asyncio.Event(), fake.aencode_documents

    async def never(*_, **__):
        entered.set()
        await asyncio.Event().wait()

    fake.aencode_documents = never
    first = asyncio.create_task(adapter.adocuments(listed))
    await entered.wait()
    fake.aencode_documents = encode
    second = asyncio.create_task(adapter.adocuments(listed))
    await asyncio.sleep(0.05)
    assert fake.calls == []
    first.cancel()
    reps = await asyncio.wait_for(second, 60)
    assert fake.calls == [("document", count)]
    np.testing.assert_array_equal(reps.dense_vecs, fake.encode_documents(listed).dense_vecs)
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_cancelled_at_any_moment_the_next_is_served(fake) -> None:
    adapter = CachedEncoder(fake, ["dense"])
    for step in range(60):
        listed = [f"text {step} {i}" for i in range(40)]
        task = asyncio.create_task(adapter.adocuments(listed))
        for _ in range(step % 12):
            await asyncio.sleep(0)
        if step % 3 == 0:
            await asyncio.sleep(0.001)
        task.cancel()
        assert len(await asyncio.wait_for(adapter.adocuments(listed), 60)) == 40
        await asyncio.gather(task, return_exceptions=True)


def test_fingerprints_follow_content_and_options(fresh, tmp_path) -> None:
    same = tiny_checkpoint(tmp_path / "copy")
    other = tiny_checkpoint(tmp_path / "other", seed=1)
    assert checkpoint_fingerprint(same) == checkpoint_fingerprint(tmp_path / "m3")
    assert checkpoint_fingerprint(other) != checkpoint_fingerprint(same)
    plain = fresh.fingerprint()
    assert fresh.with_options(query_instruction="q: ").fingerprint() == plain
    for option in ({"truncate_dim": 4}, {"normalize": False}, {"pooling": "mean"}):
        changed = fresh.with_options(**option)
        assert changed.fingerprint() != plain
        assert changed.fingerprint(["sparse"]) == fresh.fingerprint(["sparse"])
    for option in ({"max_length": 9}, {"document_instruction": "d: "}):
        changed = fresh.with_options(**option)
        assert changed.fingerprint(["sparse"]) != fresh.fingerprint(["sparse"])
    queries = fresh.with_options(query_instruction="q: ").fingerprint(queries=True)
    assert queries != fresh.fingerprint(queries=True)
