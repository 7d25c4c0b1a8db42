from __future__ import annotations

import copy
import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.schema import MetadataMode, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from pydantic import ValidationError
from tests.conftest import Passes

from llamaindex_m3 import M3Embedding
from m3_core import Encoder
from m3_core.errors import CheckpointNotFoundError

TEXTS = ["panda bear", "", "мир", "panda bear"]


@pytest.fixture
def embedding(tiny_m3: Path) -> M3Embedding:
    return M3Embedding(model_name=str(tiny_m3), query_instruction="q: ", dtype="float32")


@pytest.fixture
def fresh(tiny_m3: Path) -> Encoder:
    return Encoder.from_pretrained(tiny_m3, device="cpu", dtype="float32")


def test_vectors_are_the_cores(embedding: M3Embedding, encoder: Encoder) -> None:
    core = encoder.with_options(query_instruction="q: ")
    texts = TEXTS * 100
    vectors = embedding.get_text_embedding_batch(texts)
    np.testing.assert_allclose(vectors, core.encode_documents(texts).dense_vecs, atol=1e-6)
    np.testing.assert_allclose(embedding.get_text_embedding("panda bear"), vectors[0], atol=1e-6)
    np.testing.assert_allclose(
        embedding.get_query_embedding("panda"),
        core.encode_queries(["panda"]).dense_vecs[0],
        atol=1e-6,
    )
    assert type(vectors[0][0]) is float


async def test_async_equals_sync_off_the_event_loop(fresh, monkeypatch) -> None:
    passes = Passes(fresh, monkeypatch)
    embedding = M3Embedding(encoder=fresh, embed_batch_size=2, num_workers=2)
    vectors = await embedding.aget_text_embedding_batch(["panda", "bear river", "мир"])
    query = await embedding.aget_query_embedding("panda")
    assert all(name.startswith("m3-processor") for name in passes.threads)
    expected = embedding.get_text_embedding_batch(["panda", "bear river", "мир"])
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    np.testing.assert_allclose(await embedding.aget_text_embedding("panda"), expected[0], atol=1e-6)
    np.testing.assert_allclose(query, embedding.get_query_embedding("panda"), atol=1e-6)


def test_texts_are_batched_and_equal_ones_computed_once(fresh, monkeypatch) -> None:
    passes = Passes(fresh, monkeypatch)
    embedding = M3Embedding(encoder=fresh, embed_batch_size=3)
    embedding.get_text_embedding_batch(TEXTS)
    assert passes == [3]
    apart = M3Embedding(encoder=fresh, reuse_encodings=False)
    apart.get_text_embedding_batch(TEXTS)
    assert passes == [3, 3]


def test_nodes_are_embedded_with_their_metadata(embedding: M3Embedding) -> None:
    nodes = [TextNode(text="panda", metadata={"city": "río"}), TextNode(text="")]
    embedded = embedding(nodes)
    expected = embedding.get_text_embedding(nodes[0].get_content(MetadataMode.EMBED))
    np.testing.assert_allclose(embedded[0].embedding, expected, atol=1e-6)
    np.testing.assert_allclose(embedded[1].embedding, embedding.get_text_embedding(""), atol=1e-6)
    assert embedding([]) == []


def test_what_changes_vectors_is_serialised_and_nothing_else(embedding, encoder) -> None:
    stored = embedding.to_dict()
    assert stored.keys() == {
        *("class_name", "base_url", "model_name", "revision", "dtype", "max_length"),
        *("query_instruction", "document_instruction", "truncate_dim", "normalize", "pooling"),
        "trust_remote_code",
    }
    assert stored["class_name"] == "M3Embedding"
    assert (stored["query_instruction"], stored["document_instruction"]) == ("q: ", "")
    assert M3Embedding.from_dict(json.loads(embedding.to_json())).to_dict() == stored
    for idle in (
        {"device": "cpu"},
        {"embed_batch_size": 3},
        {"num_workers": 2},
        {"show_progress": True},
        {"reuse_encodings": False},
        {"local_files_only": True},
        {"token": "secret"},
        {"embeddings_cache": SimpleKVStore()},
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            other = M3Embedding.from_dict(stored, **idle)
        assert other.to_dict() == stored
        assert "secret" not in repr(other)
    # Of a given encoder, its own options.
    given = encoder.with_options(truncate_dim=8, document_instruction="d: ", pooling="mean")
    stored = M3Embedding(encoder=given).to_dict()
    assert (stored["model_name"], stored["dtype"]) == (encoder.name, "float32")
    assert (stored["truncate_dim"], stored["pooling"]) == (8, "mean")
    assert stored["document_instruction"] == "d: "


def test_the_models_own_instructions_and_length_show(tiny_bge: Path, tmp_path: Path) -> None:
    (tmp_path / "bge-small-zh-v1.5").symlink_to(tiny_bge)
    debug = LlamaDebugHandler(print_trace_on_end=False)
    embedding = M3Embedding(
        model_name=str(tmp_path / "bge-small-zh-v1.5"), callback_manager=CallbackManager([debug])
    )
    assert embedding.query_instruction == "为这个句子生成表示以用于检索相关文章："
    assert embedding.max_length == 512
    assert "为这个句子生成表示以用于检索相关文章" in repr(embedding)
    embedding.get_query_embedding("大熊猫")
    ((start, _),) = debug.get_event_pairs(CBEventType.EMBEDDING)
    assert start.payload["serialized"] == {
        "class_name": "M3Embedding",
        "model_name": str(tmp_path / "bge-small-zh-v1.5"),
        "embed_batch_size": 1024,
        "max_length": 512,
        "query_instruction": embedding.query_instruction,
        "document_instruction": "",
    }


def test_what_needs_no_other_model_is_assigned(tiny_m3: Path) -> None:
    own = M3Embedding(model_name=str(tiny_m3))
    with pytest.raises(ValidationError, match="frozen"):
        own.model_name = "other"
    with pytest.raises(ValidationError):
        own.embed_batch_size = 0
    own.embed_batch_size = 7
    own.callback_manager = CallbackManager([])
    own.query_instruction = "other: "
    made = M3Embedding(model_name=str(tiny_m3), query_instruction="other: ")
    assert own.get_query_embedding("panda") == made.get_query_embedding("panda")
    assert own.to_dict() == made.to_dict()
    assert own.to_payload()["query_instruction"] == "other: "


def test_a_cache_of_vectors_does_not_outlive_their_options(tiny_m3: Path) -> None:
    own = M3Embedding(model_name=str(tiny_m3), embeddings_cache=SimpleKVStore())
    for name, value in (("query_instruction", "q: "), ("truncate_dim", 8), ("max_length", 9)):
        with pytest.raises(ValueError, match=r"embeddings_cache.*make a new object"):
            setattr(own, name, value)
        assert getattr(own, name) != value
    own.embeddings_cache = None
    own.truncate_dim = 8
    assert len(own.get_query_embedding("panda")) == 8


def test_pickles_load_on_first_use(embedding: M3Embedding, encoder: Encoder) -> None:
    again = pickle.loads(pickle.dumps(embedding))
    assert again._encodings._opened is None
    assert again.to_dict() == embedding.to_dict()
    assert again.to_payload() == embedding.to_payload()
    twice = pickle.loads(pickle.dumps(again))
    assert again._encodings._opened is None
    expected = embedding.get_query_embedding("panda")
    for other in (again, twice, copy.deepcopy(embedding)):
        assert other.get_query_embedding("panda") == expected
    given = M3Embedding(encoder=encoder, truncate_dim=8)
    again = pickle.loads(pickle.dumps(given))
    assert given.encoder is encoder
    assert again.get_query_embedding("panda") == given.get_query_embedding("panda")


async def test_a_pickled_one_loads_off_the_event_loop(embedding: M3Embedding) -> None:
    again = pickle.loads(pickle.dumps(embedding))
    expected = embedding.get_query_embedding("panda")
    assert await again.aget_query_embedding("panda") == expected


class _Unpicklable(LlamaDebugHandler):
    def __reduce__(self):
        raise TypeError("no")


def test_what_cannot_be_pickled_stays_with_the_original(embedding, caplog) -> None:
    manager = CallbackManager([_Unpicklable(print_trace_on_end=False)])
    embedding.callback_manager = manager
    again = pickle.loads(pickle.dumps(embedding))
    assert embedding.callback_manager is manager
    assert again.callback_manager.handlers == []
    assert again.get_query_embedding("panda") == embedding.get_query_embedding("panda")


def test_an_instruction_beside_the_cache_by_text_is_warned_of(tiny_m3: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = M3Embedding(model_name=str(tiny_m3), embeddings_cache=SimpleKVStore())
    assert plain.get_text_embedding("panda") == plain.get_text_embedding("panda")
    with pytest.warns(UserWarning, match="finds vectors by the text alone") as caught:
        mixed = M3Embedding(
            model_name=str(tiny_m3), query_instruction="q: ", embeddings_cache=SimpleKVStore()
        )
    assert len(caught) == 1
    assert Path(caught[0].filename) == Path(__file__)
    # What the warning is about.
    assert mixed.get_text_embedding("panda") == mixed.get_query_embedding("panda")
    with pytest.raises(TypeError, match="BaseKVStore"):
        M3Embedding(model_name=str(tiny_m3), embeddings_cache={})


def test_a_loaded_encoder_is_shared(encoder: Encoder) -> None:
    embedding = M3Embedding(encoder=encoder, truncate_dim=8)
    assert len(embedding.get_query_embedding("panda")) == 8
    with pytest.raises(ValueError, match="local_files_only cannot be set"):
        M3Embedding(encoder=encoder, local_files_only=True)
    with pytest.raises(TypeError, match="must be an m3_core"):
        M3Embedding(encoder="BAAI/bge-m3")


def test_bad_options(encoder: Encoder, tmp_path: Path) -> None:
    for options in (
        {"embed_batch_size": 0},
        {"modle_name": "BAAI/bge-m3"},
        {"pooling": "max"},
        {"max_length": 0},
        {"truncate_dim": 99},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            M3Embedding(encoder=encoder, **options)
    with pytest.raises(CheckpointNotFoundError):
        M3Embedding(model_name=str(tmp_path / "nothing"), local_files_only=True)


async def test_bad_texts(embedding: M3Embedding) -> None:
    for wrong in (None, b"panda", 3):
        with pytest.raises(TypeError, match="text 1 is of type"):
            embedding.get_text_embedding_batch(["panda", wrong])
        with pytest.raises(TypeError, match="text 1 is of type"):
            await embedding.aget_text_embedding_batch(["panda", wrong])
        with pytest.raises(TypeError, match="text 0 is of type"):
            embedding.get_query_embedding(wrong)
    with pytest.raises(ValueError, match="lone surrogate"):
        embedding.get_text_embedding("\ud800")
    assert embedding.get_text_embedding_batch([]) == []
    assert await embedding.aget_text_embedding_batch([]) == []


def test_as_the_embedding_of_the_settings(embedding: M3Embedding) -> None:
    before = Settings._embed_model
    try:
        Settings.embed_model = embedding
        index = VectorStoreIndex([TextNode(text="panda", id_="1"), TextNode(text="мир", id_="2")])
        (found,) = index.as_retriever(similarity_top_k=1).retrieve("panda")
    finally:
        Settings._embed_model = before
    query, vector = (
        np.array(embed("panda"))
        for embed in (embedding.get_query_embedding, embedding.get_text_embedding)
    )
    scores = {"1": query @ vector, "2": query @ embedding.get_text_embedding("мир")}
    assert found.node_id == max(scores, key=scores.get)
    assert found.score == pytest.approx(max(scores.values()), abs=1e-5)
