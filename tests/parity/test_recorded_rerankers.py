"""Scores of the real rerankers that others recorded; see tests/data/README.md.

Run with ``M3_WEIGHTS=/models pytest -m weights``, with folders such as
``/models/bge-reranker-v2-m3``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from m3_core import Reranker

ENTRIES = [
    entry
    for entry in json.loads(
        (Path(__file__).parent.parent / "data" / "recorded.json").read_text(encoding="utf-8")
    )
    if entry["kind"] in ("rerank_logits", "rerank_sigmoid")
]


@pytest.fixture(scope="module")
def rerankers():
    """Loads a real checkpoint in float32, or skips with the reason."""
    loaded = {}

    def load(model):
        root = os.environ.get("M3_WEIGHTS")
        if not root:
            pytest.skip("M3_WEIGHTS names no folder with real checkpoints")
        folder = Path(root) / model.partition("/")[2]
        if not folder.is_dir():
            pytest.skip(f"there is no {folder}")
        if model not in loaded:
            loaded[model] = Reranker.from_pretrained(folder, dtype="float32")
        return loaded[model]

    yield load
    for reranker in loaded.values():
        reranker.close()


@pytest.mark.weights
@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, id=f"{number}-{entry['model'].partition('/')[2]}-{entry['kind']}")
        for number, entry in enumerate(ENTRIES)
    ],
)
def test_scores_of_the_real_models(rerankers, entry):
    pairs = [tuple(pair) for pair in entry["inputs"]["pairs"]]
    normalize = entry["kind"] == "rerank_sigmoid"
    scores = rerankers(entry["model"]).compute_score(pairs, normalize=normalize)
    assert scores == pytest.approx(entry["expected"], abs=entry["tolerance_hint"]["abs"])


def test_there_are_entries():
    assert len(ENTRIES) >= 10
