"""Our own protocol, over a real socket."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
from tests.conftest import make_text
from tests.core.server.serving import running

from m3_core import wire
from m3_core.network import TruncationWarning
from m3_core.testing import FakeEncoder

TEXTS = [make_text(n, 3 + 5 * n) for n in range(6)] + [""]
FLAGS = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True}


def same(found, expected):
    np.testing.assert_allclose(found.dense_vecs, expected.dense_vecs, atol=1e-6)
    for name in ("lexical_weights", "colbert_vecs"):
        one, other = getattr(found, name), getattr(expected, name)
        np.testing.assert_array_equal(one.offsets, other.offsets)
    np.testing.assert_array_equal(
        found.lexical_weights.token_ids, expected.lexical_weights.token_ids
    )
    np.testing.assert_allclose(
        found.lexical_weights.weights, expected.lexical_weights.weights, atol=1e-6
    )
    np.testing.assert_allclose(found.colbert_vecs.vectors, expected.colbert_vecs.vectors, atol=1e-6)


@pytest.mark.parametrize("role", ["query", "document"])
@pytest.mark.parametrize("accept", ["application/json", *wire.MEDIA_TYPES])
def test_all_representations_come_in_one_reply(client, served_encoder, role, accept):
    body = {"texts": TEXTS, "role": role}
    reply = client.post("/v1/encode", json=body, headers={"Accept": accept})
    assert reply.status_code == 200
    binary = accept != "application/json"
    encoded = wire.from_body(reply.content) if binary else wire.from_json(reply.json())
    encode = served_encoder.encode_queries if role == "query" else served_encoder.encode_documents
    same(encoded.reps, encode(TEXTS, **FLAGS))
    parts = ("dense", "sparse", "colbert")
    assert encoded.fingerprint == served_encoder.fingerprint(parts, queries=role == "query")
    instruction = getattr(served_encoder, f"{role}_instruction")
    pieces = served_encoder.token_pieces([instruction + text for text in TEXTS])
    assert (encoded.model, encoded.role, encoded.tokens) == ("m3", role, sum(map(len, pieces)))


def test_only_what_is_asked_for_is_computed_and_sent(client, served_encoder):
    body = {"texts": "panda", "representations": ["sparse"], "max_length": 3, "model": "m3"}
    answer = client.post("/v1/encode", json=body)
    assert answer.headers["x-truncated-texts"] == "1"
    reply = answer.json()
    assert {"dense_vecs", "colbert_vecs"}.isdisjoint(reply)
    with pytest.warns(TruncationWarning):
        cut = served_encoder.encode_documents(["panda"], False, True, max_length=3)
    assert reply["lexical_weights"] == [
        {str(token): pytest.approx(weight) for token, weight in cut.lexical_weights[0].items()}
    ]
    assert client.post("/v1/encode", json={"texts": []}).json()["dense_vecs"] == []


def test_pairs_are_scored_with_weights_as_locally(client, served_encoder, served_reranker):
    pairs = [(TEXTS[0], TEXTS[n]) for n in range(4)]
    weights = [0.4, 0.2, 0.4]
    body = {"pairs": pairs, "weights": weights, "model": "m3"}
    scores = client.post("/v1/score", json=body).json()["scores"]
    expected = served_encoder.compute_score(pairs, weights)
    assert scores.keys() == expected.keys()
    for key, values in expected.items():
        assert scores[key] == pytest.approx(values, abs=1e-6)
    for normalize in (False, True):
        found = client.post("/v1/score", json={"pairs": pairs, "normalize": normalize}).json()
        assert found["model"] == "judge"
        expected_scores = served_reranker.compute_score(pairs, normalize)
        assert found["scores"] == pytest.approx(expected_scores, abs=1e-6)


def test_models_say_what_clients_need(client, served_encoder):
    encoder, reranker = client.get("/v1/models").json()["data"]
    assert (encoder["id"], encoder["kind"], encoder["dimension"]) == ("m3", "encoder", 32)
    assert encoder["query_instruction"] == "query "
    for parts in (["dense"], ["dense", "colbert"], ["dense", "sparse", "colbert"]):
        for role in ("query", "document"):
            expected = served_encoder.fingerprint(parts, queries=role == "query")
            assert encoder["fingerprints"][role]["+".join(parts)] == expected
            asked = {"parts": ",".join(parts), "queries": str(role == "query").lower()}
            assert client.get("/v1/fingerprint", params=asked).json() == {"fingerprint": expected}
    assert (reranker["id"], reranker["kind"], reranker["max_length"]) == ("judge", "reranker", 64)
    assert client.get("/v1/models/judge").json() == reranker


def test_a_text_encoder_of_ones_own_is_served_too():
    fake = FakeEncoder(representations=("dense",))
    with running({"fake": fake}) as server:
        found = httpx.post(f"{server.url}/v1/encode", json={"texts": ["a panda"]})
        expected = fake.encode_documents(["a panda"]).dense_vecs
        np.testing.assert_allclose(found.json()["dense_vecs"], expected, atol=1e-6)
        body = {"texts": ["a panda"], "representations": ["sparse"]}
        refused = httpx.post(f"{server.url}/v1/encode", json=body)
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "missing_representation"
        documents = ["a panda", "a bear", "a river of pandas"]
        ranked = httpx.post(f"{server.url}/rerank", json={"query": "panda", "texts": documents})
        assert ranked.json()[0]["index"] == 0
