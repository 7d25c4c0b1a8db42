"""Networks in int8: exact products, scales of their own for every row, and what is refused."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.conftest import make_text

from m3_core import Encoder, Reranker, shared_encoder
from m3_core.errors import DeviceError, NonFiniteError, UnsupportedModelError
from m3_core.network.batches import PackedBatch
from m3_core.network.checkpoint import read_checkpoint
from m3_core.network.device import cpu_multiplies, has_amx, resolve_dtype
from m3_core.network.int8 import Int8Linear, Int8Rows, quantise, quantise_states
from m3_core.network.packed import PackedBackbone
from m3_core.testing import tiny_checkpoint
from m3_core.testing.rerankers import tiny_reranker

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(
    not cpu_multiplies(torch.int8), reason="this CPU has no instructions for int8"
)
TEXTS = ["a panda in the city", "river " * 90, "x", "the world of bears", "мир 世界"]


def load(folder: Path, dtype: torch.dtype = torch.int8) -> PackedBackbone:
    return PackedBackbone.load(read_checkpoint(folder, folder.name), CPU, dtype)


def packed(lengths: list[int], seed: int = 0) -> PackedBatch:
    ids = np.random.default_rng(seed).integers(5, 999, sum(lengths)).astype(np.int32)
    return PackedBatch(ids, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough that rounding evens out, as in real networks."""
    return tiny_checkpoint(tmp_path_factory.mktemp("int8") / "m3", hidden_size=256, layers=3)


def linear(weight: torch.Tensor, bias: torch.Tensor) -> Int8Linear:
    made, (outputs, inputs) = [], weight.shape

    class Given:
        def has(self, *names: str, shape: tuple[int, ...]) -> bool:
            return shape == (outputs, inputs)

        def ask_into(self, name: str, target: Int8Rows) -> None:
            made.append((name, target))

        def ask(self, *names: str, shape: tuple[int, ...]) -> torch.Tensor:
            return bias

        def when_filled(self, call: Callable[[], object]) -> None:
            made.append((None, call))

    layer = Int8Linear.of(Given(), "a", outputs=outputs, inputs=inputs)
    (_, target), (_, order) = made
    target.write(0, weight)
    order()
    return layer


# Whatever instructions multiply: the largest values everywhere, where 16 bits would overflow.
@pytest.mark.parametrize("tokens", [1, 3, 40, 700])
@pytest.mark.parametrize(("inputs", "outputs"), [(768, 96), (30, 7), (384, 1)])
@pytest.mark.parametrize("extreme", [True, False])
def test_products_are_exact(tokens: int, inputs: int, outputs: int, extreme: bool) -> None:
    generator = torch.Generator().manual_seed(tokens)
    states = torch.randn(tokens, inputs, generator=generator)
    weight = torch.randn(outputs, inputs, generator=generator)
    if extreme:
        states, weight = states.sign(), weight.abs().sign()
        states[::2] = 1.0
    bias = torch.randn(outputs, generator=generator)
    layer = linear(weight, bias)
    rows, scales, least = quantise_states(states)
    columns, factors = quantise(weight)
    rounded = rows.double() * scales.double() + least.double()
    expected = rounded @ (columns.double() * factors.double()).t() + bias.double()
    torch.testing.assert_close(layer(states).double(), expected, rtol=1e-5, atol=1e-3)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(-90, 90), st.integers(0, 99))
def test_integers_are_within_half_a_step(rows: int, width: int, power: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    given = torch.randn(rows, width, generator=random) * 2.0**power
    values, scales = quantise(given)
    assert values.abs().amax(1).eq(127).all()
    apart = (values * scales.double() - given.double()).abs()
    assert (apart <= scales.double() * (0.5 + 1e-4)).all()
    unsigned, steps, least = quantise_states(given)
    apart = (unsigned * steps.double() + least - given.double()).abs()
    assert (apart <= steps.double() * (0.5 + 1e-2) + 1e-8).all()


def test_no_rows_and_rows_that_are_no_numbers() -> None:
    assert linear(torch.ones(3, 4), torch.zeros(3))(torch.zeros(0, 4)).shape == (0, 3)
    states = torch.ones(3, 4)
    states[0, 1], states[2, 1] = torch.nan, torch.inf
    finite = linear(torch.ones(3, 4), torch.zeros(3))(states).isfinite()
    assert finite.tolist() == [[False] * 3, [True] * 3, [False] * 3]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_near_float32(wide: Path, pooling: str) -> None:
    exact = Encoder.from_pretrained(wide, device="cpu", dtype="float32", pooling=pooling)
    near = Encoder.from_pretrained(wide, device="cpu", dtype="int8", pooling=pooling)
    assert near.dtype == torch.int8
    everything = {"return_sparse": True, "return_colbert_vecs": True}
    a, b = (e.encode_documents(TEXTS, **everything) for e in (exact, near))
    assert (a.dense_vecs * b.dense_vecs).sum(1).min() > 0.99
    assert b.colbert_vecs.vectors.dtype == np.float16
    assert (a.colbert_vecs.vectors * b.colbert_vecs.vectors).sum(1).min() > 0.99
    for ours, theirs in zip(a.lexical_weights, b.lexical_weights, strict=True):
        for token in ours.keys() | theirs.keys():
            assert ours.get(token, 0) == pytest.approx(theirs.get(token, 0), abs=0.1)


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=30), seed=st.integers(0, 99))
def test_neighbours_do_not_matter(wide: Path, lengths: list[int], seed: int) -> None:
    backbone, batch = load(wide), packed(sorted(lengths, reverse=True), seed)
    together, _ = backbone.forward(batch)
    assert together.dtype == torch.float32
    for i in (0, len(lengths) // 2, len(lengths) - 1):
        lone, _ = batch.take(np.array([i]))
        alone, _ = backbone.forward(lone)
        part = together[batch.offsets[i] : batch.offsets[i + 1]]
        # A value on the edge between two integers may fall to either side.
        cosine = torch.nn.functional.cosine_similarity(part, alone, dim=-1)
        assert cosine.min() > 0.999


@pytest.mark.parametrize("kind", ["cross-encoder", "bert"])
def test_rerankers(tmp_path: Path, kind: str) -> None:
    folder = tiny_reranker(tmp_path, kind=kind, hidden_size=256)
    pairs = [("what is a panda", make_text(number, 3 + number)) for number in range(40)]
    exact, near = (
        Reranker.from_pretrained(folder, device="cpu", dtype=dtype) for dtype in ("float32", "int8")
    )
    assert near.dtype == torch.int8
    a, b = exact.compute_score(pairs), near.compute_score(pairs)
    assert np.corrcoef(a, b)[0, 1] > 0.98


def test_fingerprints_differ(tiny_m3: Path) -> None:
    names = {
        dtype: shared_encoder(tiny_m3, device="cpu", dtype=dtype).fingerprint()
        for dtype in ("float32", "int8", "auto")
    }
    assert names["auto"] == names["float32"] != names["int8"]
    assert shared_encoder(tiny_m3, device="cpu", dtype="int8") is shared_encoder(
        tiny_m3, device="cpu", dtype=torch.int8
    )


def test_damaged_weights_are_found(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path)
    state = load_file(folder / "model.safetensors")
    state["encoder.layer.0.output.dense.weight"][3, 4] = torch.nan
    save_file(state, folder / "model.safetensors")
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype="int8")
    with pytest.raises(NonFiniteError):
        encoder.encode_documents(["a"])


@pytest.mark.parametrize("device", ["cuda:0", "mps", "meta"])
def test_only_on_cpus(device: str) -> None:
    with pytest.raises(DeviceError, match=r"'int8' was asked for on .*device='cpu'"):
        resolve_dtype("int8", torch.device(device))


def test_other_networks_are_refused(tmp_path: Path) -> None:
    for kind in ("llm", "layerwise", "lightweight"):
        folder = tiny_reranker(tmp_path / kind, kind=kind)
        with pytest.raises(UnsupportedModelError, match=r"'int8' was asked for .*dtype='auto'"):
            Reranker.from_pretrained(folder, device="cpu", dtype="int8")
    folder = tiny_checkpoint(tmp_path / "mish", kind="bge")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace("{", '{"hidden_act": "mish",', 1))
    with pytest.raises(UnsupportedModelError, match="'int8' was asked for"):
        Encoder.from_pretrained(folder, device="cpu", dtype="int8")


def test_loading_says_where_it_is_slow(tiny_m3: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "m3_core"):
        Encoder.from_pretrained(tiny_m3, device="cpu", dtype="int8")
    assert ("which has AMX" in caplog.text) == has_amx()


def test_other_processors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(DeviceError, match=r"'aarch64' .* x86 CPUs"):
        resolve_dtype("int8", CPU)


MEASURE = """
import resource, sys
import torch
from pathlib import Path
from m3_core.network.checkpoint import read_checkpoint
from m3_core.network.packed import PackedBackbone

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

PackedBackbone.load(read_checkpoint(Path(sys.argv[1]), "small"), torch.device("cpu"), torch.int8)
before = peak()
network = PackedBackbone.load(
    read_checkpoint(Path(sys.argv[2]), "large"), torch.device("cpu"), torch.int8
)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak as Linux gives it")
def test_loading_holds_no_second_copy(tiny_m3: Path, tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, hidden_size=1024, layers=4)
    stored = sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tiny_m3), str(folder)],
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    # Beside them only what is read at once.
    assert int(done.stdout) < 1.1 * stored + (32 << 20)
