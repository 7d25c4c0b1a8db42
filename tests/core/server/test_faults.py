"""What a server answers to whom it should not trust, and what it then does for the others."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import httpx
import pytest
from tests.core.server.conftest import KEY
from tests.core.server.serving import running
from tests.faults.server_attacks import ATTACKS, MARK, answer

from m3_core.testing import FakeEncoder

# Threads of the server log into what pytest records.
pytestmark = pytest.mark.usefixtures("caplog")


@pytest.fixture(scope="module")
def strict(served_encoder, served_reranker):
    with running(
        {"m3": served_encoder, "judge": served_reranker},
        api_keys=(KEY,),
        max_texts=32,
        max_tokens=1024,
        max_body_bytes=300_000,
        body_seconds=1.0,
    ) as one:
        yield one


def logged(caplog) -> str:
    return "\n".join(f"{one.getMessage()} {vars(one)}" for one in caplog.records)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda one: one.name)
def test_every_attack_gets_its_status_and_no_place_in_the_log(strict, caplog, attack):
    caplog.set_level(logging.DEBUG)
    for name in ("asyncio", "httpx", "httpcore"):
        caplog.set_level(logging.WARNING, name)
    assert asyncio.run(answer(strict.port, attack, KEY)) in attack.statuses
    honest = ATTACKS[0]
    assert asyncio.run(answer(strict.port, honest, KEY)) == 200
    assert MARK not in logged(caplog)
    until(lambda: strict.service.held_bytes == 0 and strict.service.running == 0)


def until(holds, seconds=60):
    ended = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ended
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("path", "body", "shape"),
    [
        ("/v1/encode", {"texts": 5}, ("error", "message")),
        ("/v1/embeddings", {"input": 5}, ("error", "message")),
        ("/score", {"text_1": 5}, ("error", "message")),
        ("/embed", {"inputs": 5}, ("error",)),
        ("/rerank", {"query": 5, "texts": []}, ("error",)),
        ("/v2/rerank", {"query": 5}, ("message",)),
        ("/v1/rerank", {"query": 5}, ("detail",)),
    ],
)
def test_errors_have_the_shape_of_the_protocol(strict, path, body, shape):
    for key, statuses in ((KEY, (400, 422)), ("wrong", (401,))):
        headers = {"Authorization": f"Bearer {key}"}
        reply = httpx.post(strict.url + path, json=body, headers=headers)
        assert reply.status_code in statuses
        told = reply.json()
        for name in shape:
            told = told[name]
        assert isinstance(told, str)
        assert told
        if path in ("/embed", "/rerank"):
            assert reply.json()["error_type"]


class Slow(FakeEncoder):
    """Encodes once it is let; says who gave up."""

    def __init__(self):
        super().__init__()
        self.let = threading.Event()
        self.waiting = self.given_up = 0

    async def _aencode(self, role, texts, *rest, **options):
        if "slow" in texts:
            self.waiting += 1
            try:
                while not self.let.is_set():
                    await asyncio.sleep(0.005)
            except asyncio.CancelledError:
                self.given_up += 1
                raise
            finally:
                self.waiting -= 1
        return self._encode(role, texts, *rest, **options)


def ask(server, text="slow", **more):
    with httpx.Client(timeout=120) as client:
        return client.post(f"{server.url}/v1/encode", json={"texts": text}, **more)


def in_thread(function, *args):
    found = []
    thread = threading.Thread(target=lambda: found.append(function(*args)))
    thread.start()
    return thread, found


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Bearer {KEY}", 200),
        (f"bearer {KEY}", 200),
        (f"Basic {KEY}", 401),
        (KEY, 401),
        ("Bearer", 401),
        (f"Bearer {KEY}{KEY}", 401),
        (f"Bearer {KEY} {KEY}", 401),
        ("Bearer schlüssel".encode(), 401),
        (None, 401),
    ],
)
def test_the_scheme_is_the_same_in_any_case_and_the_key_is_not(strict, header, status):
    headers = {} if header is None else {"Authorization": header}
    request = httpx.Request("GET", f"{strict.url}/v1/models", headers=headers)
    with httpx.HTTPTransport() as transport:
        assert transport.handle_request(request).status_code == status


def test_nobody_is_sent_to_another_address(strict):
    headers = {"Authorization": f"Bearer {KEY}", "Host": "elsewhere.invalid"}
    with httpx.Client(base_url=strict.url, headers=headers) as client:
        for path in ("/v1/models/", "/v1/encode/", "/health/"):
            assert client.get(path).status_code == 404


def test_a_full_server_says_when_to_ask_again():
    slow = Slow()
    with running({"slow": slow}, max_requests=1) as server:
        first, found = in_thread(ask, server)
        until(lambda: slow.waiting == 1)
        refused = ask(server, "quick")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert httpx.get(f"{server.url}/health").status_code == 200
        tei = httpx.post(f"{server.url}/embed", json={"inputs": "a"})
        assert (tei.status_code, tei.json()["error_type"]) == (429, "Overloaded")
        slow.let.set()
        first.join()
        assert found[0].status_code == 200
        assert ask(server, "quick").status_code == 200


def test_long_work_is_refused_while_too_much_waits_and_queries_are_not(served_encoder, monkeypatch):
    let, began = threading.Event(), threading.Event()
    compute = served_encoder.model.network.compute

    def waiting(*args):
        began.set()
        assert let.wait(120)
        return compute(*args)

    with running({"m3": served_encoder}, max_waiting_tokens=100) as server:
        monkeypatch.setattr(served_encoder.model.network, "compute", waiting)
        first, one = in_thread(ask, server)
        assert began.wait(120)
        second, other = in_thread(ask, server, ["panda " * 60] * 4)
        until(lambda: served_encoder.stats().waiting_tokens > 100)
        refused = ask(server, ["panda"] * 9)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["error"]["code"] == "engine_full"
        query, found = in_thread(ask, server, "query")
        until(lambda: server.service.running == 3)
        let.set()
        for thread in (first, second, query):
            thread.join()
        assert [r[0].status_code for r in (one, other, found)] == [200, 200, 200]


def test_a_client_that_left_frees_its_place_in_the_engine(served_encoder, monkeypatch):
    let, began = threading.Event(), threading.Event()
    compute = served_encoder.model.network.compute

    def waiting(*args):
        began.set()
        assert let.wait(120)
        return compute(*args)

    with running({"m3": served_encoder}) as server:
        before = served_encoder.stats().cancelled
        monkeypatch.setattr(served_encoder.model.network, "compute", waiting)
        first, one = in_thread(ask, server)
        assert began.wait(120)
        with pytest.raises(httpx.ReadTimeout), httpx.Client() as client:
            client.post(f"{server.url}/v1/encode", json={"texts": ["panda"] * 99}, timeout=0.2)
        until(lambda: served_encoder.stats().cancelled == before + 1)
        until(lambda: server.service.running == 1)
        assert served_encoder.stats().waiting_tokens == 0
        let.set()
        first.join()
        assert one[0].status_code == 200


def test_a_client_that_left_is_told_to_what_computes():
    slow = Slow()
    with running({"slow": slow}) as server:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/encode", json={"texts": "slow"}, timeout=0.2)
        until(lambda: slow.given_up == 1)
        assert server.service.running == 0


def test_errors_of_the_model_are_named_and_no_more(caplog):
    class Broken(FakeEncoder):
        def _encode(self, role, texts, *rest, **options):
            if MARK in texts:
                raise KeyError(f"no {MARK} here")
            return super()._encode(role, texts, *rest, **options)

    with running({"broken": Broken()}) as server:
        caplog.set_level(logging.INFO)
        caplog.set_level(logging.WARNING, "httpx")
        reply = ask(server, MARK)
        assert reply.status_code == 500
        assert MARK not in reply.text
        assert ask(server, "quick").status_code == 200
    failed = next(one for one in caplog.records if one.getMessage() == "request failed")
    assert failed.error == "KeyError"
    assert any("_encode" in place for place in failed.where)
    assert MARK not in logged(caplog)


def test_a_server_bears_many_connections(served_encoder):
    async def all_at_once(port, number):
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(number)]
        found = await asyncio.gather(*(answer(port, ATTACKS[0], "") for _ in range(number)))
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        return found

    with running({"m3": served_encoder}, max_requests=64) as server:
        found = asyncio.run(all_at_once(server.port, 150))
    assert set(found) <= {200, 429}
    assert 200 in found
