"""The tables of what becomes of each keyword: complete, and true of our classes.

Keywords of classes that are installed are read from them; the others were written down from the
versions that the pages name.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.postprocessor import SentenceTransformerRerank
from sentence_transformers import CrossEncoder, SentenceTransformer

import langchain_m3
import llamaindex_m3
from m3_core import Encoder, Reranker, flagembedding
from m3_core.testing.rerankers import tiny_reranker

PAGES = Path(__file__).parent.parent / "docs" / "migrate"

# llama-index-embeddings-huggingface 0.8.0
HUGGINGFACE_EMBEDDING = {
    *("model_name", "tokenizer_name", "pooling", "max_length", "query_instruction"),
    *("text_instruction", "normalize", "model", "tokenizer", "embed_batch_size", "cache_folder"),
    *("trust_remote_code", "device", "callback_manager", "parallel_process", "target_devices"),
    "show_progress_bar",
}
# langchain-huggingface 1.2.3
HUGGINGFACE_EMBEDDINGS = {
    *("model_name", "model", "cache_folder", "model_kwargs", "encode_kwargs"),
    *("query_encode_kwargs", "multi_process", "show_progress"),
}
# llama-index-indices-managed-bge-m3 0.8.0
BGE_M3_INDEX = {
    *("nodes", "objects", "index_struct", "storage_context", "model_name", "index_name"),
    *("show_progress", "pooling_method", "normalize_embeddings", "use_fp16", "batch_size"),
    *("doc_maxlen", "query_maxlen", "weights_for_different_modes"),
}
# llama-index-postprocessor-flag-embedding-reranker 0.6.0
FLAG_EMBEDDING_RERANKER = {"top_n", "model", "use_fp16"}
# FlagEmbedding 1.4.2
FLAG_MODEL = {
    *("model_name_or_path", "normalize_embeddings", "use_fp16", "use_bf16"),
    *("query_instruction_for_retrieval", "query_instruction_format", "devices", "pooling_method"),
    *("trust_remote_code", "cache_dir", "batch_size", "query_max_length", "passage_max_length"),
    *("convert_to_numpy", "truncate_dim"),
}
BGE_M3_FLAG_MODEL = FLAG_MODEL - {"convert_to_numpy"} | {
    *("colbert_dim", "return_dense", "return_sparse", "return_colbert_vecs"),
}
FLAG_RERANKER = {
    *("model_name_or_path", "use_fp16", "query_instruction_for_rerank"),
    *("query_instruction_format", "passage_instruction_for_rerank", "passage_instruction_format"),
    *("trust_remote_code", "cache_dir", "devices", "batch_size", "query_max_length"),
    *("max_length", "normalize"),
}
FLAG_LLM_RERANKER = FLAG_RERANKER | {"peft_path", "use_bf16", "prompt"}
LIGHTWEIGHT_RERANKER = FLAG_LLM_RERANKER | {"cutoff_layers", "compress_layers", "compress_ratio"}


def rows(page: str) -> list[list[str]]:
    """The cells of a page's tables."""
    lines = (PAGES / page).read_text("utf-8").splitlines()
    table = [line for line in lines if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def named(cell: str) -> set[str]:
    """Keywords in a cell; of a call those within it too."""
    codes = re.findall(r"`([^`]+)`", cell)
    return {word for code in codes for word in re.findall(r"\b[a-z_][a-z_0-9]*\b", code)}


def keywords(function: Callable[..., Any]) -> set[str]:
    every = inspect.signature(function).parameters.values()
    fixed = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {one.name for one in every if one.kind not in fixed} - {"self"}


def community(name: str) -> Any:
    with warnings.catch_warnings():
        # It says on import that nobody maintains it.
        warnings.simplefilter("ignore")
        import langchain_community.cross_encoders
        import langchain_community.embeddings

        home = getattr(langchain_community.embeddings, name, None)
        return home or getattr(langchain_community.cross_encoders, name)


@pytest.mark.parametrize(
    ("page", "asked"),
    [
        ("langchain-huggingface.md", lambda: HUGGINGFACE_EMBEDDINGS),
        (
            "langchain-bge.md",
            lambda: set(community("HuggingFaceBgeEmbeddings").model_fields),
        ),
        ("llamaindex-huggingface.md", lambda: HUGGINGFACE_EMBEDDING),
        ("managed-index.md", lambda: BGE_M3_INDEX),
        ("rerankers.md", lambda: FLAG_EMBEDDING_RERANKER),
        ("rerankers.md", lambda: keywords(SentenceTransformerRerank.__init__)),
        (
            "rerankers.md",
            lambda: set(community("HuggingFaceCrossEncoder").model_fields) - {"client"},
        ),
        ("flagembedding.md", lambda: FLAG_MODEL | BGE_M3_FLAG_MODEL | LIGHTWEIGHT_RERANKER),
        ("sentence-transformers.md", lambda: keywords(SentenceTransformer.__init__)),
        ("sentence-transformers.md", lambda: keywords(SentenceTransformer.encode)),
        ("sentence-transformers.md", lambda: keywords(CrossEncoder.__init__)),
        ("sentence-transformers.md", lambda: keywords(CrossEncoder.predict)),
        ("sentence-transformers.md", lambda: keywords(CrossEncoder.rank)),
    ],
)
def test_tables_have_every_keyword(page: str, asked: Callable[[], set[str]]) -> None:
    found = set().union(*(named(row[0]) for row in rows(page)))
    assert not asked() - found


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("BGEM3FlagModel", BGE_M3_FLAG_MODEL),
        ("FlagModel", FLAG_MODEL),
        ("FlagReranker", FLAG_RERANKER),
        ("FlagLLMReranker", FLAG_LLM_RERANKER),
        ("LightWeightFlagLLMReranker", LIGHTWEIGHT_RERANKER),
    ],
)
def test_names_of_flagembedding_are_those_of_ours(name: str, theirs: set[str]) -> None:
    assert not theirs - keywords(getattr(flagembedding, name).__init__)


def test_replacements_of_sentence_transformers_exist() -> None:
    ours = set().union(
        *(
            keywords(one)
            for one in (
                *(Encoder.from_pretrained, Encoder.encode_documents, Reranker.from_pretrained),
                *(Reranker.compute_score, Reranker.rank),
            )
        )
    )
    calls = {"from_pretrained", "with_options", "encode_queries", "encode_documents", "encoder"}
    calls |= {"compute_score", "rank", "Encoder", "Reranker"}
    for row in rows("sentence-transformers.md"):
        if row[1] == "same":
            assert not named(row[0]) - ours, row
        elif "`" in row[1] and not row[0].startswith("there"):
            words = {word for word in named(row[1]) if word.islower()}
            assert not words - ours - calls, row


# What a keyword of the tables may be, and where an error is promised what it may not be.
GOOD: dict[str, Any] = {
    "batch_size": 4,
    "cache_folder": None,
    "callback_manager": None,
    "client": None,
    "device": "cpu",
    "embed_batch_size": 8,
    "embed_instruction": "passage: ",
    "embeddings_cache": None,
    "encode_kwargs": {"normalize_embeddings": True},
    "keep_retrieval_score": True,
    "local_files_only": True,
    "max_length": 16,
    "model_kwargs": {"device": "cpu"},
    "normalize": False,
    "num_workers": 2,
    "query_encode_kwargs": {"prompt": "query: "},
    "query_instruction": "query: ",
    "rate_limiter": None,
    "revision": None,
    "show_progress": False,
    "show_progress_bar": False,
    "text_instruction": "passage: ",
    "token": None,
    "top_n": 1,
    "truncate_dim": 8,
    "trust_remote_code": False,
    "use_fp16": False,
}
BAD: dict[str, Any] = {
    "backend": "onnx",
    "config_kwargs": {"x": 1},
    "default_prompt_name": "query",
    "model": "other",
    "model_kwargs": {"attn_implementation": "sdpa"},
    "multi_process": True,
    "parallel_process": True,
    "prompts": {"query": "x"},
    "similarity_fn_name": "dot",
    "target_devices": ["cuda:0"],
    "tokenizer": "other",
    "tokenizer_kwargs": {"x": 1},
    "tokenizer_name": "other",
    "use_auth_token": True,
    "batch_size": 8,
    "doc_maxlen": 64,
    "encode_kwargs": {"precision": "int8"},
    "query_maxlen": 64,
    "use_fp16": True,
    "pooling_method": "mean",
    "normalize_embeddings": False,
}


def cases() -> list[Any]:
    tables = {
        "langchain-huggingface.md": (langchain_m3.M3Embeddings, HUGGINGFACE_EMBEDDINGS),
        "langchain-bge.md": (langchain_m3.HuggingFaceBgeEmbeddings, set(GOOD)),
        "llamaindex-huggingface.md": (
            llamaindex_m3.M3Embedding,
            HUGGINGFACE_EMBEDDING | {"prompts", "backend", "similarity_fn_name", "truncate_dim"},
        ),
        "managed-index.md": (llamaindex_m3.M3Index, BGE_M3_INDEX),
    }
    found = []
    for page, (ours, theirs) in tables.items():
        for row in rows(page):
            for name in sorted(named(row[0]) & theirs):
                if row[1].startswith("same") and name in GOOD and "client" not in name:
                    found.append(pytest.param(ours, name, True, id=f"{ours.__name__}-{name}"))
                elif row[1].startswith("error"):
                    found.append(pytest.param(ours, name, False, id=f"{ours.__name__}-{name}-no"))
    return found


@pytest.mark.parametrize(("ours", "name", "taken"), cases())
def test_tables_say_what_our_classes_do(ours: type, name: str, taken: bool, tiny_m3: Path) -> None:
    model: dict[str, Any] = {} if name == "model" else {"model_name": str(tiny_m3)}
    if ours is llamaindex_m3.M3Index:
        model["nodes"] = []
    elif ours is langchain_m3.HuggingFaceBgeEmbeddings:
        model["query_instruction"] = ""
    if taken:
        ours(**model | {name: GOOD[name]})
    else:
        with pytest.raises((TypeError, ValueError)):
            ours(**model | {name: BAD[name]})


@pytest.mark.parametrize("ours", [langchain_m3.BGEReranker, llamaindex_m3.BGEReranker])
def test_rerankers_take_what_the_table_says(ours: type, tmp_path: Path) -> None:
    model = str(tiny_reranker(tmp_path / "reranker"))
    assert ours(model=model, top_n=2, use_fp16=False).dtype == "float32"
    assert ours(model_name=model, model_kwargs={"device": "cpu", "max_length": 32}).max_length == 32
    with pytest.raises((TypeError, ValueError)):
        ours(model_name=model, model_kwargs={"attn_implementation": "sdpa"})
