"""``RemoteReranker`` against servers of this machine."""

from __future__ import annotations

import asyncio
import json
import pickle

import pytest
from tests.serving import M3App, OpenAIApp, TeiApp, judged, serving

from m3_core import Cascade, RemoteEncoder, RemoteReranker, Reranker
from m3_core.errors import BadReplyError, ClosedError, ModelChangedError, RemoteError
from m3_core.rerankers import TextReranker, shared_remote_reranker
from m3_core.testing.rerankers import tiny_reranker

PAIRS = [(f"what do {i % 3} bears eat", f"bears eat {i} fish") for i in range(150)]
RAW = [judged(query, text) for query, text in PAIRS]


def sigmoid(raw: list[float]) -> list[float]:
    import math

    return [1 / (1 + math.exp(-one)) for one in raw]


async def test_ours() -> None:
    app = M3App(key="hush")
    with serving(app) as url:
        reranker = RemoteReranker(f"{url}/v1", "hush")
        assert isinstance(reranker, TextReranker)
        assert reranker.name == "judge"
        assert reranker.compute_score(PAIRS, show_progress=True) == pytest.approx(RAW)
        assert await reranker.acompute_score(PAIRS, True) == pytest.approx(sigmoid(RAW))
        assert app.asked["/v1/score"] == 6
        assert reranker.compute_score([]) == await reranker.acompute_score([]) == []
        ranked = reranker.rank("bears eat fish", ["a city", "bears eat fish"], 1)
        assert ranked == await reranker.arank("bears eat fish", ["a city", "bears eat fish"], 1)
        assert [i for i, _ in ranked] == [1]
        assert "hush" not in repr(reranker)
        for wrong in (["a"], [("a",)], "ab"):
            with pytest.raises(TypeError):
                reranker.compute_score(wrong)
        again = pickle.loads(pickle.dumps(reranker))
        assert again.compute_score(PAIRS[:2]) == pytest.approx(RAW[:2])
        assert again is shared_remote_reranker(url, "hush")
        reranker.close()
        with pytest.raises(ClosedError):
            reranker.compute_score(PAIRS)
        again.close()


def test_tei() -> None:
    app = TeiApp("rerank")
    with serving(app) as url:
        reranker = RemoteReranker(url)
        assert reranker.compute_score(PAIRS) == pytest.approx(RAW)
        assert reranker.compute_score(PAIRS, True) == pytest.approx(sigmoid(RAW))
        assert max(len(body["texts"]) for _, body in app.bodies) <= 4
        reranker.close()
    with serving(TeiApp("dense")) as url, pytest.raises(RemoteError, match="is no reranker"):
        RemoteReranker(url).name  # noqa: B018


@pytest.mark.parametrize("protocol", ["auto", "jina"])
def test_jina_as_infinity_and_vllm_have_it(protocol) -> None:
    with serving(OpenAIApp("infinity")) as url:
        reranker = RemoteReranker(url, model="embedder", protocol=protocol)
        assert reranker.compute_score(PAIRS, True) == pytest.approx(sigmoid(RAW))
        with pytest.raises(ValueError, match="no raw ones: set normalize=True"):
            reranker.compute_score(PAIRS)
        reranker.close()


def test_cohere() -> None:
    class Cohere(OpenAIApp):
        def reply(self, path, asked, headers):
            return super().reply(path.replace("/v2", "/v1"), asked, headers)

    app = Cohere()
    with serving(app) as url:
        reranker = RemoteReranker(url, "key", model="rerank-v3.5", protocol="cohere")
        assert reranker.compute_score(PAIRS[:5], True) == pytest.approx(sigmoid(RAW[:5]))
        assert app.bodies[0][0] == "/v2/rerank"
        assert app.bodies[0][1]["model"] == "rerank-v3.5"
        reranker.close()
    with pytest.raises(ValueError, match="name the model"):
        RemoteReranker("http://host", protocol="cohere")


@pytest.mark.parametrize(
    "reply",
    [
        None,
        {"model": "judge", "scores": [1.0]},
        {"model": "judge", "scores": [1.0, "a"]},
        {"model": "judge", "scores": [1.0, float("nan")]},
        {"model": "judge", "scores": [1.0, True]},
        {"model": "judge"},
        [1.0, 2.0],
    ],
)
def test_what_is_no_score_is_an_error(reply) -> None:
    class Odd(M3App):
        def score(self, asked):
            return json.loads(json.dumps(reply))

    with serving(Odd()) as url:
        reranker = RemoteReranker(url)
        with pytest.raises(BadReplyError, match="asked for 2 scores"):
            reranker.compute_score(PAIRS[:2])
        reranker.close()


def test_another_model_is_an_error() -> None:
    class Other(M3App):
        def score(self, asked):
            return {"model": "other", "scores": [1.0] * len(asked["pairs"])}

    with serving(Other()) as url:
        reranker = RemoteReranker(url)
        with pytest.raises(ModelChangedError, match="asked 'judge', 'other' answers"):
            reranker.compute_score(PAIRS[:2])
        reranker.close()


def test_a_cascade_of_two_remote_steps(tmp_path) -> None:
    texts = ["pandas eat bamboo", "bears eat fish", "a river in the city"]
    with serving(M3App()) as url:
        encoder, reranker = RemoteEncoder(url), RemoteReranker(url)
        cascade = Cascade(encoder, reranker, first=2)
        found = cascade.compute("pandas eat", texts)
        assert [one.index for one in found] == [0, 1]
        assert asyncio.run(cascade.acompute("pandas eat", texts)) == found
        local = Reranker.from_pretrained(tiny_reranker(tmp_path / "r"), device="cpu")
        assert isinstance(local, TextReranker)
        assert len(Cascade(encoder, local, first=2).compute("pandas eat", texts)) == 2
        encoder.close()
        reranker.close()
