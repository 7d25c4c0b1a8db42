"""The real tokenizer of BGE-M3, unpacked once a run."""

from __future__ import annotations

import lzma
import shutil
from pathlib import Path

import pytest

DATA = Path(__file__).parent.parent / "data"

# Run by hand, where FlagEmbedding and the other references are installed.
collect_ignore_glob = ["record*.py"]


@pytest.fixture(scope="session")
def real_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bge-m3-tokenizer")
    with (
        lzma.open(DATA / "bge-m3-tokenizer.json.xz") as packed,
        (folder / "tokenizer.json").open("wb") as file,
    ):
        shutil.copyfileobj(packed, file)
    shutil.copy(DATA / "bge-m3-special_tokens_map.json", folder / "special_tokens_map.json")
    return folder
