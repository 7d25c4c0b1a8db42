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
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csc_array

from m3_core import LexicalIndex, LexicalWeights

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

VOCABULARY = 250_002
CHUNK = 50_000


def zipf_rows(
    num_texts: int, length: int, random: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Different tokens of each text, ascending, and weights. Shapes: (texts, length)."""
    cumulated = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    cumulated /= cumulated[-1]
    tokens = np.full((num_texts, length), VOCABULARY, np.int32)
    for row in range(0, num_texts, 5_000):
        part = tokens[row : row + 5_000]
        draws = np.searchsorted(cumulated, random.random((len(part), 3 * length))).astype(np.int32)
        # The first `length` different draws of each text.
        order = np.argsort(draws, axis=1, kind="stable")
        ranked = np.take_along_axis(draws, order, 1)
        repeated = np.zeros(draws.shape, bool)
        np.put_along_axis(repeated, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], 1)
        kept = ~repeated & (np.cumsum(~repeated, axis=1) <= length)
        short = kept.sum(axis=1) < length
        for text in np.flatnonzero(short):  # fill up with tokens not drawn, rare
            free = np.setdiff1d(np.arange(4 * length), draws[text])
            missing = length - int(kept[text].sum())
            part[text] = np.concatenate([draws[text][kept[text]], free[-missing:]])
        part[~short] = draws[~short][kept[~short]].reshape(-1, length)
    tokens.sort(axis=1)
    weights = 0.3 * random.random(tokens.shape, np.float32) + np.float32(1e-4)
    return tokens, weights


def build(num_documents: int, length: int, seed: int) -> tuple[LexicalIndex, dict[str, float]]:
    """Add documents in chunks; gives the index and how long adding took."""
    random = np.random.default_rng(seed)
    index, seconds = LexicalIndex(), 0.0
    for start in range(0, num_documents, CHUNK):
        num = min(CHUNK, num_documents - start)
        tokens, weights = zipf_rows(num, length, random)
        texts = LexicalWeights(
            tokens.ravel(), weights.ravel(), np.arange(num + 1, dtype=np.int64) * length
        )
        ids = [str(number) for number in range(start, start + num)]
        begin = time.perf_counter()
        index.add(ids, texts)
        seconds += time.perf_counter() - begin
    return index, {"add_seconds": seconds}


def to_csc(num_documents: int, length: int, seed: int) -> csc_array:
    """The same documents as one CSC matrix, filled without a second copy."""
    counts = np.zeros(VOCABULARY, np.int64)
    random = np.random.default_rng(seed)
    for start in range(0, num_documents, CHUNK):
        tokens, _ = zipf_rows(min(CHUNK, num_documents - start), length, random)
        counts += np.bincount(tokens.ravel(), minlength=VOCABULARY)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    rows, data = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.float32)
    filled = offsets[:-1].copy()
    random = np.random.default_rng(seed)
    for start in range(0, num_documents, CHUNK):
        tokens, weights = zipf_rows(min(CHUNK, num_documents - start), length, random)
        order = np.argsort(tokens, axis=None, kind="stable")
        ordered = tokens.ravel()[order]
        begins = np.searchsorted(ordered, np.arange(VOCABULARY))
        places = filled[ordered] + np.arange(len(ordered)) - begins[ordered]
        rows[places] = start + order // length
        data[places] = weights.ravel()[order]
        filled += np.bincount(ordered, minlength=VOCABULARY)
    # 32-bit offsets, as scipy chooses itself, so that no product has to convert the rows.
    return csc_array((data, rows, offsets.astype(np.int32)), shape=(num_documents, VOCABULARY))


def top(scores: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
    """The k best by partition, as one would with scipy."""
    best = np.argpartition(scores, -k)[-k:]
    best = best[np.argsort(-scores[best], kind="stable")]
    return [(str(row), float(scores[row])) for row in best]


def by_columns(matrix: csc_array, tokens: NDArray[np.int32], weights: NDArray[np.float32]):
    """scipy's best case: only the query's columns, put together from slices."""
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


def measure(searches: dict[str, Callable[[int], object]], num_queries: int) -> dict[str, dict]:
    """Milliseconds of each engine, asked in turn."""
    times: dict[str, list[float]] = {name: [] for name in searches}
    for query in range(num_queries):
        for name, search in searches.items():
            begin = time.perf_counter()
            search(query)
            times[name].append(1000 * (time.perf_counter() - begin))
    return {
        name: {
            "median_ms": round(float(np.median(values)), 3),
            "p95_ms": round(float(np.percentile(values, 95)), 3),
        }
        for name, values in times.items()
    }


def bm25s_engine(matrix: csc_array):
    """bm25s' retrieval over our postings: its own index is a CSC matrix of scores too."""
    import bm25s

    engine = bm25s.BM25(backend="numpy")
    engine.scores = {
        "data": matrix.data,
        "indices": matrix.indices,
        "indptr": matrix.indptr,
        "num_docs": matrix.shape[0],
    }
    engine.vocab_dict = {str(token): token for token in range(VOCABULARY)}
    return engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--length", type=int, default=100, help="weights a document")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--query-length", type=int, default=12)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--bm25s", action="store_true")
    options = parser.parse_args()

    index, results = build(options.documents, options.length, seed=0)
    num_postings = options.documents * options.length
    results["bytes_per_posting"] = index.nbytes / num_postings
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        for name, action in (
            ("save_seconds", lambda: index.save(path)),
            ("load_seconds", lambda: LexicalIndex.load(path)),
        ):
            begin = time.perf_counter()
            action()
            results[name] = time.perf_counter() - begin

    matrix = to_csc(options.documents, options.length, seed=0)
    tokens, weights = zipf_rows(options.queries, options.query_length, np.random.default_rng(1))
    queries = [
        dict(zip(some.tolist(), values.tolist(), strict=True))
        for some, values in zip(tokens, weights, strict=True)
    ]

    def ours(query: int):
        return index.search(queries[query], options.k)

    def scipy_columns(query: int):
        return top(by_columns(matrix, tokens[query], weights[query]), options.k)

    searches: dict[str, Callable[[int], object]] = {"ours": ours, "scipy columns": scipy_columns}
    if options.bm25s:
        engine = bm25s_engine(matrix)

        # bm25s has no weights of query tokens; its sums cost the same without them.
        def bm25s_search(query: int):
            scores = engine.get_scores_from_ids(tokens[query].tolist())
            return top(scores, options.k)

        searches["bm25s"] = bm25s_search

    for query in range(options.queries):
        found, expected = ours(query), scipy_columns(query)
        values = [score for _, score in found], [score for _, score in expected]
        if not np.allclose(*values, rtol=1e-5):
            raise SystemExit(f"query {query}: {found} differs from scipy's {expected}")
    results |= measure(searches, options.queries)
    ours_ms = results["ours"]["median_ms"]
    results["median_ratios"] = {
        name: round(results[name]["median_ms"] / ours_ms, 2) for name in searches
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
