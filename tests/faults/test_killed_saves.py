"""The short forms of ``killed_checkpoints`` and ``killed_indices``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.forking import HAS_FORK

HERE = Path(__file__).parent


@pytest.mark.skipif(not HAS_FORK, reason="no fork on this system")
@pytest.mark.parametrize(
    "asked",
    [
        ["killed_checkpoints.py", "--kills", "10"],
        ["killed_indices.py", "--kills", "6", "--nodes", "40"],
    ],
    ids=lambda asked: asked[0].removesuffix(".py"),
)
def test_whatever_is_killed_leaves_a_whole_state_and_nothing_else(asked: list[str]) -> None:
    # In a process of its own, without the threads of this one, which a fork would leave behind.
    command = [sys.executable, str(HERE / asked[0]), *asked[1:]]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
