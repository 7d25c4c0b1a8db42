from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from pydantic import ValidationError
from tests.table import table

from langchain_m3 import HuggingFaceBgeEmbeddings, M3Embeddings
from m3_core import Encoder


class _Params:
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return M3Embeddings

    @property
    def embedding_model_params(self) -> dict:
        return {"model_name": str(table())}


class TestStandardUnit(_Params, EmbeddingsUnitTests):
    pass


class TestStandardIntegration(_Params, EmbeddingsIntegrationTests):
    pass


def test_vectors_are_the_cores(tiny_m3: Path, encoder: Encoder) -> None:
    embeddings = M3Embeddings(
        model_name=str(tiny_m3), dtype="float32", query_instruction="q: ", truncate_dim=8
    )
    core = encoder.with_options(query_instruction="q: ", truncate_dim=8)
    texts = ["panda\nbear", "", "мир"]
    np.testing.assert_allclose(
        embeddings.embed_documents(texts), core.encode_documents(texts).dense_vecs, atol=1e-6
    )
    np.testing.assert_allclose(
        embeddings.embed_query("panda"), core.encode_queries(["panda"]).dense_vecs[0], atol=1e-6
    )
    assert embeddings.embed_documents([]) == []


async def test_async_equals_sync(tiny_m3: Path) -> None:
    embeddings = M3Embeddings(model_name=str(tiny_m3))
    assert await embeddings.aembed_query("panda") == embeddings.embed_query("panda")
    texts = ["panda", "bear river"]
    assert await embeddings.aembed_documents(texts) == embeddings.embed_documents(texts)


def test_a_loaded_encoder_is_shared(encoder: Encoder) -> None:
    first = M3Embeddings(encoder=encoder)
    second = M3Embeddings(encoder=encoder, query_instruction="q: ")
    assert first.embed_documents(["panda"]) == second.embed_documents(["panda"])
    assert first.embed_query("panda") != second.embed_query("panda")
    with pytest.raises(ValueError, match="device cannot be set together with encoder="):
        M3Embeddings(encoder=encoder, device="cpu")
    with pytest.raises(TypeError, match="got str"):
        M3Embeddings(encoder="BAAI/bge-m3")


def test_pickling_keeps_options_and_vectors(tiny_m3: Path) -> None:
    embeddings = M3Embeddings(model_name=str(tiny_m3), query_instruction="q: ")
    again = pickle.loads(pickle.dumps(embeddings))
    assert again.model_dump() == embeddings.model_dump()
    assert again.embed_query("panda") == embeddings.embed_query("panda")


def test_unknown_options_and_wrong_input_are_refused(tiny_m3: Path) -> None:
    with pytest.raises(ValidationError, match="modle_name"):
        M3Embeddings(modle_name="BAAI/bge-m3")
    embeddings = M3Embeddings(model_name=str(tiny_m3), token="secret")
    assert "secret" not in repr(embeddings)
    with pytest.raises(TypeError, match="text 0"):
        embeddings.embed_documents([None])


def test_the_bge_class_gives_an_m3_model_its_own_instructions(m3_small) -> None:
    with pytest.warns(UserWarning, match="queries get 'query: ', texts 'passage: '"):
        embeddings = HuggingFaceBgeEmbeddings(
            model_name="m3-small", encode_kwargs={"normalize_embeddings": True}
        )
    query = m3_small.encode_queries(["what do pandas eat?"]).dense_vecs[0]
    document = m3_small.encode_documents(["Pandas eat bamboo."]).dense_vecs
    np.testing.assert_allclose(embeddings.embed_query("what do pandas eat?"), query, atol=1e-5)
    np.testing.assert_allclose(
        embeddings.embed_documents(["Pandas eat bamboo."]), document, atol=1e-5
    )
