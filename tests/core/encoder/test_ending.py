"""Exits, nested calls and closing in the middle of asynchronous work: nobody waits for ever."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from m3_core import Encoder, Reranker
from m3_core.encoder import CachedEncoder
from m3_core.errors import ClosedError
from m3_core.testing import tiny_reranker

# So many seconds would pass if each of the calls below were waited for.
QUEUED = """
import asyncio, sys, threading, time
from m3_core import Encoder

encoder = Encoder.from_pretrained({folder!r}, device="cpu", dtype="float32")
loaded = encoder.model
whole = {slow}
def slowly(*args, **options):
    time.sleep(1)
    return whole(*args, **options)
{slow} = slowly

def run():
    async def all_of_them():
        await asyncio.gather(*(encoder.aencode_documents([{text}]) for _ in range(200)))
    asyncio.run(all_of_them())

threads = [threading.Thread(target=run, daemon=True)]
threads += [
    threading.Thread(target=encoder.encode_documents, args=([{text}],), daemon=True)
    for _ in range(200)
]
for thread in threads:
    thread.start()
time.sleep(1.5)
"""


@pytest.mark.parametrize(
    ("slow", "text"),
    [
        ("loaded.network.compute", "'panda'"),
        # Longer texts are tokenised beside the event loop.
        ("loaded.tokenizer.encode", "'panda ' * 4_000"),
    ],
)
def test_the_interpreter_waits_for_no_queued_calls(tiny_m3: Path, slow: str, text: str) -> None:
    script = QUEUED.format(folder=str(tiny_m3), slow=slow, text=text)
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=90, check=False
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("text", ["panda", "panda " * 4_000])
def test_calls_from_threads_that_wait_for_their_own_loop(encoder: Encoder, text: str) -> None:
    """As many as the loop's pool has threads, each of which waits for the loop."""

    async def outer() -> list[int]:
        loop = asyncio.get_running_loop()

        def from_a_thread() -> int:
            asked = asyncio.run_coroutine_threadsafe(encoder.aencode_documents([text]), loop)
            return len(asked.result())

        return await asyncio.gather(*(asyncio.to_thread(from_a_thread) for _ in range(40)))

    assert ended(lambda: asyncio.run(outer())) == [1] * 40


def test_loops_within_loops(encoder: Encoder) -> None:
    async def nested(depth: int) -> int:
        reps = await encoder.aencode_queries([f"panda {depth}"])
        if not depth:
            return len(reps)
        return len(reps) + await asyncio.to_thread(lambda: asyncio.run(nested(depth - 1)))

    assert ended(lambda: asyncio.run(nested(16))) == 17


def test_after_closing_every_call_says_so(tiny_m3: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(tiny_m3, device="cpu", dtype="float32")
    cached = CachedEncoder(encoder, ("dense",))
    reranker = Reranker.from_pretrained(tiny_reranker(tmp_path), device="cpu", dtype="float32")
    encoder.close()
    reranker.close()
    for text in ("panda", "panda " * 4_000):
        for call in (
            lambda text=text: encoder.encode_documents([text]),
            lambda text=text: asyncio.run(encoder.aencode_documents([text])),
            lambda text=text: cached.documents([text]),
            lambda text=text: asyncio.run(cached.adocuments([text])),
            lambda text=text: reranker.compute_score([(text, text)]),
            lambda text=text: asyncio.run(reranker.acompute_score([(text, text)])),
        ):
            with pytest.raises(ClosedError, match="was closed: load it again"):
                call()


def test_closing_in_a_callback_of_the_loop(tiny_m3: Path) -> None:
    encoder = Encoder.from_pretrained(tiny_m3, device="cpu", dtype="float32")

    async def close_in_the_middle() -> list[object]:
        tasks = [
            asyncio.ensure_future(encoder.aencode_documents([f"panda {i}"] * (i + 1)))
            for i in range(50)
        ]
        tasks[0].add_done_callback(lambda _: encoder.close())
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = ended(lambda: asyncio.run(close_in_the_middle()))
    assert len(results[0]) == 1
    assert all(isinstance(one, ClosedError) or len(one) for one in results)


def ended(function: Callable[[], list | int]) -> list | int:
    """What a function gives; an error if it does not end."""
    results: list = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(120)
    assert results, "it did not end"
    return results[0]
