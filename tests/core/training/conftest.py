import json
import random

import pytest

from m3_core.testing import tiny_checkpoint

WORDS = [
    *("the", "of", "and", "to", "in", "is", "was", "for", "that", "with", "this", "from", "which"),
    *("panda", "bear", "city", "river", "world", "people", "water", "first", "search", "query"),
    *("vector", "token", "text", "language", "retrieval", "dense", "sparse", "hello", "model"),
]


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A small checkpoint; its dropout makes random states matter."""
    return tiny_checkpoint(tmp_path_factory.mktemp("base"), seed=1, positions=64)


def write_examples(path, count=16, seed=0, **extra):
    rng = random.Random(seed)
    with path.open("w", encoding="utf-8") as lines:
        for _ in range(count):
            query = " ".join(rng.sample(WORDS, 3))
            negatives = [" ".join(rng.sample(WORDS, rng.randint(3, 9))) for _ in range(3)]
            row = {"query": query, "pos": [f"{query} {rng.choice(WORDS)}"], "neg": negatives}
            lines.write(json.dumps(row | extra) + "\n")
    return path


@pytest.fixture
def data(tmp_path):
    return write_examples(tmp_path / "data.jsonl")
