"""Queries asked at once, against one by one and beside a bulk job, in one process, in turn.

    python benchmarks/concurrency.py --model FOLDER [--dtype bfloat16] [--device cuda] [--rounds 3]

Questions: what 256 queries at once gain over one by one, as coroutines and from 64 threads; what a
lone query pays over the network called directly; how long queries wait beside a bulk job, and how
much longer that takes. sentence-transformers and m3serve do the same where they are installed.
Figures are medians of the rounds, as ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from shapes import sample_texts

from m3_core import Encoder
from m3_core.network import PackedBatch
from m3_core.network.processor import processor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

THREADS = 64


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def from_threads(call: Callable[[str], object], queries: list[str]) -> None:
    def part(number: int) -> None:
        for query in queries[number::THREADS]:
            call(query)

    threads = [threading.Thread(target=part, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def at_once(call: Callable[[str], Awaitable[object]], queries: list[str]) -> None:
    async def together() -> None:
        await asyncio.gather(*(call(query) for query in queries))

    asyncio.run(together())


def one_by_one(call: Callable[[str], object], queries: list[str]) -> None:
    for query in queries:
        call(query)


def direct(encoder: Encoder) -> Callable[[str], object]:
    """The network and its heads called by the caller itself."""
    network: Any = encoder.model.network
    request = encoder.request(("dense",))

    def call(query: str) -> object:
        work = encoder._work("query", [query], request, None)
        batch = PackedBatch(work.tokens.ids, work.tokens.offsets)
        with torch.inference_mode():
            (results,) = network.compute(batch, [(request, np.arange(1))])
        arrays = {
            key: value.cpu().numpy() if isinstance(value, torch.Tensor) else value
            for key, value in results.items()
        }
        work.collector.add(arrays, np.arange(1), np.arange(1))
        return work.collector.result()  # type: ignore[attr-defined]

    return call


def concurrency(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, taking turns after a warm-up."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            spent = seconds(call)
            if number:
                taken[name].append(spent)
    return {name: statistics.median(values) for name, values in taken.items()}


def lone(encoder: Encoder, queries: list[str], rounds: int) -> tuple[float, float]:
    """Median over pairs of one query's time by the engine over the direct one, and that time."""
    plain, ratios, times = direct(encoder), [], []

    def by_itself_in_its_place(query: str) -> float:
        # Where the engine computes too: torch's helpers of a second thread would slow down both.
        return processor.run(lambda: seconds(partial(plain, query)), torch.get_num_threads())

    def through_the_engine(query: str) -> float:
        return seconds(lambda: encoder.encode_queries([query]))

    for number in range(rounds):
        for query in queries:
            engine_first = bool(number % 2)
            calls = [by_itself_in_its_place, through_the_engine]
            spent = [call(query) for call in calls[:: 1 - 2 * engine_first]]
            by_engine, by_itself = spent if engine_first else reversed(spent)
            ratios.append(by_engine / by_itself)
            times.append(by_engine)
    return statistics.median(ratios), statistics.median(times)


def beside_bulk(
    encoder: Encoder, documents: list[str], queries: list[str], each: float
) -> dict[str, float]:
    alone = seconds(lambda: encoder.encode_documents(documents))
    finished, waits = threading.Event(), []
    spent: list[float] = []

    def bulk() -> None:
        spent.append(seconds(lambda: encoder.encode_documents(documents)))
        finished.set()

    thread = threading.Thread(target=bulk)
    thread.start()
    time.sleep(0.05)
    while not finished.is_set():
        query = queries[len(waits) % len(queries)]
        waits.append(seconds(lambda query=query: encoder.encode_queries([query])))
        finished.wait(0.05)
    thread.join()
    own = len(waits) * each
    return {
        "queries": len(waits),
        "median ms": statistics.median(waits) * 1e3,
        "p95 ms": float(np.percentile(waits, 95)) * 1e3,
        "bulk alone s": alone,
        "bulk beside queries / (alone + their own work)": spent[0] / (alone + own),
    }


def peers(folder: str, device: str, dtype: str) -> dict[str, Any]:
    """One query's call of each peer that is installed; coroutines for m3serve."""
    found: dict[str, Any] = {}
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        pass
    else:
        model = SentenceTransformer(
            folder, device=device, model_kwargs={"torch_dtype": getattr(torch, dtype)}
        )
        found["sentence-transformers"] = lambda q: model.encode([q], show_progress_bar=False)
    try:
        from m3serve import Engine
    except ImportError:
        pass
    else:
        found["m3serve"] = Engine(model_name=folder, device=device, max_length=512)
    return found


async def m3serve_times(engine: Any, queries: list[str]) -> tuple[float, float]:
    await engine.start()
    await asyncio.gather(*(engine.embed([query]) for query in queries[:20]))
    start = time.perf_counter()
    for query in queries:
        await engine.embed([query])
    between = time.perf_counter()
    await asyncio.gather(*(engine.embed([query]) for query in queries))
    end = time.perf_counter()
    await engine.stop()
    return between - start, end - between


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--documents", type=int, default=600)
    parser.add_argument("--xquad", help="folder of XQuAD; without it texts are made up")
    arguments = parser.parse_args()
    queries, documents = texts(
        arguments.model, arguments.xquad, arguments.queries, arguments.documents
    )
    encoder = Encoder.from_pretrained(
        arguments.model, device=arguments.device, dtype=arguments.dtype, max_length=512
    )
    ask = lambda query: encoder.encode_queries([query])  # noqa: E731
    aask = lambda query: encoder.aencode_queries([query])  # noqa: E731
    one_by_one(ask, queries[:20])
    calls: dict[str, Callable[[], object]] = {
        "one by one": lambda: one_by_one(ask, queries),
        "at once": lambda: at_once(aask, queries),
        f"from {THREADS} threads": lambda: from_threads(ask, queries),
        "in one call": lambda: encoder.encode_queries(queries),
    }
    try:
        from langchain_m3 import M3Embeddings
    except ImportError:
        pass
    else:
        embeddings = M3Embeddings(encoder=encoder, reuse_encodings=False)
        calls["aembed_query at once"] = lambda: at_once(embeddings.aembed_query, queries)
    others = peers(arguments.model, arguments.device, arguments.dtype)
    serving = others.pop("m3serve", None)
    for name, call in others.items():
        calls[f"{name}, one by one"] = lambda call=call: one_by_one(call, queries)
        calls[f"{name}, from {THREADS} threads"] = lambda call=call: from_threads(call, queries)
    print(f"{arguments.dtype} on {arguments.device}, load {os.getloadavg()[0]:.1f}")
    measured = concurrency(calls, arguments.rounds)
    base = measured["one by one"]
    for name, spent in measured.items():
        print(f"  {name:45} {base / spent:6.2f} x")
    if serving is not None:
        single, together = asyncio.run(m3serve_times(serving, queries))
        print(f"  {'m3serve (float32), one by one':45} {base / single:6.2f} x")
        print(f"  {'m3serve (float32), at once':45} {base / together:6.2f} x")
    ratio, each = lone(encoder, queries[:64], max(arguments.rounds, 2))
    print(f"  a lone query takes {ratio:.3f} of the direct time ({each * 1e3:.1f} ms)")
    for name, value in beside_bulk(encoder, documents, queries, base / len(queries)).items():
        print(f"  {name:45} {value:8.2f}")
    print(f"  {encoder.stats()}, load {os.getloadavg()[0]:.1f}")


def texts(
    model: str, folder: str | None, queries: int, documents: int
) -> tuple[list[str], list[str]]:
    if folder is None:
        short = sample_texts(Path(model), 12, 0.3, queries, 0)
        return short, sample_texts(Path(model), 160, 0.5, documents, 1)
    contexts: list[str] = []
    asked: list[str] = []
    for language in ("en", "de", "zh"):
        path = Path(folder) / f"xquad.{language}.json"
        data = json.loads(path.read_text(encoding="utf-8"))["data"]
        paragraphs = [paragraph for article in data for paragraph in article["paragraphs"]]
        contexts += [paragraph["context"] for paragraph in paragraphs]
        asked += [each["question"] for paragraph in paragraphs for each in paragraph["qas"]]
    return asked[:queries], contexts[:documents]


if __name__ == "__main__":
    main()
