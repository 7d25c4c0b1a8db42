"""The short form of ``mixed_load``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="no pthread_kill on this system")
def test_everything_at_once_leaves_nothing_lost_mixed_wrong_or_raw() -> None:
    # In a process of its own, whose main thread can be interrupted.
    script = Path(__file__).with_name("mixed_load.py")
    command = [sys.executable, str(script), "--minutes", "0.05"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
