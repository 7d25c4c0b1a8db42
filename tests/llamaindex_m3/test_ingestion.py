"""``M3Embedding`` within LlamaIndex's ``IngestionPipeline``: caches, processes, event loops."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.schema import Document, MetadataMode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore
from tests.conftest import Passes, make_text
from tests.forking import HAS_FORK
from tests.table import table

from llamaindex_m3 import M3Embedding
from m3_core import Encoder

DOCUMENTS = [
    Document(text=make_text(i, 12), id_=str(i), metadata={"source": f"file {i}"}) for i in range(6)
]


@pytest.fixture
def fresh(tiny_m3: Path) -> Encoder:
    return Encoder.from_pretrained(tiny_m3, device="cpu", dtype="float32")


def pipeline(embedding: M3Embedding, cache: IngestionCache | None = None, **options):
    return IngestionPipeline(
        transformations=[TokenTextSplitter(chunk_size=64, chunk_overlap=0), embedding],
        cache=cache,
        **options,
    )


def assert_embedded(nodes, encoder: Encoder) -> None:
    texts = [node.get_content(MetadataMode.EMBED) for node in nodes]
    expected = encoder.encode_documents(texts).dense_vecs
    np.testing.assert_allclose([node.embedding for node in nodes], expected, atol=1e-6)


def test_the_cache_is_missed_for_what_changes_vectors_only(fresh, tiny_m3, monkeypatch) -> None:
    passes, cache = Passes(fresh, monkeypatch), IngestionCache()

    def run(**options) -> list[int]:
        embedding = M3Embedding(encoder=fresh, reuse_encodings=False, **options)
        passes.clear()
        nodes = pipeline(embedding, cache).run(documents=DOCUMENTS)
        assert_embedded(nodes, embedding._model)
        return list(passes[:-1])

    assert run() == [6]
    assert run() == []
    assert run(embed_batch_size=2) == []
    assert run(num_workers=2, show_progress=True) == []
    for other in (
        {"document_instruction": "d: "},
        {"query_instruction": "q: "},
        {"truncate_dim": 8},
        {"max_length": 100},
        {"pooling": "mean"},
        {"normalize": False},
    ):
        assert run(**other) == [6]
        assert run(**other) == []


def test_a_persisted_cache_is_hit_on_another_device(tiny_m3: Path, tmp_path: Path) -> None:
    first = pipeline(M3Embedding(model_name=str(tiny_m3)))
    expected = first.run(documents=DOCUMENTS)
    first.persist(str(tmp_path))
    embedding = M3Embedding(model_name=str(tiny_m3), device="cpu", embed_batch_size=1)
    again = pipeline(embedding)
    again.load(str(tmp_path))
    entries = len(again.cache.cache.get_all(again.cache.collection))
    nodes = again.run(documents=DOCUMENTS)
    assert len(again.cache.cache.get_all(again.cache.collection)) == entries
    assert [node.embedding for node in nodes] == [node.embedding for node in expected]


def test_the_docstore_lets_only_new_and_changed_documents_through(fresh, monkeypatch) -> None:
    passes = Passes(fresh, monkeypatch)
    embedding = M3Embedding(encoder=fresh)
    store = SimpleVectorStore()
    ingest = pipeline(embedding, docstore=SimpleDocumentStore(), vector_store=store)
    assert len(ingest.run(documents=DOCUMENTS[:4])) == 4
    assert ingest.run(documents=DOCUMENTS[:4]) == []
    changed = Document(text="another text", id_="0", metadata={"source": "file 0"})
    assert len(ingest.run(documents=[changed, *DOCUMENTS[1:]])) == 3
    assert passes == [4, 3]
    assert len(store.data.embedding_dict) == 6


# A machine with one core gets one process, with a warning.
@pytest.mark.filterwarnings("ignore:Specified num_workers")
def test_spawned_processes_load_the_model_themselves(tiny_m3: Path, encoder: Encoder) -> None:
    embedding = M3Embedding(model_name=str(tiny_m3), dtype="float32", document_instruction="d: ")
    # No splitter: pickled, LlamaIndex's ask a server for their tokenizer.
    ingest = IngestionPipeline(transformations=[embedding])
    nodes = ingest.run(documents=DOCUMENTS, num_workers=2)
    assert [node.id_ for node in nodes] == [document.id_ for document in DOCUMENTS]
    assert_embedded(nodes, encoder.with_options(document_instruction="d: "))


async def test_arun_computes_off_the_event_loop(fresh, monkeypatch) -> None:
    passes = Passes(fresh, monkeypatch)
    embedding = M3Embedding(encoder=fresh, embed_batch_size=2)
    nodes = await pipeline(embedding).arun(documents=DOCUMENTS)
    assert sum(passes) == 6
    assert all(name.startswith("m3-processor") for name in passes.threads)
    assert_embedded(nodes, fresh)


@pytest.mark.skipif(not HAS_FORK, reason="no fork on this system")
async def test_arun_in_forked_processes_after_an_asynchronous_call(
    table_encoder, monkeypatch
) -> None:
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: context)
    embedding = M3Embedding(model_name=str(table()), device="cpu", dtype="float32")
    await embedding.aget_query_embedding("the engine and torch have their threads now")
    large = torch.ones(600, 600)
    assert float((large @ large)[0, 0]) == 600
    made = pipeline(embedding)
    nodes = await asyncio.wait_for(made.arun(documents=DOCUMENTS, num_workers=2), 120)
    assert_embedded(nodes, table_encoder)


def test_nothing_to_embed(fresh) -> None:
    embedding = M3Embedding(encoder=fresh)
    assert list(pipeline(embedding).run(documents=[])) == []
    nodes = IngestionPipeline(transformations=[embedding]).run(documents=[Document(text="")])
    assert_embedded(nodes, fresh)


SCRIPT = """
import asyncio, multiprocessing
from llama_index.core import Document
from llama_index.core.ingestion import IngestionPipeline
from llamaindex_m3 import M3Embedding

async def main():
    embedding = M3Embedding(model_name={model!r}, device="cpu", dtype="float32")
    alone = await embedding.aget_query_embedding("panda")
    documents = [Document(text="panda") for _ in range(4)]
    ingest = IngestionPipeline(transformations=[embedding])
    nodes = await ingest.arun(documents=documents, num_workers=2)
    assert len(nodes) == 4
    assert all(abs(a - b) < 1e-5 for n in nodes for a, b in zip(n.embedding, alone))

# Without this, spawned processes would run the script again and end: see multiprocessing's manual.
if __name__ == "__main__":
    multiprocessing.set_start_method({method!r})
    asyncio.run(main())
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_arun_with_processes_from_a_plain_script(tmp_path: Path, method: str) -> None:
    path = tmp_path / "ingest.py"
    path.write_text(SCRIPT.format(method=method, model=str(table())), encoding="utf-8")
    running = subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Where it hangs, its processes end with it.
        start_new_session=True,
    )
    try:
        said, _ = running.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        if hasattr(os, "killpg"):
            os.killpg(running.pid, signal.SIGKILL)
        running.kill()
        raise
    assert running.returncode == 0, said
