"""``M3Embeddings`` with the keywords of ``HuggingFaceEmbeddings``, against what
``record_langchain_huggingface.py`` recorded of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.parity.record_huggingface import TEXTS, write_checkpoints
from tests.parity.record_langchain_huggingface import CASES

from langchain_m3 import M3Embeddings

RECORDED = np.load(Path(__file__).parent / "langchain_huggingface.npz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("huggingface")
    write_checkpoints(parent)
    return parent


@pytest.fixture(autouse=True)
def _names_count_from_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def swapped(name: str, **keywords) -> M3Embeddings:
    model_kwargs = {
        "device": "cpu",
        "model_kwargs": {"torch_dtype": "float32"},
        **keywords.pop("model_kwargs", {}),
    }
    return M3Embeddings(model=name, model_kwargs=model_kwargs, **keywords)


# The texts hold line breaks, which are spaces there. They are cut there too, without a word.
@pytest.mark.filterwarnings("ignore::m3_core.network.TruncationWarning")
@pytest.mark.parametrize("number", range(len(CASES)), ids=str)
def test_vectors_are_the_same_with_the_same_keywords(number: int) -> None:
    name, keywords = CASES[number]
    prompted = any(
        "prompt" in keywords.get(key, {}) for key in ("encode_kwargs", "query_encode_kwargs")
    )
    if name != "BAAI/bge-m3" and not prompted:
        # There no query has an instruction unless it is asked for.
        keywords = keywords | {"query_instruction": ""}
    ours = swapped(name, **keywords)
    np.testing.assert_allclose(
        ours.embed_documents(TEXTS), RECORDED[f"{number}.documents"], atol=1e-5
    )
    queries = [ours.embed_query(text) for text in TEXTS]
    np.testing.assert_allclose(queries, RECORDED[f"{number}.queries"], atol=1e-5)


def test_without_keywords_only_the_default_instruction_of_queries_differs() -> None:
    ours = swapped("BAAI/bge-small-en-v1.5")
    assert ours.query_instruction.startswith("Represent this sentence")
    np.testing.assert_allclose(ours.embed_documents(TEXTS), RECORDED["0.documents"], atol=1e-5)
    assert not np.allclose(ours.embed_query(TEXTS[0]), RECORDED["0.queries"][0], atol=1e-3)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"multi_process": True}, "one device"),
        ({"model_name": "BAAI/bge-m3"}, "model_name is set twice"),
        ({"dtype": "float16"}, "dtype is set twice, once by model_kwargs="),
        ({"model_kwargs": {"backend": "onnx"}}, "run in torch"),
        ({"model_kwargs": {"prompts": {"query": "q: "}}}, "pass query_instruction="),
        ({"model_kwargs": {"model_kwargs": {"file_name": "x"}}}, "dtype="),
        ({"encode_kwargs": {"precision": "int8"}}, "only 'float32'"),
        ({"encode_kwargs": {"prompt_name": "query"}}, "has the prompts"),
        (
            {"encode_kwargs": {"prompt": "d: "}, "document_instruction": "d: "},
            "document_instruction is set twice",
        ),
        ({"embed_instruction": "d: "}, "pass document_instruction="),
        ({"batch": 3}, "batch"),
    ],
)
def test_keywords_that_cannot_be_honoured_are_errors(keywords, message) -> None:
    with pytest.raises(ValueError, match=message):
        swapped("BAAI/bge-m3", **keywords)


def test_one_length_counts_for_documents_and_queries() -> None:
    with pytest.raises(ValueError, match="normalize_embeddings differs"):
        swapped(
            "BAAI/bge-small-zh-v1.5",
            encode_kwargs={"normalize_embeddings": True},
            query_encode_kwargs={"normalize_embeddings": False},
        )


@pytest.mark.parametrize("what", ["model_kwargs", "encode_kwargs", "query_encode_kwargs"])
def test_unknown_keys_are_errors(what) -> None:
    with pytest.raises(TypeError, match=f"{what} has unknown keys: devise; known are"):
        swapped("BAAI/bge-m3", **{what: {"devise": "cpu"}})


def test_defaults_written_out_are_accepted() -> None:
    ours = M3Embeddings(
        model="BAAI/bge-m3",
        cache_folder=None,
        model_kwargs={},
        encode_kwargs={},
        query_encode_kwargs={},
        multi_process=False,
        show_progress=False,
        dtype="float32",
    )
    np.testing.assert_allclose(
        ours.embed_documents(TEXTS[:1]), RECORDED["7.documents"][:1], atol=1e-5
    )
    assert M3Embeddings(**ours.model_dump()).model_dump() == ours.model_dump()
