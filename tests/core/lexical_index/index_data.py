"""Documents for tests of the lexical index, and brute force over them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from m3_core import LexicalIndex

WEIGHTS = st.floats(2**-10, 2.0, width=32)
TEXTS = st.dictionaries(st.integers(0, 12), WEIGHTS, max_size=6)
NAMES = st.sampled_from([f"d{number}" for number in range(30)])


def brute_force(documents, query, k):
    """Every document in float64, in the order of adding; ties keep that order."""
    scores = [
        (name, sum(query[token] * weights[token] for token in sorted(query) if token in weights))
        for name, weights in documents.items()
    ]
    return sorted((pair for pair in scores if pair[1] > 0), key=lambda pair: -pair[1])[:k]


def synthetic(num_documents, seed=0, length=20, vocabulary=3000):
    """Documents with Zipf-distributed tokens: a few tokens in nearly all documents."""
    random = np.random.default_rng(seed)
    texts = []
    for _ in range(num_documents):
        tokens = np.unique(random.zipf(1.3, length) % vocabulary).tolist()
        weights = random.random(len(tokens), np.float32) * 0.3 + np.float32(1e-3)
        texts.append(dict(zip(tokens, weights.tolist(), strict=True)))
    return [f"doc {number}" for number in range(num_documents)], texts


# What can be done to an index: (add, rows) or (delete, names).
ADD = st.tuples(st.just("add"), st.dictionaries(NAMES, TEXTS, max_size=8))
DELETE = st.tuples(st.just("delete"), st.lists(NAMES, max_size=8))
STEPS = st.lists(st.one_of(ADD, ADD, DELETE), max_size=8)


def apply(steps):
    index, documents = LexicalIndex(), {}
    for kind, what in steps:
        if kind == "add":
            index.add(list(what), list(what.values()))
            for name in what:
                documents.pop(name, None)
            documents |= what
        else:
            gone = sum(documents.pop(name, None) is not None for name in what)
            assert index.delete(what) == gone
    return index, documents
