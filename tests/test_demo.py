"""The demo, as ``make demo`` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parent.parent / "demo" / "demo.py"


def test_a_model_that_is_absent_ends_it_with_the_reason(tmp_path: Path) -> None:
    pytest.importorskip("langchain_core")
    pytest.importorskip("llama_index.core")
    found = subprocess.run(
        [sys.executable, DEMO],
        env={**os.environ, "M3_MODEL": str(tmp_path / "none")},
        capture_output=True,
        text=True,
    )
    assert (found.returncode, found.stdout) == (1, "")
    assert "there is no such folder" in found.stderr
    assert "named by M3_MODEL" in found.stderr
