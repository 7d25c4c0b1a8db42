"""Every way in which a checkpoint can be unusable, and the files that it may lie in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.core.comparing import ALL, same

from m3_core import Encoder
from m3_core.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    DeviceError,
    MissingHeadError,
    UnsupportedModelError,
)
from m3_core.network.checkpoint import locate, read_checkpoint
from m3_core.network.device import cpu_multiplies, resolve_device, resolve_dtype
from m3_core.testing import tiny_checkpoint


@pytest.fixture
def folder(tiny_m3: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_m3, tmp_path / "copy"))


def edit(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | changes), encoding="utf-8")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_layer(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if "layer.1" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def foreign_head(folder: Path) -> None:
    torch.save({"weight": torch.zeros(1, 7), "bias": torch.zeros(1)}, folder / "sparse_linear.pt")


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (lambda f: (f / "sparse_linear.pt").unlink(), MissingHeadError, "lacks sparse_linear.pt"),
        (lambda f: (f / "colbert_linear.pt").unlink(), MissingHeadError, "lacks colbert_linear"),
        (foreign_head, CorruptCheckpointError, "belongs to another model"),
        (lambda f: cut(f / "sparse_linear.pt"), CorruptCheckpointError, "copy it again"),
        (lambda f: cut(f / "model.safetensors"), CorruptCheckpointError, "cannot be loaded"),
        (lambda f: (f / "model.safetensors").unlink(), CorruptCheckpointError, "cannot be loaded"),
        (drop_layer, CorruptCheckpointError, r"lack 16 tensors of the network"),
        (lambda f: cut(f / "tokenizer.json"), CorruptCheckpointError, "cannot be read"),
        (lambda f: cut(f / "config.json"), CorruptCheckpointError, "not readable as JSON"),
        (lambda f: (f / "config.json").unlink(), CorruptCheckpointError, "no config.json"),
        (lambda f: edit(f / "config.json", model_type="gpt2"), UnsupportedModelError, "'gpt2'"),
        (
            lambda f: edit(f / "1_Pooling/config.json", pooling_mode_mean_tokens=True),
            CorruptCheckpointError,
            "one of them",
        ),
        (
            lambda f: edit(f / "1_Pooling/config.json", pooling_mode_max_tokens=True),
            CorruptCheckpointError,
            "pooling_mode_max_tokens",
        ),
    ],
)
def test_damage_is_named(
    folder: Path, damage: Callable[[Path], object], error: type[Exception], words: str
) -> None:
    damage(folder)
    with pytest.raises(error, match=words):
        Encoder.from_pretrained(folder, device="cpu")


def test_a_model_known_to_have_heads_must_have_them(tmp_path: Path) -> None:
    copy = tiny_checkpoint(tmp_path / "bge-m3", kind="dense")
    with pytest.raises(MissingHeadError, match=r"sparse_linear\.pt and colbert_linear\.pt"):
        Encoder.from_pretrained(copy)
    other = tiny_checkpoint(tmp_path / "bge-m3-unsupervised", kind="dense")
    assert Encoder.from_pretrained(other).representations == {"dense"}


def test_a_reranker_is_no_encoder(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "bge-reranker-base", kind="dense")
    with pytest.raises(UnsupportedModelError, match="is a reranker"):
        Encoder.from_pretrained(folder)


def weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    pipeline = encoder.model.network
    heads = {"sparse": pipeline._sparse_head, "colbert": pipeline._colbert_head}
    backbone = pipeline.backbone
    layers = {
        f"{number}.{name}.{part}": getattr(linear, part)
        for number, layer in enumerate(backbone.layers)
        for name in ("qkv", "attention_output", "attention_norm", "up", "down", "output_norm")
        for linear in [getattr(layer, name)]
        for part in ("weight", "bias")
    }
    tables = {name: getattr(backbone, name).weight for name in ("words", "positions")}
    tables["segments"] = backbone.segments
    return (
        layers
        | tables
        | {
            f"{name}.{part}": getattr(head, part)
            for name, head in heads.items()
            for part in ("weight", "bias")
        }
    )


def test_heads_and_weights_in_the_other_formats(folder: Path) -> None:
    before = Encoder.from_pretrained(folder, device="cpu", dtype="float32")
    for name in ("sparse_linear", "colbert_linear"):
        head = torch.load(folder / f"{name}.pt", weights_only=True)
        save_file(head, folder / f"{name}.safetensors")
        (folder / f"{name}.pt").unlink()
    state = load_file(folder / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    after = Encoder.from_pretrained(folder, device="cpu", dtype="float32")
    # The files' numbers are the same bit by bit; what two networks compute from them need not be,
    # because kernels depend on where in memory the weights lie.
    theirs, ours = (weights(encoder) for encoder in (before, after))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        # Some lie in an order of oneDNN's own.
        one, other = (each.to_dense() if each.is_mkldnn else each for each in (ours[name], tensor))
        assert torch.equal(one, other), name
    one, other = (encoder.encode_documents(["panda"], **ALL) for encoder in (before, after))
    assert same(one, other)


def test_pickled_code_in_a_head_is_not_run(folder: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "was-run",)

    torch.save({"weight": Evil(), "bias": Evil()}, folder / "sparse_linear.pt")
    with pytest.raises(CorruptCheckpointError):
        Encoder.from_pretrained(folder)
    assert not (tmp_path / "was-run").exists()


def test_lengths_come_from_the_shortest_limit(folder: Path) -> None:
    assert read_checkpoint(folder, "x").positions == 8192
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 600}')
    assert read_checkpoint(folder, "x").default_length == 600
    encoder = Encoder.from_pretrained(folder, max_length=8192)
    assert encoder.max_length == 8192
    with pytest.raises(ValueError, match="from 3 to 8192"):
        Encoder.from_pretrained(folder, max_length=8193)


def test_what_cannot_be_found_says_where_it_was_sought(tmp_path: Path) -> None:
    for path in ("./nothing", tmp_path / "nothing", "a/b/c"):
        with pytest.raises(CheckpointNotFoundError, match="no such folder"):
            locate(path)
    with pytest.raises(CheckpointNotFoundError, match="local cache"):
        locate("BAAI/no-such-model", local_files_only=True, cache_folder=tmp_path)
    with pytest.raises(CheckpointNotFoundError, match="revision 'v9'"):
        locate("BAAI/bge-m3", local_files_only=True, cache_folder=tmp_path, revision="v9")


def test_an_unreachable_hub_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointNotFoundError, match="could not be had from the hub"):
        locate("BAAI/bge-m3", cache_folder=tmp_path)


def test_a_cuda_device_has_its_number_or_an_error_says_why(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    # Which one is current is another one in the engine's thread.
    for asked in (None, "cuda", torch.device("cuda")):
        assert resolve_device(asked) == torch.device("cuda", 2)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)

    def forked() -> int:
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess.")

    monkeypatch.setattr(torch.cuda, "current_device", forked)
    for asked in (None, "cuda", "cuda:1"):
        with pytest.raises(DeviceError, match=r"forked subprocess.*'spawn'"):
            resolve_device(asked)


def test_devices_and_types(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert resolve_device("cpu") == cpu
    assert resolve_dtype("float32", torch.device("cpu:0")) == torch.float32
    assert resolve_dtype("auto", torch.device("cuda")) == torch.float16
    assert resolve_dtype(torch.bfloat16, torch.device("cuda")) == torch.bfloat16
    with pytest.raises(ValueError, match="none that torch knows"):
        resolve_device("gpu-of-dreams")
    with pytest.raises(DeviceError, match="CUDA devices"):
        resolve_device("cuda:99")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    with pytest.raises(DeviceError, match=r"'int8' .*dtype='auto'"):
        resolve_dtype("int8", cpu)
    for bad in ("int4", torch.int16):
        with pytest.raises(ValueError, match="is not one of 'auto'"):
            resolve_dtype(bad, cpu)


@pytest.mark.parametrize("able", [True, False])
def test_half_precision_only_where_the_cpu_has_it(
    monkeypatch: pytest.MonkeyPatch, able: bool
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr("m3_core.network.device._cpu_capabilities", lambda: {"amx_bf16": able})
    cpu = torch.device("cpu", 0)
    if able:
        assert resolve_dtype("auto", cpu) == torch.bfloat16
        assert resolve_dtype("bf16", cpu) == torch.bfloat16
    else:
        assert resolve_dtype("auto", cpu) == torch.float32
        with pytest.raises(DeviceError, match="without instructions"):
            resolve_dtype("bfloat16", cpu)
    with pytest.raises(DeviceError, match="without instructions"):
        resolve_dtype("float16", cpu)


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_half_precision_only_where_onednn_may_use_it(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(variable, raising=False)
    both = {"avx512_bf16": True, "avx512_fp16": True, "amx_tile": True}
    monkeypatch.setattr("m3_core.network.device._cpu_capabilities", lambda: both)
    cpu = torch.device("cpu")
    for limit, bf16, fp16 in (
        ("AVX2", False, False),
        ("avx512_core", False, False),
        ("AVX512_CORE_VNNI", False, False),
        ("AVX512_CORE_BF16", True, False),
        ("AVX512_CORE_AMX", True, True),
        ("DEFAULT", True, True),
    ):
        monkeypatch.setenv(name, limit)
        assert resolve_dtype("auto", cpu) == (torch.bfloat16 if bf16 else torch.float32), limit
        assert cpu_multiplies(torch.float16) == fp16, limit


def test_the_default_type_is_one_that_this_cpu_multiplies() -> None:
    # torch itself tells what oneDNN may do in this process, limits included; its answer for
    # AVX-512 without bf16 instructions is yes, because oneDNN emulates the type there.
    chosen = resolve_dtype("auto", torch.device("cpu"))
    assert chosen == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
