from __future__ import annotations

import httpx
import pytest
from tests.core.server.serving import running

from m3_core import Encoder, Reranker
from m3_core.testing import tiny_checkpoint
from m3_core.testing.rerankers import tiny_reranker

KEY = "a key"


@pytest.fixture(scope="session")
def served_encoder(tmp_path_factory):
    """With instructions, so that it shows which of them stood before a text."""
    folder = tiny_checkpoint(tmp_path_factory.mktemp("served") / "m3", positions=128)
    return Encoder.from_pretrained(
        folder,
        device="cpu",
        dtype="float32",
        query_instruction="query ",
        document_instruction="world ",
    )


@pytest.fixture(scope="session")
def served_reranker(tmp_path_factory):
    folder = tiny_reranker(tmp_path_factory.mktemp("served") / "reranker", positions=128)
    return Reranker.from_pretrained(folder, device="cpu", dtype="float32", max_length=64)


@pytest.fixture(scope="session")
def server(served_encoder, served_reranker):
    with running({"m3": served_encoder, "judge": served_reranker}, api_keys=("other", KEY)) as one:
        yield one


@pytest.fixture(scope="session")
def open_server(served_encoder, served_reranker):
    """Without a key."""
    with running({"m3": served_encoder, "judge": served_reranker}) as one:
        yield one


@pytest.fixture
def client(server):
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"}) as one:
        yield one
