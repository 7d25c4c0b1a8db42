"""``M3Embedding`` against what ``record_huggingface.py`` recorded of ``HuggingFaceEmbedding``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.parity.record_huggingface import (
    CASES,
    INDEXED,
    TEXTS,
    make_index,
    retrieved,
    write_checkpoints,
)

from llamaindex_m3 import M3Embedding

RECORDED = np.load(Path(__file__).parent / "huggingface.npz")
# HuggingFaceEmbedding's for the English v1 and v1.5; BAAI's own table says "sentence".
ENGLISH = "Represent this question for searching relevant passages: "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("huggingface")
    write_checkpoints(parent)
    return parent


@pytest.fixture(autouse=True)
def _names_count_from_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def swapped(name: str, **keywords) -> M3Embedding:
    return M3Embedding(model_name=name, dtype="float32", **{"device": "cpu"} | keywords)


# They are cut there too, without a word.
@pytest.mark.filterwarnings("ignore::m3_core.network.TruncationWarning")
@pytest.mark.parametrize("number", range(len(CASES)), ids=str)
def test_vectors_are_the_same_with_the_same_keywords(number: int) -> None:
    name, keywords = CASES[number]
    if "-en-" in name and "query_instruction" not in keywords:
        keywords = keywords | {"query_instruction": ENGLISH}
    ours = swapped(name, **keywords)
    documents = ours.get_text_embedding_batch(TEXTS)
    np.testing.assert_allclose(documents, RECORDED[f"{number}.documents"], atol=1e-5)
    queries = [ours.get_query_embedding(text) for text in TEXTS]
    np.testing.assert_allclose(queries, RECORDED[f"{number}.queries"], atol=1e-5)


def test_only_the_default_english_instruction_differs() -> None:
    name, keywords = CASES[0]
    ours = swapped(name, **keywords)
    assert ours.query_instruction == ENGLISH.replace("question", "sentence")
    documents = ours.get_text_embedding_batch(TEXTS)
    np.testing.assert_allclose(documents, RECORDED["0.documents"], atol=1e-5)
    query = ours.get_query_embedding(TEXTS[0])
    assert not np.allclose(query, RECORDED["0.queries"][0], atol=1e-3)


def test_a_vector_store_index_holds_and_finds_the_same() -> None:
    name, keywords = INDEXED
    index = make_index(swapped(name, **keywords))
    stored = index.vector_store.data.embedding_dict
    vectors = [stored[one] for one in RECORDED["index.ids"]]
    np.testing.assert_allclose(vectors, RECORDED["index.vectors"], atol=1e-5)
    found = retrieved(index)
    assert [one for one, _ in found] == RECORDED["index.found"].tolist()
    np.testing.assert_allclose([s for _, s in found], RECORDED["index.scores"], atol=1e-5)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"tokenizer_name": "bert"}, "tokenizer is the checkpoint's"),
        ({"model": "BAAI/bge-m3"}, "pass model_name"),
        ({"parallel_process": True}, "one device"),
        ({"target_devices": ["cpu", "cpu"]}, "pass the one device as device="),
        ({"model_kwargs": {"torch_dtype": "float16"}}, "as dtype="),
        ({"backend": "onnx"}, "run in torch"),
        ({"text_instruction": "d: ", "document_instruction": "d: "}, "under another name"),
        ({"batch": 3}, "batch"),
    ],
)
def test_keywords_that_cannot_be_honoured_are_errors(keywords, message) -> None:
    with pytest.raises(ValueError, match=message):
        swapped("BAAI/bge-m3", **keywords)


def test_defaults_written_out_are_accepted() -> None:
    ours = swapped(
        "BAAI/bge-m3",
        tokenizer_name="deprecated",
        pooling="deprecated",
        max_length=None,
        query_instruction=None,
        text_instruction=None,
        normalize=True,
        model="deprecated",
        tokenizer="deprecated",
        embed_batch_size=10,
        cache_folder=None,
        trust_remote_code=False,
        device=None,
        callback_manager=None,
        parallel_process=False,
        target_devices=None,
        show_progress_bar=False,
    )
    np.testing.assert_allclose(
        ours.get_text_embedding(TEXTS[0]), RECORDED["6.documents"][0], atol=1e-5
    )
