"""``RemoteEncoder`` against servers of this machine: ours, others', and what these cannot do."""

from __future__ import annotations

import asyncio
import pickle
import threading

import numpy as np
import pytest
from pydantic import SecretStr
from tests.forking import HAS_FORK, in_child
from tests.serving import M3App, OpenAIApp, TeiApp, serving, vllm_token

from m3_core import M3Error, RemoteEncoder
from m3_core.encoder import CachedEncoder, shared_remote
from m3_core.errors import (
    ClosedError,
    MissingRepresentationError,
    ModelChangedError,
    RemoteError,
)
from m3_core.testing import FakeEncoder

TEXTS = [f"text {i} of {i % 7} words" for i in range(100)]


def encodes(app) -> list[dict]:
    return [body for path, body in app.bodies if path == "/v1/encode"]


@pytest.mark.parametrize("as_json", [False, True])
async def test_it_gives_what_the_servers_encoder_gives(as_json) -> None:
    local = FakeEncoder(query_instruction="question: ")
    app = M3App(local, as_json=as_json)
    with serving(app) as url:
        remote = RemoteEncoder(f"{url}/v1/")
        for name in ("name", "representations", "dimension", "max_length", "query_instruction"):
            assert getattr(remote, name) == getattr(local, name)
        assert remote.fingerprint(("sparse", "dense")) == local.fingerprint(("sparse", "dense"))
        expected = local.encode_queries(TEXTS, True, True, True)
        found = remote.encode_queries(TEXTS, True, True, True, show_progress=True)
        np.testing.assert_array_equal(found.dense_vecs, expected.dense_vecs)
        np.testing.assert_array_equal(found.colbert_vecs.vectors, expected.colbert_vecs.vectors)
        assert list(found.lexical_weights) == list(expected.lexical_weights)
        assert found.lexical_weights.vocabulary_size == 250_004
        remote.close()


def test_dense_and_sparse_of_one_text_are_one_request() -> None:
    app = M3App()
    with serving(app) as url:
        dense = CachedEncoder(shared_remote(url), ("dense",))
        sparse = CachedEncoder(shared_remote(f"{url}/v1"), ("sparse",))
        assert dense.encoder is sparse.encoder
        assert dense.documents(TEXTS[:9]).dense_vecs.shape == (9, 32)
        assert len(sparse.documents(TEXTS[:9]).lexical_weights) == 9
        assert [sorted(body["representations"]) for body in encodes(app)] == [["dense", "sparse"]]
        assert app.asked == {"/v1/models": 1, "/v1/encode": 1}
        assert dense.encoder.stats().texts == 9
        dense.close()


def test_large_inputs_are_split_and_come_back_in_order() -> None:
    # It says that it takes 16, and takes 5.
    app = M3App(limits={"max_texts": 16, "max_characters": 10_000, "really": 5})
    busy, most = [0], [0]
    encode = app.encode

    def noting(asked, headers):
        with app.lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        try:
            return encode(asked, headers)
        finally:
            with app.lock:
                busy[0] -= 1

    app.encode = noting
    with serving(app) as url:
        remote = RemoteEncoder(url, in_flight=3)
        found = remote.encode_documents(TEXTS)
        np.testing.assert_array_equal(
            found.dense_vecs, FakeEncoder().encode_documents(TEXTS).dense_vecs
        )
        assert most[0] <= 3
        sizes = [len(body["texts"]) for body in encodes(app)]
        assert max(sizes) == 16
        small = RemoteEncoder(url, max_texts=4, max_characters=60)
        app.bodies.clear()
        small.encode_documents([*TEXTS[:6], "x" * 100, "y"])
        # In the order in which they came: several are under way at once.
        assert sorted(len(body["texts"]) for body in encodes(app)) == [1, 1, 3, 3]
        small.close()
        remote.close()


def test_lengths() -> None:
    app = M3App(FakeEncoder(max_length=100))
    with serving(app) as url:
        remote = RemoteEncoder(url, max_length=5)
        assert remote.max_length == 5
        short = remote.encode_documents(["a b c d e"], False, False, True)
        assert len(short.colbert_vecs[0]) == 4
        assert remote.fingerprint() not in (RemoteEncoder(url).fingerprint(), "")
        assert remote.with_options(max_length=None).fingerprint() == app.encoder.fingerprint()
        remote.encode_documents(["a"], max_length=50)
        assert [body["max_length"] for body in encodes(app)] == [5, 50]
        for length in (0, 101, 2.5, "a"):
            with pytest.raises(ValueError, match="from 1 to the server's 100"):
                remote.encode_documents(["a"], max_length=length)
        with pytest.raises(ValueError, match="puts its own"):
            RemoteEncoder(url, query_instruction="q: ").encode_queries(["a"])
        with pytest.raises(ValueError, match="dtype cannot be set"):
            remote.with_options(dtype="float16")
        remote.close()


def test_keys(monkeypatch) -> None:
    app = M3App(key="hush-hush")
    with serving(app) as url:
        for wrong in (None, "other"):
            with pytest.raises(RemoteError, match=r"401.*M3_API_KEY") as refused:
                RemoteEncoder(url, wrong).encode_queries(["a"])
            assert refused.value.status == 401
        given = RemoteEncoder(url, SecretStr("hush-hush"), headers={"X-Team": "bears"})
        given.encode_queries(["a"])
        assert app.headers["X-Team"] == "bears"
        assert "hush" not in repr(given) + repr(given._service.http.options)
        assert "bears" not in repr(given._service.http.options)
        monkeypatch.setenv("M3_API_KEY", "hush-hush")
        of_environment = RemoteEncoder(url)
        of_environment.encode_queries(["a"])
        assert b"hush" not in pickle.dumps(of_environment)
        assert b"hush" in pickle.dumps(given)
        for key in ("a\nb", "schlüssel"):
            with pytest.raises(ValueError, match="api_key") as error:
                RemoteEncoder(url, key)
            assert key not in str(error.value)
        with pytest.raises(TypeError, match="api_key must be a str"):
            RemoteEncoder(url, 5)
        for value in ("a\r\nhush", "hüsh", " hush", 5):
            with pytest.raises(ValueError, match="the header X-Team") as error:
                RemoteEncoder(url, headers={"X-Team": value})
            assert "sh" not in str(error.value)
        with pytest.raises(ValueError, match="no name of an HTTP header"):
            RemoteEncoder(url, headers={"X Team": "bears"})
        for one in (given, of_environment):
            one.close()


def test_keys_are_taken_from_files_and_lists(monkeypatch) -> None:
    """A secret that is mounted ends with a newline; servers take several keys of the variable."""
    app = M3App(key="hush-hush")
    with serving(app) as url:
        for given in (" hush-hush ", "hush-hush\n"):
            one = RemoteEncoder(url, given)
            one.encode_queries(["a"])
            one.close()
        monkeypatch.setenv("M3_API_KEY", "hush-hush the-former\n")
        one = RemoteEncoder(url)
        one.encode_queries(["a"])
        one.close()


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch) -> None:
    app = M3App()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving(app) as url:
        one = RemoteEncoder(url, retries=0)
        assert one.dimension == app.encoder.dimension
        one.close()
        # Others are asked by way of it.
        with serving(M3App()) as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy)
            monkeypatch.setenv("http_proxy", proxy)
            away = RemoteEncoder("http://gpu-host.invalid", retries=0)
            with pytest.raises(RemoteError, match="is no server of m3-retrieval"):
                away.dimension  # noqa: B018
            away.close()


@pytest.mark.parametrize(
    "url", ["", "host:80", "ftp://host", "http://", "http://a?b", "http://a:b", "http://[::1", None]
)
def test_what_is_no_address(url) -> None:
    with pytest.raises(ValueError, match="address"):
        RemoteEncoder(url)


def test_passwords_in_addresses_are_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="api_key=") as error:
        RemoteEncoder("http://me:hush@host")
    assert "hush" not in str(error.value)


def test_wrong_options_are_refused() -> None:
    wrong = {"timeout": 0, "retries": -1, "in_flight": 0, "max_texts": 0, "protocol": "grpc"}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name):
            RemoteEncoder("http://host", **{name: value})


def test_a_server_with_another_model_is_an_error_for_ever() -> None:
    app = M3App()
    with serving(app) as url:
        remote = shared_remote(url)
        remote.encode_queries(["a"])
        app.encoder = FakeEncoder(document_instruction="passage: ")
        with pytest.raises(ModelChangedError, match="answers with vectors"):
            remote.encode_documents(["a"])
        # Also where what it gives would still be the same.
        app.encoder = FakeEncoder()
        with pytest.raises(ModelChangedError):
            remote.encode_queries(["a"])
        assert remote.is_outdated
        assert shared_remote(url) is not remote
        shared_remote(url).encode_queries(["a"])
        remote.close()


def test_choosing_a_model() -> None:
    app = M3App()
    with serving(app) as url:
        assert RemoteEncoder(url, model="fake").dimension == 32
        for wrong in ("judge", "other"):
            with pytest.raises(RemoteError, match="it has fake"):
                RemoteEncoder(url, model=wrong).dimension  # noqa: B018


def test_scores_of_pairs() -> None:
    pairs = [(f"bears eat {i}", f"fish and {i}") for i in range(70)]
    with serving(M3App()) as url:
        remote = RemoteEncoder(url)
        scores = remote.compute_score(pairs, (1, 0.3, 1))
        assert {len(one) for one in scores.values()} == {70}
        alone = remote.compute_score(pairs[-1:], (1, 0.3, 1))
        for name, values in alone.items():
            assert values == pytest.approx(scores[name][-1:], abs=1e-6)
        assert remote.compute_score([])["dense"] == []
        remote.close()


@pytest.mark.skipif(not HAS_FORK, reason="there is no fork here")
def test_forked_children_ask_by_connections_of_their_own() -> None:
    with serving(M3App()) as url:
        remote = RemoteEncoder(url)
        expected = remote.encode_queries(["a b"]).dense_vecs
        stop = threading.Event()

        def keep_asking() -> None:
            while not stop.is_set():
                remote.encode_queries(["b"])

        thread = threading.Thread(target=keep_asking)
        thread.start()
        try:
            for _ in range(3):
                found = in_child(
                    lambda: np.array_equal(remote.encode_queries(["a b"]).dense_vecs, expected)
                )
                assert found == 0
        finally:
            stop.set()
            thread.join()
        np.testing.assert_array_equal(remote.encode_queries(["a b"]).dense_vecs, expected)
        remote.close()


def test_pickled_it_is_one_a_process() -> None:
    with serving(M3App()) as url:
        remote = shared_remote(url, max_texts=7)
        assert pickle.loads(pickle.dumps(remote)) is remote
        short = remote.with_options(max_length=9)
        again = pickle.loads(pickle.dumps(short))
        assert again.max_length == 9
        assert again.origin is remote.origin
        remote.close()
        assert shared_remote(url, max_texts=7) is not remote


async def test_who_is_cancelled_leaves_and_others_stay() -> None:
    app, entered = M3App(), threading.Event()
    go = threading.Event()
    encode = app.encode

    def slow(asked, headers):
        if asked["texts"] == ["slow"]:
            entered.set()
            go.wait(30)
        return encode(asked, headers)

    app.encode = slow
    with serving(app) as url:
        remote = RemoteEncoder(url)
        remote.encode_queries(["a"])
        task = asyncio.create_task(remote.aencode_queries(["slow"]))
        while not entered.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        assert len(await remote.aencode_queries(["b"])) == 1
        remote.close()


def test_closed_it_closes_all_over_its_connection() -> None:
    with serving(M3App()) as url:
        remote = RemoteEncoder(url)
        other = remote.with_options(max_length=5)
        assert other.origin is remote.origin
        remote.close()
        assert other.closed
        with pytest.raises(ClosedError):
            other.encode_queries(["a"])


def test_tei() -> None:
    app = TeiApp("dense", name="BAAI/bge-base-en-v1.5")
    with serving(app) as url:
        remote = RemoteEncoder(url)
        assert (remote.name, remote.max_length) == ("BAAI/bge-base-en-v1.5", 512)
        assert remote.representations == {"dense"}
        # Of a model that is known, as its makers say.
        before = "Represent this sentence for searching relevant passages: "
        assert remote.query_instruction == before
        found = remote.encode_queries(TEXTS)
        expected = FakeEncoder().encode_documents([before + text for text in TEXTS])
        np.testing.assert_allclose(found.dense_vecs, expected.dense_vecs, atol=1e-6)
        assert max(len(body["inputs"]) for path, body in app.bodies) == 4
        with pytest.raises(MissingRepresentationError, match=r"sparse.*m3-retrieval serve"):
            remote.encode_documents(["a"], return_sparse=True)
        with pytest.raises(ValueError, match="cuts texts at its own length of 512"):
            remote.encode_documents(["a"], max_length=100)
        plain = remote.with_options(query_instruction="")
        assert plain.fingerprint(queries=True) != remote.fingerprint(queries=True)
        assert plain.fingerprint() == remote.fingerprint()
        with pytest.raises(RemoteError, match="no model 'other'"):
            RemoteEncoder(url, model="other").dimension  # noqa: B018
        remote.close()


def test_sparse_weights_of_tei_are_merged_as_flagembedding_does() -> None:
    with serving(TeiApp("sparse", name="splade")) as url:
        remote = RemoteEncoder(url)
        assert remote.representations == {"sparse"}
        assert remote.dimension == 0
        found = remote.encode_documents(["bears eat bears"], False, True).lexical_weights[0]
        expected = FakeEncoder().encode_documents(["bears eat bears"], False, True)
        assert found == expected.lexical_weights[0]
        remote.close()


@pytest.mark.parametrize("base64s", [True, False])
@pytest.mark.parametrize("prefix", ["/v1", ""])
def test_openai_and_infinity(base64s, prefix) -> None:
    app = OpenAIApp("infinity", prefix, base64s)
    with serving(app) as url:
        remote = RemoteEncoder(url, document_instruction="passage: ")
        found = remote.encode_documents(TEXTS)
        expected = FakeEncoder().encode_documents([f"passage: {text}" for text in TEXTS])
        np.testing.assert_allclose(found.dense_vecs, expected.dense_vecs, atol=1e-6)
        with pytest.raises(MissingRepresentationError):
            remote.compute_score([("a", "b")])
        app.names = ["one", "two"]
        with pytest.raises(RemoteError, match="name the model: the server has one, two"):
            RemoteEncoder(url).dimension  # noqa: B018
        assert RemoteEncoder(url, model="two").name == "two"
        remote.close()


def test_weights_of_vllm() -> None:
    with serving(OpenAIApp("vllm")) as url:
        remote = RemoteEncoder(url)
        assert remote.representations == {"dense", "sparse"}
        reps = remote.encode_documents(["the bears eat Bears ?", "", "eat"], return_sparse=True)
        bears, eat = vllm_token("bears"), vllm_token("eat")
        assert list(reps.lexical_weights) == [{bears: 0.625, eat: 0.375}, {}, {eat: 0.375}]
        remote.close()


def test_another_model_of_a_foreign_server_is_noticed(monkeypatch) -> None:
    for app in (TeiApp(), OpenAIApp()):
        with serving(app) as url:
            remote = RemoteEncoder(url)
            remote.encode_queries(["a"])
            if isinstance(app, TeiApp):
                app.sha = "2"
            else:
                app.names = ["other"]
            remote.encode_queries(["a"])
            monkeypatch.setattr(remote._service, "_trusted_until", 0.0)
            with pytest.raises(ModelChangedError, match="had"):
                remote.encode_queries(["a"])
            app.encoder = FakeEncoder(16)
            again = RemoteEncoder(url)
            assert again.dimension == 16
            app.encoder = FakeEncoder(8)
            with pytest.raises(ModelChangedError, match="width 8"):
                again.encode_queries(["a"])


def test_what_is_no_known_server() -> None:
    class Empty(M3App):
        def reply(self, path, asked, headers):
            return {"hello": "world"}

    with serving(Empty()) as url:
        with pytest.raises(RemoteError, match="is no server of m3-retrieval"):
            RemoteEncoder(url).dimension  # noqa: B018
        with pytest.raises(RemoteError, match="of the kind 'tei'"):
            RemoteEncoder(url, protocol="tei").dimension  # noqa: B018
    with serving(TeiApp("rerank")) as url, pytest.raises(RemoteError, match="no embedding model"):
        RemoteEncoder(url).dimension  # noqa: B018


def test_an_error_of_the_core_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(RemoteError("why", 503)))
    assert (str(error), error.status) == ("why", 503)
    assert isinstance(error, M3Error)
