"""LexicalIndex against scipy's sparse products and bm25s: search time and bytes a posting.

Synthetic documents: tokens drawn with Zipf's law (exponent 1) from a vocabulary of 250,002 until
each document holds 100 different ones; weights between 0 and 0.3, independent of the token, which
is the hard case: real frequent tokens weigh little. Queries: 12 different tokens drawn the same
way. All engines hold the same postings in one process and are asked the same queries in turn.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/lexical_index.py --bm25s

``--bm25s`` needs ``pip install bm25s``; the rest nothing beyond the package.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csc_array, csr_array

from m3_core import LexicalIndex, LexicalWeights

if TYPE_CHECKING:
    from collections.abc import Callable

    import bm25s
    from numpy.typing import NDArray

VOCABULARY = 250_002


def zipf_rows(
    num_texts: int, length: int, random: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Different tokens of each text, ascending, and weights. Shapes: (texts, length)."""
    num_draws = 2 * length
    parts = []
    while sum(map(len, parts)) < num_texts:
        # Inverse of the distribution function ln(rank + 1) / ln(vocabulary + 1).
        draws = np.exp(random.random((5_000, num_draws)) * np.log(VOCABULARY + 1)).astype(np.int32)
        keys = (draws - 1 << 8) | np.arange(num_draws, dtype=np.int32)
        keys.sort(axis=1)
        tokens, turns = keys >> 8, keys & 255
        turns[:, 1:][tokens[:, 1:] == tokens[:, :-1]] = 255
        # The first `length` different draws of each text; the few texts with fewer are drawn anew.
        last = np.partition(turns, length - 1, axis=1)[:, length - 1]
        full = last < 255
        tokens, turns, last = tokens[full], turns[full], last[full]
        parts.append(tokens[turns <= last[:, None]].reshape(-1, length))
    tokens = np.concatenate(parts)[:num_texts]
    weights = 0.3 * random.random(tokens.shape, np.float32) + np.float32(1e-4)
    return tokens, weights


def build(
    tokens: NDArray[np.int32], weights: NDArray[np.float32], chunk: int
) -> tuple[LexicalIndex, float]:
    """Add documents in chunks; gives the index and the seconds that adding took."""
    index = LexicalIndex()
    begin = time.perf_counter()
    for start in range(0, len(tokens), chunk):
        some = tokens[start : start + chunk]
        offsets = np.arange(len(some) + 1, dtype=np.int64) * some.shape[1]
        texts = LexicalWeights(some.ravel(), weights[start : start + chunk].ravel(), offsets)
        index.add([str(number) for number in range(start, start + len(some))], texts)
    return index, time.perf_counter() - begin


def top(scores: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
    """The k best by partition, as one would with scipy."""
    best = np.argpartition(scores, -k)[-k:]
    best = best[np.argsort(-scores[best], kind="stable")]
    return [(str(row), float(scores[row])) for row in best]


def by_columns(
    matrix: csc_array, tokens: NDArray[np.int32], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scipy's best case: only the query's columns, put together from slices."""
    parts = [slice(matrix.indptr[token], matrix.indptr[token + 1]) for token in tokens]
    offsets = np.cumsum([0] + [part.stop - part.start for part in parts])
    small = csc_array(
        (
            np.concatenate([matrix.data[part] for part in parts]),
            np.concatenate([matrix.indices[part] for part in parts]),
            offsets.astype(np.int32),
        ),
        shape=(matrix.shape[0], len(tokens)),
    )
    return small @ weights


def measure(
    searches: dict[str, Callable[[int], object]], num_queries: int
) -> dict[str, dict[str, float]]:
    """Milliseconds of each engine, asked in turn, by the clock and of the processor.

    The processor's time is what a busy machine cannot blur.
    """
    clocks = {"": time.perf_counter, "cpu_": time.thread_time}
    times: dict[str, list[list[float]]] = {name: [] for name in searches}
    for query in range(num_queries):
        for name, search in searches.items():
            begin = [clock() for clock in clocks.values()]
            search(query)
            end = [clock() for clock in clocks.values()]
            times[name].append([1000 * (b - a) for a, b in zip(begin, end, strict=True)])
    results: dict[str, dict[str, float]] = {}
    for name, rows in times.items():
        median, high = np.median(rows, axis=0), np.percentile(rows, 95, axis=0)
        results[name] = {
            f"{prefix}{what}_ms": round(float(values[place]), 3)
            for place, prefix in enumerate(clocks)
            for what, values in (("median", median), ("p95", high))
        }
    return results


def bm25s_engine(matrix: csc_array) -> bm25s.BM25:
    """bm25s' retrieval over our postings: its own index is a CSC matrix of scores too."""
    from bm25s import BM25

    engine = BM25(backend="numpy")
    engine.scores = {
        "data": matrix.data,
        "indices": matrix.indices,
        "indptr": matrix.indptr,
        "num_docs": matrix.shape[0],
    }
    engine.nonoccurrence_array = None
    return engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--length", type=int, default=100, help="weights a document")
    parser.add_argument("--chunk", type=int, default=50_000, help="documents a call of add")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--query-length", type=int, default=12)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--bm25s", action="store_true")
    options = parser.parse_args()

    random = np.random.default_rng(0)
    parts = [
        zipf_rows(4_900, options.length, random) for _ in range(-(-options.documents // 4_900))
    ]
    tokens, weights = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    del parts
    tokens, weights = tokens[: options.documents], weights[: options.documents]
    index, seconds = build(tokens, weights, options.chunk)
    results: dict[str, Any] = {"documents": len(index), "add_seconds": round(seconds, 1)}
    results["bytes_per_posting"] = round(index.nbytes / tokens.size, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        for name, action in (
            ("save_seconds", lambda: index.save(path)),
            ("load_seconds", lambda: LexicalIndex.load(path)),
        ):
            begin = time.perf_counter()
            action()
            results[name] = round(time.perf_counter() - begin, 2)

    offsets = np.arange(len(tokens) + 1, dtype=np.int32) * options.length
    by_text = csr_array((weights.ravel(), tokens.ravel(), offsets), shape=(len(tokens), VOCABULARY))
    matrix = by_text.tocsc()
    del by_text, tokens, weights
    tokens, weights = zipf_rows(options.queries, options.query_length, np.random.default_rng(1))
    queries = [
        dict(zip(some.tolist(), values.tolist(), strict=True))
        for some, values in zip(tokens, weights, strict=True)
    ]

    def ours(query: int) -> list[tuple[str, float]]:
        return index.search(queries[query], options.k)

    def scipy_columns(query: int) -> list[tuple[str, float]]:
        return top(by_columns(matrix, tokens[query], weights[query]), options.k)

    searches: dict[str, Callable[[int], object]] = {"ours": ours, "scipy columns": scipy_columns}
    if options.bm25s:
        engine = bm25s_engine(matrix)

        # bm25s has no weights of query tokens; its sums cost the same without them.
        def bm25s_search(query: int) -> list[tuple[str, float]]:
            scores = engine.get_scores_from_ids(tokens[query].tolist())
            return top(scores, options.k)

        searches["bm25s"] = bm25s_search

    for query in range(options.queries):
        found, expected = ours(query), scipy_columns(query)
        values = [score for _, score in found], [score for _, score in expected]
        if not np.allclose(*values, rtol=1e-5):
            raise SystemExit(f"query {query}: {found} differs from scipy's {expected}")
    results |= measure(searches, options.queries)
    results["median_ratios"] = {
        name: round(results[name]["cpu_median_ms"] / results["ours"]["cpu_median_ms"], 2)
        for name in searches
    }
    # The product with the whole matrix reads every posting: a few are enough.
    begin = time.perf_counter()
    for query in range(3):
        whole = np.zeros(VOCABULARY, np.float32)
        whole[tokens[query]] = weights[query]
        top(matrix @ whole, options.k)
    results["scipy whole matrix, mean ms"] = round(1000 * (time.perf_counter() - begin) / 3, 1)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
