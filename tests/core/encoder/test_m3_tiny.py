"""The model that comes with the package: found by name, small, and its results make sense."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.conftest import CORPUS
from transformers import AutoModel

from m3_core import Encoder
from m3_core.network.checkpoint import locate
from m3_core.scoring import dense_scores, lexical_scores, maxsim_scores

LANGUAGES = [query["language"] for query in CORPUS["queries"]]


@pytest.fixture(scope="module")
def tiny() -> Encoder:
    return Encoder.from_pretrained("m3-tiny", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def hybrid(tiny: Encoder) -> np.ndarray:
    documents = [document["text"] for document in CORPUS["documents"]]
    queries = [query["text"] for query in CORPUS["queries"]]
    every = {"return_sparse": True, "return_colbert_vecs": True}
    d = tiny.encode_documents(documents, **every)
    q = tiny.encode_queries(queries, **every)
    return (
        dense_scores(q.dense_vecs, d.dense_vecs)
        + 0.3 * lexical_scores(q.lexical_weights, d.lexical_weights)
        + maxsim_scores(q.colbert_vecs, d.colbert_vecs)
    )


def test_its_name_is_a_folder_of_the_package_of_at_most_12_mb():
    folder = locate("m3-tiny")
    assert folder.parent.parent.name == "m3_core"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 12_000_000


def test_it_gives_three_representations_of_long_texts(tiny: Encoder):
    assert tiny.representations == {"dense", "sparse", "colbert"}
    assert tiny.max_length == 512
    assert tiny.dimension == 256


@pytest.mark.parametrize("number", range(len(LANGUAGES)), ids=LANGUAGES)
def test_a_query_finds_its_topic_in_its_language(hybrid: np.ndarray, number: int):
    query = CORPUS["queries"][number]
    own = [i for i, d in enumerate(CORPUS["documents"]) if d["language"] == query["language"]]
    best = own[int(np.argmax(hybrid[number, own]))]
    assert CORPUS["documents"][best]["topic"] == query["topic"]


def test_plain_transformers_loads_it():
    network = AutoModel.from_pretrained(locate("m3-tiny"), dtype=torch.float32)
    table = network.get_input_embeddings().weight
    assert table.dtype == torch.float32
    assert table.isfinite().all()
