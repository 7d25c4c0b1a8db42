import json

import numpy as np
import pytest

from m3_core import Encoder
from m3_core.errors import TrainingDataError
from m3_core.training.data import parse_example, read_lines
from m3_core.training.mining import MiningOptions, mine, mine_files

WORDS = ["bear", "city", "river", "world", "people", "water", "first", "search"]
POOL = [f"panda {word}" for word in WORDS]


@pytest.fixture(scope="module")
def encoder(base):
    return Encoder.from_pretrained(base, device="cpu", dtype="float32")


def row(query, pos):
    return parse_example(json.dumps({"query": query, "pos": pos}), "here")


@pytest.mark.parametrize("method", ["dense", "sparse", "hybrid"])
def test_negatives_are_the_best_ranked_that_are_not_right(encoder, method):
    options = MiningOptions(method=method, first=1, last=5, negatives=10**9)
    with pytest.raises(TrainingDataError, match="too few"):
        mine(encoder, [row("panda", [POOL[0]])], POOL, options)
    options = MiningOptions(method=method, first=0, last=4, negatives=3)
    (mined,) = mine(encoder, [row("panda bear", [POOL[0]])], POOL, options)
    d = encoder.encode_documents(POOL, return_sparse=True)
    q = encoder.encode_queries(["panda bear"], return_sparse=True)
    weights = {"dense": (1, 0), "sparse": (0, 1), "hybrid": (1, 0.3)}[method]
    own = q.lexical_weights[0]
    lexical = np.array(
        [sum(own.get(t, 0) * w for t, w in row.items()) for row in d.lexical_weights]
    )
    scores = weights[0] * (d.dense_vecs @ q.dense_vecs[0]) + weights[1] * lexical
    best = [POOL[i] for i in np.argsort(-scores, kind="stable")[:4] if i != 0]
    assert len(mined["neg"]) == 3
    assert set(mined["neg"]) <= set(best) or len(best) == 3
    assert POOL[0] not in mined["neg"]


def test_the_output_is_training_data_again(encoder, tmp_path):
    source = tmp_path / "in.jsonl"
    lines = [json.dumps({"query": f"panda {i}", "pos": [text]}) for i, text in enumerate(POOL)]
    source.write_text("\n".join(lines), "utf-8")
    options = MiningOptions(first=0, last=5, negatives=2)
    assert mine_files(encoder, [source], tmp_path / "out.jsonl", options=options) == len(POOL)
    for example in read_lines([tmp_path / "out.jsonl"]):
        assert len(set(example["neg"])) == 2
        assert not set(example["neg"]) & set(example["pos"])


def test_options_that_cannot_work():
    with pytest.raises(ValueError, match="there are none"):
        MiningOptions(first=5, last=5)
    with pytest.raises(ValueError, match="negatives"):
        MiningOptions(negatives=0)
