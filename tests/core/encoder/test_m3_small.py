"""The embedded model: found by name, within its size, reads every script, across languages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.table import CORPUS
from tokenizers import Tokenizer

from m3_core import Encoder
from m3_core.cli.main import main
from m3_core.network.checkpoint import locate
from m3_core.scoring import hybrid_scores

DOCUMENTS, QUERIES = CORPUS["documents"], CORPUS["queries"]
LANGUAGES = [query["language"] for query in QUERIES]
EVERY = {"return_sparse": True, "return_colbert_vecs": True}
# Scripts that the pieces were not chosen for: they come in characters, but they come.
SCRIPTS = ["ჯვარი", "አማርኛ", "ភាសាខ្មែរ", "ພາສາລາວ", "தமிழ்", "ਪੰਜਾਬੀ", "Հայերեն", "မြန်မာ", "鱻"]


@pytest.fixture(scope="module")
def small() -> Encoder:
    return Encoder.from_pretrained("m3-small", device="cpu", dtype="float32")


def test_its_name_is_a_folder_of_the_package_of_at_most_36_mb():
    folder = locate("m3-small")
    assert folder.parent.parent.name == "m3_core"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 36_000_000


def test_it_gives_three_representations_of_long_texts(small: Encoder):
    assert small.representations == {"dense", "sparse", "colbert"}
    assert (small.max_length, small.dimension) == (512, 384)
    assert (small.query_instruction, small.document_instruction) == ("query: ", "passage: ")


@pytest.mark.parametrize("text", SCRIPTS)
def test_no_script_that_bge_m3_reads_vanishes(text: str):
    tokenizer = Tokenizer.from_file(str(locate("m3-small") / "tokenizer.json"))
    tokens = tokenizer.encode(text, add_special_tokens=False).tokens
    assert "<unk>" not in tokens
    assert "".join(tokens).replace("▁", "") == text


def test_queries_find_their_topic_in_their_language_and_across(small: Encoder):
    d = small.encode_documents([document["text"] for document in DOCUMENTS], **EVERY)
    q = small.encode_queries([query["text"] for query in QUERIES], **EVERY)
    hybrid = hybrid_scores(q, d, (1.0, 0.3, 1.0))
    across = []
    for row, query in enumerate(QUERIES):
        own = [i for i, one in enumerate(DOCUMENTS) if one["language"] == query["language"]]
        best = DOCUMENTS[own[int(np.argmax(hybrid[row, own]))]]
        assert best["topic"] == query["topic"]
        first = [DOCUMENTS[i] for i in np.argsort(-hybrid[row])[:10]]
        across.append(sum(one["topic"] == query["topic"] for one in first))
    # Each topic is told in seven languages; two of the questions stay within some of them.
    assert sum(count >= 6 for count in across) >= 5


def test_its_export_gives_the_same(small: Encoder, tmp_path: Path):
    with pytest.raises(SystemExit):
        main(["export", "m3-small", str(tmp_path / "plain")])
    assert (tmp_path / "plain" / "model.safetensors").is_file()
    plain = Encoder.from_pretrained(tmp_path / "plain", device="cpu", dtype="float32")
    texts = [query["text"] for query in QUERIES]
    one, other = small.encode_queries(texts, **EVERY), plain.encode_queries(texts, **EVERY)
    np.testing.assert_allclose(one.dense_vecs, other.dense_vecs, atol=1e-5)
    np.testing.assert_array_equal(one.lexical_weights.token_ids, other.lexical_weights.token_ids)
    np.testing.assert_allclose(
        one.lexical_weights.weights, other.lexical_weights.weights, atol=1e-5
    )
    np.testing.assert_allclose(one.colbert_vecs.vectors, other.colbert_vecs.vectors, atol=1e-5)
