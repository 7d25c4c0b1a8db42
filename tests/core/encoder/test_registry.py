from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from m3_core import Encoder, shared_encoder
from m3_core.encoder.pipeline import load_pipeline
from m3_core.network import Source
from m3_core.network.loaded import shared_model


def test_shared_encoder_loads_once(tiny_m3: Path) -> None:
    found: list[Encoder] = []
    threads = [
        threading.Thread(target=lambda: found.append(shared_encoder(tiny_m3))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(encoder) for encoder in found}) == 1
    other = shared_encoder(str(tiny_m3), query_instruction="q: ")
    assert other is not found[0]
    assert other.model is found[0].model
    # Found by what device and type come out as, however they were said.
    resolved = str(other.dtype).removeprefix("torch.")
    assert shared_encoder(tiny_m3, dtype=resolved, device=str(other.device)).model is other.model
    found[0].close()
    assert not shared_encoder(tiny_m3).closed
    with pytest.raises(TypeError):
        shared_encoder(tiny_m3, no_such_option=1)


def test_a_relative_folder_is_the_one_of_now(
    tiny_m3: Path, tiny_dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for here, target in (("a", tiny_m3), ("b", tiny_dense)):
        (tmp_path / here).mkdir()
        (tmp_path / here / "model").symlink_to(target, target_is_directory=True)
    parts = []
    for here in ("a", "b", "a"):
        monkeypatch.chdir(tmp_path / here)
        parts.append(shared_encoder("model").representations)
    assert parts == [{"dense", "sparse", "colbert"}, {"dense"}, {"dense", "sparse", "colbert"}]


def test_weights_are_shared_by_all_that_says_how_a_model_runs(tiny_m3: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Extended(Source):
        runtime: str = "torch"

    def load(runtime: str, **options: object) -> object:
        source = Extended(name=tiny_m3, device="cpu", dtype="float32", runtime=runtime, **options)
        return shared_model(source, load_pipeline)

    assert load("a") is load("a", local_files_only=True)
    assert load("a") is not load("b")
