from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import make_text
from tests.core.comparing import ALL, same

from m3_core import Encoder, Representations
from m3_core.errors import ClosedError


def test_stream_equals_one_call_and_reads_no_further_ahead(encoder: Encoder) -> None:
    texts = [make_text(i, i % 9) for i in range(50)]
    taken = 0

    def source() -> object:
        nonlocal taken
        for text in texts:
            taken += 1
            yield text

    stream = encoder.encode_stream(source(), batch_size=8, **ALL)
    parts = [next(stream)]
    assert taken <= 24
    parts += stream
    assert [len(part) for part in parts] == [8] * 6 + [2]
    assert same(Representations.concatenate(parts), encoder.encode_documents(texts, **ALL))
    assert list(encoder.encode_stream([])) == []


def test_stream_names_the_position_and_checks_its_options(encoder: Encoder) -> None:
    with pytest.raises(TypeError, match="text 11 is of type int"):
        list(encoder.encode_stream(["a"] * 11 + [7], batch_size=4))
    with pytest.raises(ValueError, match="at least 1"):
        encoder.encode_stream(["a"], batch_size=0)
    with pytest.raises(ValueError, match="role must be"):
        encoder.encode_stream(["a"], role="passage")
    for wrong in ("bamboo", {"id": "bamboo"}, None):
        with pytest.raises(TypeError, match="texts must be a list"):
            encoder.encode_stream(wrong)


async def test_async_forms_equal_the_blocking_ones_and_leave_the_loop_free(
    encoder: Encoder,
) -> None:
    texts = [make_text(i, 60) for i in range(40)]
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    results = await asyncio.gather(*(encoder.aencode_documents(texts, **ALL) for _ in range(4)))
    query = await encoder.aencode_queries(texts[:1])
    ticking.cancel()
    expected = encoder.encode_documents(texts, **ALL)
    assert all(same(result, expected) for result in results)
    np.testing.assert_allclose(query.dense_vecs, expected.dense_vecs[:1], atol=1e-6)
    assert ticks > 10


def test_progress_bar_only_when_asked(encoder: Encoder, capsys: pytest.CaptureFixture) -> None:
    encoder.encode_documents(["a", "b"])
    assert capsys.readouterr() == ("", "")
    encoder.encode_documents(["a", "b"], show_progress=True)
    assert "2/2" in capsys.readouterr().err


def test_close_and_context(tiny_m3: Path) -> None:
    with Encoder.from_pretrained(tiny_m3) as encoder:
        other = encoder.with_options(max_length=64)
        encoder.encode_documents(["a"])
    encoder.close()
    assert other.closed
    assert repr(encoder).endswith("closed)")
    with pytest.raises(ClosedError, match="load it again"):
        other.encode_documents(["a"])
