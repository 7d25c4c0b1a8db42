from __future__ import annotations

import pytest

from m3_core.network.known_models import (
    KNOWN_MODELS,
    QUERY_EN,
    QUERY_ZH,
    choose_instructions,
    find_known,
)

EN = "Represent this sentence for searching relevant passages: "
ZH = "为这个句子生成表示以用于检索相关文章："


def test_the_table_holds_every_bge_model() -> None:
    dense = [
        f"bge-{size}-{language}{version}"
        for size in ("large", "base", "small")
        for language in ("en", "zh")
        for version in ("", "-v1.5")
    ]
    others = ["bge-m3", "bge-m3-unsupervised", "bge-m3-retromae", "llm-embedder"]
    rerankers = ["base", "large", "v2-m3", "v2-gemma", "v2-minicpm-layerwise"]
    names = [f"bge-reranker-{name}" for name in [*rerankers, "v2.5-gemma2-lightweight"]]
    assert {*dense, *others, *names} <= KNOWN_MODELS.keys()
    assert (QUERY_EN, QUERY_ZH) == (EN, ZH)
    for name in dense:
        known = find_known(f"BAAI/{name}")
        assert known is KNOWN_MODELS[name]
        assert known.query_instruction == (EN if "-en" in name else ZH)
        assert known.document_instruction == ""
        assert known.max_length == 512


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("BAAI/bge-m3", "bge-m3"),
        ("/models/BAAI_bge-m3-unsupervised/", "bge-m3-unsupervised"),
        ("C:\\models\\bge-base-en-v1.5-finetuned", "bge-base-en-v1.5"),
        ("./bge-base-en-mine", "bge-base-en"),
        ("BAAI/BGE-Reranker-v2-M3", "bge-reranker-v2-m3"),
        ("bge-m3/checkpoint-500", None),
        ("my/encoder", None),
    ],
)
def test_copies_are_recognised_by_name(name: str, entry: str | None) -> None:
    assert find_known(name) is (KNOWN_MODELS[entry] if entry else None)


def test_the_user_goes_before_the_checkpoint_before_the_table() -> None:
    known, prompts = KNOWN_MODELS["bge-small-en"], {"query": "q: ", "passage": "p: "}
    assert choose_instructions(known, {}, None, None) == (EN, "")
    assert choose_instructions(known, prompts, None, None) == ("q: ", "p: ")
    assert choose_instructions(known, prompts, "mine ", "") == ("mine ", "")
    assert choose_instructions(None, {}, None, None) == ("", "")
    assert choose_instructions(KNOWN_MODELS["bge-m3"], {}, None, None) == ("", "")


def test_tasks() -> None:
    known = KNOWN_MODELS["llm-embedder"]
    assert choose_instructions(known, {}, None, None, "tool")[1] == (
        "Transform this tool description for retrieval: "
    )
    assert choose_instructions(known, {}, None, None)[0].startswith("Represent this query for")
    with pytest.raises(ValueError, match="it knows qa, icl"):
        choose_instructions(known, {}, None, None, "poetry")
    with pytest.raises(ValueError, match="no tasks"):
        choose_instructions(None, {}, None, None, "qa")
