"""The short forms of ``hostile_checkpoints`` and ``fuzz``."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest
from tests.faults import hostile_checkpoints
from tests.faults.fuzz import functions, fuzz
from tests.faults.hostile_checkpoints import CASES, damaged, is_right, make, outcome

NOT_ENDED = 600


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile_checkpoints, "PATIENCE", NOT_ENDED)


def test_crafted_checkpoints_load_or_are_refused(tmp_path: Path) -> None:
    assert len(CASES) > 50
    wrong = []
    for number, case in enumerate(CASES):
        folder = make(case.kind, tmp_path / str(number) / "m")
        case.change(folder)
        result = outcome(case.kind, folder)
        if not is_right(case, result):
            wrong.append(f"{case.name}: {result}")
    assert wrong == []


def test_checkpoints_with_damaged_small_files(tmp_path: Path) -> None:
    originals = {kind: make(kind, tmp_path / kind) for kind in ("m3", "bge")}
    found = [f"{done}: {result}" for _, done, result in damaged(originals, 60, seed=3)]
    assert [one for one in found if "RAW" in one] == []
    assert any("CheckpointError" in one for one in found)


def test_no_configuration_reaches_the_loader_of_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def load(*asked: object, **_: object) -> None:
        seen.append(asked)
        raise AssertionError(f"kernels were asked for: {asked}")

    monkeypatch.setattr("transformers.modeling_utils.lazy_import_flash_attention", load)
    monkeypatch.setattr("transformers.integrations.hub_kernels.get_kernel", load)
    cases = [case for case in CASES if "kernel" in case.name]
    assert len(cases) > 3
    for number, case in enumerate(cases):
        folder = make(case.kind, tmp_path / str(number) / "m")
        case.change(folder)
        assert is_right(case, outcome(case.kind, folder)), case.name
    assert seen == []


def test_odd_values_are_refused_by_what_they_are(tmp_path: Path) -> None:
    before = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            counts, examples = fuzz(functions(tmp_path), 3000, seed=7)
    finally:
        logging.disable(before)
    assert examples == {}
    assert counts["worked"] > 500
    assert counts["refused"] > 500
