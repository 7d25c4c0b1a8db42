"""What others' protocols say beyond what their clients were seen to ask."""

from __future__ import annotations

import numpy as np
import pytest
from tests.conftest import make_text

TEXTS = [make_text(n, 3 + 4 * n) for n in range(5)]
QUERY = "panda river"


def ask(client, path, **body):
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def near(found, expected):
    np.testing.assert_allclose(np.array(found), expected, atol=1e-6)


def test_tei_embeds(client, served_encoder):
    whole = served_encoder.encode_documents(TEXTS, True, True, True)
    near(ask(client, "/embed", inputs=TEXTS), whole.dense_vecs)
    near(ask(client, "/embed", inputs=TEXTS[0]), whole.dense_vecs[:1])
    queries = served_encoder.encode_queries(TEXTS, True, True)
    near(ask(client, "/embed", inputs=TEXTS, prompt_name="query"), queries.dense_vecs)
    raw = served_encoder.with_options(normalize=False, truncate_dim=8).encode_documents(TEXTS)
    near(ask(client, "/embed", inputs=TEXTS, normalize=False, dimensions=8), raw.dense_vecs)
    for prompt, reps in ((None, whole), ("query", queries)):
        found = ask(client, "/embed_sparse", inputs=TEXTS, prompt_name=prompt)
        rows = [{one["index"]: one["value"] for one in row} for row in found]
        assert [sorted(row) for row in rows] == [sorted(row) for row in reps.lexical_weights]
        for row, expected in zip(rows, reps.lexical_weights, strict=True):
            assert row == pytest.approx(expected, abs=1e-6)
    for found, expected in zip(
        ask(client, "/embed_all", inputs=TEXTS), whole.colbert_vecs, strict=True
    ):
        near(found, expected)
    cosines = ask(
        client, "/similarity", inputs={"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}
    )
    near(cosines, whole.dense_vecs[1:] @ whole.dense_vecs[0])


def test_tei_shows_tokens_where_they_stand(client, served_encoder):
    (row,) = ask(client, "/tokenize", inputs="panda  大熊猫")
    assert [one["special"] for one in row] == [True, *[False] * (len(row) - 2), True]
    for one in row[1:-1]:
        assert one["text"] == "panda  大熊猫"[one["start"] : one["stop"]]
    ids = [one["id"] for one in row]
    weights = served_encoder.with_options(document_instruction="").encode_documents(
        ["panda  大熊猫"], False, True
    )
    assert set(weights.lexical_weights[0]) <= set(ids)
    (bare,) = ask(client, "/tokenize", inputs=["panda  大熊猫"], add_special_tokens=False)
    assert bare == row[1:-1]
    (asked,) = ask(client, "/tokenize", inputs="panda", prompt_name="query")
    assert len(asked) > 3


def test_tei_reranks_and_describes_itself(client, served_reranker):
    expected = served_reranker.rank(QUERY, TEXTS)
    found = ask(client, "/rerank", query=QUERY, texts=TEXTS, raw_scores=True, return_text=True)
    assert [(one["index"], one["text"]) for one in found] == [(i, TEXTS[i]) for i, _ in expected]
    near([one["score"] for one in found], [score for _, score in expected])
    info = client.get("/info").json()
    assert (info["model_id"], info["max_input_length"]) == ("m3", 128)
    assert info["model_type"] == {"embedding": {"pooling": "cls"}}
    for body in (
        {"inputs": "a", "truncation_direction": "Left"},
        {"inputs": "a", "prompt_name": "a poem"},
        {"inputs": [5, 6]},
    ):
        refused = client.post("/embed", json=body)
        assert refused.status_code in (400, 422)
        assert refused.json()["error_type"] == "Validation"


def test_jina_cohere_and_infinity_share_a_route(client, served_reranker):
    best = served_reranker.rank(QUERY, TEXTS, 2, normalize=True)
    for path in ("/v1/rerank", "/rerank"):
        found = ask(client, path, query=QUERY, documents=TEXTS, top_n=2, model="judge")
        results = found["results"]
        assert [one["index"] for one in results] == [index for index, _ in best]
        near([one["relevance_score"] for one in results], [score for _, score in best])
        assert [one["document"]["text"] for one in results] == [TEXTS[index] for index, _ in best]
        assert found["usage"]["total_tokens"] > 0
        assert found["meta"]["api_version"] == {"version": "1"}
    fields = [{"title": text, "n": str(n)} for n, text in enumerate(TEXTS)]
    body = {"query": QUERY, "documents": fields, "rank_fields": ["title"]}
    named = ask(client, "/v1/rerank", **body)["results"]
    expected = served_reranker.rank(QUERY, [f"title: {text}" for text in TEXTS], normalize=True)
    assert [one["index"] for one in named] == [index for index, _ in expected]
    assert "document" not in named[0]
    refused = client.post("/v1/rerank", json={"query": QUERY, "documents": fields})
    assert refused.status_code == 400
    assert "rank_fields" in refused.json()["detail"]


def test_an_encoder_reranks_by_all_its_scores(client, served_encoder):
    found = ask(client, "/v2/rerank", query=QUERY, documents=TEXTS, model="m3")["results"]
    scores = served_encoder.compute_score([(QUERY, text) for text in TEXTS])
    best = np.argsort([-one for one in scores["colbert+sparse+dense"]], kind="stable")
    assert [one["index"] for one in found] == best.tolist()


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_vllm_scores(client, served_encoder, served_reranker, path):
    pairs = [(QUERY, text) for text in TEXTS]
    expected = served_reranker.compute_score(pairs, normalize=True)
    for names in (("text_1", "text_2"), ("queries", "documents")):
        body = dict(zip(names, (QUERY, TEXTS), strict=True))
        found = ask(client, path, **body)
        assert [one["index"] for one in found["data"]] == list(range(len(TEXTS)))
        near([one["score"] for one in found["data"]], expected)
    found = ask(client, path, text_1=[QUERY] * 5, text_2=TEXTS, activation=False)["data"]
    near([one["score"] for one in found], served_reranker.compute_score(pairs))
    found = ask(client, path, text_1=QUERY, text_2=TEXTS, model="m3")["data"]
    near([one["score"] for one in found], served_encoder.compute_score(pairs)["dense"])
    refused = client.post(path, json={"text_1": ["a", "b"], "text_2": ["a", "b", "c"]})
    assert refused.status_code == 400
    assert "2 texts cannot be scored with 3" in refused.json()["error"]["message"]


def test_the_names_of_instructions_are_those_of_many(client, served_encoder):
    query = served_encoder.encode_queries(["a"]).dense_vecs[0]
    document = served_encoder.encode_documents(["a"]).dense_vecs[0]
    assert not np.allclose(query, document, atol=1e-3)
    for named, expected in (
        ({}, document),
        ({"input_type": "search_query"}, query),
        ({"input_type": "passage"}, document),
        ({"task": "retrieval.query"}, query),
        ({"prompt_name": "query", "input_type": "query"}, query),
    ):
        for path in ("/v1/embeddings", "/embeddings"):
            found = ask(client, path, input="a", **named)["data"][0]["embedding"]
            near(found, expected)
    for wrong in ({"input_type": "clustering"}, {"input_type": "query", "task": "document"}):
        refused = client.post("/v1/embeddings", json={"input": "a", **wrong})
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "unknown_role"
