from __future__ import annotations

import threading
from pathlib import Path

import pytest

from m3_core import Encoder, shared_encoder


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
