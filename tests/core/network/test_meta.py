"""Networks on torch's ``meta`` device, which computes shapes and refuses to tell a value.

What a forward does there is what it does on CUDA: a tensor on the wrong device, or a value that the
host waits for, fails; what is copied and how large it is can be written down.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from m3_core.encoder.pipeline import Pipeline, Request, load_pipeline
from m3_core.flagembedding.decoder_model import DecoderProgram, load_decoder
from m3_core.network import packed as packed_network
from m3_core.network import transformers_network
from m3_core.network.batches import PackedBatch
from m3_core.network.checkpoint import read_checkpoint
from m3_core.network.source import Source
from m3_core.network.tokens import Tokenizer
from m3_core.rerankers import decoder
from m3_core.rerankers.loading import RerankerProgram, load_reranker
from m3_core.rerankers.network import RerankerOptions
from m3_core.testing import tiny_reranker

META = torch.device("meta")
LENGTHS = np.array([40, 17, 17, 9, *[3] * 60])
TYPES = [torch.float16, torch.float32]
# Of these the values decide what the host does next.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique")


class Watch(TorchDispatchMode):
    """Writes down what goes to the device, and what is made there."""

    def __init__(self) -> None:
        super().__init__()
        self.copied: list[tuple[torch.dtype, int]] = []
        self.made: list[torch.Size] = []
        self.called: set[str] = set()

    def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = function._schema.name.partition("::")[2]
        self.called.add(name)
        assert not name.startswith(WAITING), f"{name} waits for the device"
        if name.startswith("segment_reduce"):
            assert kwargs.get("unsafe"), "segment_reduce waits for the device to check the lengths"
        if name == "index":
            assert all(i is None or i.dtype == torch.int64 for i in args[1]), "a mask as an index"
        result = function(*args, **kwargs)
        given = [t for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor)]
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if not isinstance(tensor, torch.Tensor):
                continue
            if tensor.device != META:
                assert all(one.device != META for one in given), f"{name} copies to the host"
                continue
            if not (function.is_view or any(tensor is one for one in given)):
                self.made.append(tensor.shape)
            # A number of no dimensions goes along with the call of a kernel.
            self.copied += [(t.dtype, t.numel()) for t in given if t.device != META and t.dim()]
        return result


def packed(vocabulary: int, *, pairs: bool = False) -> PackedBatch:
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int64)
    ids = rng.integers(5, vocabulary, offsets[-1]).astype(np.int32)
    bounds = np.stack([np.ones_like(LENGTHS), LENGTHS - 1], axis=1)
    return PackedBatch(ids, offsets, bounds if pairs else None)


def on_meta(
    folder: Path, build: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, int]:
    """A checkpoint's network as it is on CUDA, and the size of its vocabulary."""
    kernel = None
    if dtype == torch.float16:
        varlen = pytest.importorskip("torch.nn.attention.varlen", exc_type=ImportError)
        kernel = varlen.varlen_attn
    for module in (packed_network, transformers_network, decoder):
        monkeypatch.setattr(module, "varlen_kernel", lambda *_: kernel)
    checkpoint = read_checkpoint(folder, str(folder))
    tokenizer = Tokenizer.from_folder(folder)
    program = build(checkpoint, tokenizer, META, dtype, Source(name=str(folder)))
    return program, int(checkpoint.config["vocab_size"])


def check(watch: Watch, batch: PackedBatch, program: Any, vocabulary: int, widest: int) -> None:
    network = program.network if isinstance(program, RerankerProgram) else program
    # Decoders pass over the kernel of releases where it knows no windows.
    usable = getattr(network, "varlen", True) is not None
    assert ("_varlen_attn" in watch.called) == (usable and program.dtype == torch.float16)
    assert {kind for kind, _ in watch.copied} == {torch.int64}
    texts, tokens = len(batch.lengths), len(batch.ids)
    assert all(vocabulary not in shape for shape in watch.made)
    largest = max(shape.numel() for shape in watch.made)
    assert largest <= tokens * widest < texts * vocabulary


def asked(*, pooling: str = "cls", every: int | None = None, **parts: bool) -> Request:
    wanted = {"dense": False, "sparse": False, "colbert": False, **parts}
    return Request(**wanted, pooling=pooling, marker_every=every)


@pytest.mark.parametrize("dtype", TYPES)
def test_an_encoder_on_a_device(
    tiny_m3: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, vocabulary = on_meta(tiny_m3, load_pipeline, dtype, monkeypatch)
    assert isinstance(pipeline, Pipeline)
    batch = packed(vocabulary)
    texts, tokens = len(LENGTHS), len(batch.ids)
    every, some, one = np.arange(texts), np.arange(0, texts, 3), np.array([1])
    tasks = [
        (asked(dense=True, sparse=True, colbert=True), every),
        (asked(dense=True), some),
        (asked(dense=True, pooling="mean"), some),
        (asked(dense=True, pooling="last"), one),
        (asked(dense=True, colbert=True, every=8), np.array([0, 2])),
        (asked(sparse=True), some),
        (asked(colbert=True), one),
    ]
    with torch.inference_mode(), Watch() as watch:
        results = pipeline.compute(batch, tasks)
    for (task, rows), result in zip(tasks, results, strict=True):
        dense, sparse, colbert = (result.get(key) for key in ("dense", "sparse", "colbert"))
        assert [dense is not None, sparse is not None, colbert is not None] == [
            task.dense,
            task.sparse,
            task.colbert,
        ]
        if dense is not None:
            assert (dense.shape, dense.dtype) == ((len(rows), pipeline.hidden_size), torch.float32)
            assert result["dense_finite"].shape == (len(rows),)
        if sparse is not None:
            assert (sparse.shape, sparse.dtype) == (result["sparse_keys"].shape, torch.float32)
            assert result["sparse_finite"].shape == (LENGTHS[rows].sum(),)
        if colbert is not None:
            markers = len(rows) if task.marker_every is None else len(range(0, 39, 8)) + 2
            shape = (LENGTHS[rows].sum() - markers, pipeline.colbert_dimension)
            assert (colbert.shape, colbert.dtype) == (shape, dtype)
        assert all(v.device == META for v in result.values() if isinstance(v, torch.Tensor))
    # Ids, offsets, positions; and of each task which tokens and rows it is about, twice at most.
    assert [size for _, size in watch.copied[:3]] == [texts + 1, tokens, tokens]
    assert len(watch.copied) <= 3 + 3 + sum(
        2 + 2 * t.sparse + t.colbert + 2 * (t.marker_every is not None) for t, _ in tasks[1:]
    )
    assert max(size for _, size in watch.copied) == tokens
    # Queries, keys and values come from one product.
    check(watch, batch, pipeline, vocabulary, 3 * pipeline.hidden_size)


OPTIONS = {
    "cross-encoder": [RerankerOptions()],
    "bert": [RerankerOptions()],
    "llm": [RerankerOptions()],
    "layerwise": [RerankerOptions(), RerankerOptions(cutoff_layers=(3, 2))],
    "lightweight": [
        RerankerOptions(),
        RerankerOptions(cutoff_layers=(2, 4), compress_layers=(1, 3), compress_ratio=2),
    ],
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", OPTIONS)
def test_a_reranker_on_a_device(
    tmp_path: Path, kind: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_reranker(tmp_path, kind=kind)
    program, vocabulary = on_meta(folder, load_reranker, dtype, monkeypatch)
    assert isinstance(program, RerankerProgram)
    batch = packed(vocabulary, pairs=True)
    for options in OPTIONS[kind]:
        with torch.inference_mode(), Watch() as watch:
            (result,) = program.compute(batch, [(options, np.arange(len(LENGTHS)))])
        scores = result["scores"]
        assert scores.shape == (len(LENGTHS), len(options.cutoff_layers or (0,)))
        assert (scores.dtype, scores.device) == (torch.float32, META)
        # Of each of two mergings: lengths, offsets, positions.
        merged = 6 if options.compress_ratio > 1 else 0
        assert len(watch.copied) <= (4 if kind == "bert" else 3) + merged
        check(watch, batch, program, vocabulary, 3 * 32)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_decoder_that_embeds_on_a_device(
    tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_reranker(tmp_path, kind="llm")
    program, vocabulary = on_meta(folder, load_decoder, dtype, monkeypatch)
    assert isinstance(program, DecoderProgram)
    batch = packed(vocabulary)
    tasks = [((True, None), np.arange(0, len(LENGTHS), 2)), ((False, 8), np.array([1]))]
    with torch.inference_mode(), Watch() as watch:
        whole, cut = (result["dense"] for result in program.compute(batch, tasks))
    assert (whole.shape, whole.device, whole.dtype) == ((32, 32), META, torch.float32)
    assert cut.shape == (1, 8)
    assert len(watch.copied) == 3 + 2
    check(watch, batch, program, vocabulary, 2 * 32)


def test_what_waits_for_the_device_is_found() -> None:
    numbers = torch.ones(3, device=META)
    lengths = torch.ones(3, dtype=torch.int64, device=META)
    with Watch():
        with pytest.raises(AssertionError, match="waits for the device"):
            torch.segment_reduce(numbers, "mean", lengths=lengths)
        for waiting in (numbers.sum().item, numbers.cpu, numbers.nonzero):
            with pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
                waiting()
