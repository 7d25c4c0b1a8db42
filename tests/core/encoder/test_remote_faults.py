"""Hostile, broken and dying servers: a clear error or the right vectors, never others."""

from __future__ import annotations

import email.utils
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.serving import M3App, OpenAIApp, TeiApp, send, serving

from m3_core import RemoteEncoder, wire
from m3_core.errors import BadReplyError, RemoteError
from m3_core.testing import FakeEncoder

ROOT = Path(__file__).parents[3]
TEXTS = ["pandas eat bamboo", "bears eat fish"]


class Hostile(M3App):
    """Answers ``/v1/encode`` by a function, and everything else as it should."""

    def __init__(self, misbehave) -> None:
        super().__init__()
        self.misbehave = misbehave

    def answer(self, handler, path, asked) -> None:
        if path == "/v1/encode":
            self.misbehave(self, handler, asked)
        else:
            super().answer(handler, path, asked)

    def right(self, handler, asked) -> bytes:
        body = self.encode(asked, handler.headers)
        assert isinstance(body, bytes)
        return body


def cut(app, handler, asked) -> None:
    body = app.right(handler, asked)
    handler.send_response(200)
    handler.send_header("Content-Type", wire.MEDIA_TYPE)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def cut_without_length(app, handler, asked) -> None:
    body = app.right(handler, asked)
    handler.send_response(200)
    handler.send_header("Content-Type", wire.MEDIA_TYPE)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def changed(app, handler, asked) -> None:
    body = bytearray(app.right(handler, asked))
    body[-3] ^= 64
    send(handler, 200, bytes(body), wire.MEDIA_TYPE)


def lied_about_compression(app, handler, asked) -> None:
    send(handler, 200, app.right(handler, asked), wire.MEDIA_TYPE, Content_Encoding="gzip")


def html(app, handler, asked) -> None:
    send(handler, 200, b"<html>Welcome!</html>", "text/html")


def no_json(app, handler, asked) -> None:
    send(handler, 200, b'{"dense_vecs": [[0.1, ', "application/json")


def empty(app, handler, asked) -> None:
    send(handler, 200, b"")


def other_texts(app, handler, asked) -> None:
    send(handler, 200, app.right(handler, asked | {"texts": ["one"]}), wire.MEDIA_TYPE)


def other_parts(app, handler, asked) -> None:
    wrong = app.right(handler, asked | {"representations": ["sparse"]})
    send(handler, 200, wrong, wire.MEDIA_TYPE)


def other_role(app, handler, asked) -> None:
    encoded = wire.from_body(app.right(handler, asked))
    wrong = wire.Encoded(encoded.reps, encoded.model, encoded.fingerprint, "document")
    send(handler, 200, wire.to_body(wrong), wire.MEDIA_TYPE)


def not_finite(app, handler, asked) -> None:
    reply = wire.to_json(wire.from_body(app.right(handler, asked)))
    reply["dense_vecs"][0][0] = float("nan")
    send(handler, 200, json.dumps(reply).encode())


@pytest.mark.parametrize(
    ("misbehave", "words"),
    [
        (cut, "RemoteProtocolError|ReadError"),
        (cut_without_length, "checksum"),
        (changed, "checksum"),
        (lied_about_compression, "decoded"),
        (html, "safetensors"),
        (no_json, "no JSON"),
        (empty, "no JSON"),
        (other_texts, "of 2 texts, and got dense of 1"),
        (other_parts, "answers with vectors"),
        (other_role, "role query"),
        (not_finite, "finite numbers"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
async def test_what_is_not_the_answer_is_an_error(misbehave, words) -> None:
    with serving(Hostile(misbehave)) as url:
        remote = RemoteEncoder(url, retries=1)
        with pytest.raises(RemoteError, match=words):
            remote.encode_queries(TEXTS)
        with pytest.raises(RemoteError):
            await remote.aencode_queries(TEXTS)
        remote.close()


def refusing(status: int, body: bytes, **headers):
    return lambda app, handler, asked: send(handler, status, body, **headers)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, b'{"error": {"message": "too long"}}', r"400 \(too long\)"),
        (422, b'{"detail": [{"msg": "no"}]}', r"422 .*no"),
        (413, b'{"error": "too large"}', r"413 \(too large\)"),
        (500, b"Internal Server Error", r"500 \(Internal Server Error\)"),
        (302, b"", "redirects to 'http://elsewhere/'"),
        (503, b"", "503; tried 2 times"),
    ],
)
def test_refusals_say_what_the_server_says(status, body, words) -> None:
    app = Hostile(refusing(status, body, Location="http://elsewhere/"))
    with serving(app) as url:
        remote = RemoteEncoder(url, "hush", retries=1)
        with pytest.raises(RemoteError, match=words) as error:
            remote.encode_queries(TEXTS)
        assert error.value.status == status
        assert "hush" not in str(error.value)
        assert "pandas" not in str(error.value)
        remote.close()


def test_a_server_that_drips_is_given_up_in_time() -> None:
    going = threading.Event()

    def drip(app, handler, asked) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        while not going.wait(0.02):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    app = Hostile(drip)
    with serving(app) as url:
        remote = RemoteEncoder(url, timeout=0.3)
        try:
            with pytest.raises(RemoteError, match=r"no answer within timeout=0\.3 seconds"):
                remote.encode_queries(TEXTS)
            assert app.asked["/v1/encode"] == 1
        finally:
            going.set()
        remote.close()


@pytest.mark.parametrize(
    "after", [None, "0", "date", "nonsense", "-5"], ids=["none", "0", "date", "nonsense", "minus"]
)
def test_a_busy_server_is_asked_again_when_it_says(after) -> None:
    left = [3]
    header = email.utils.formatdate(time.time() + 1, usegmt=True) if after == "date" else after

    def busy(app, handler, asked) -> None:
        with app.lock:
            left[0] -= 1
            refuse = left[0] >= 0
        if refuse:
            headers = {} if header is None else {"Retry_After": header}
            send(handler, (429, 502, 503)[left[0]], b"", **headers)
        else:
            send(handler, 200, app.right(handler, asked), wire.MEDIA_TYPE)

    with serving(Hostile(busy)) as url:
        remote = RemoteEncoder(url)
        found = remote.encode_queries(TEXTS)
        np.testing.assert_array_equal(
            found.dense_vecs, FakeEncoder().encode_queries(TEXTS).dense_vecs
        )
        assert remote.stats().retries == 3
        remote.close()


def test_nobody_waits_an_hour() -> None:
    with serving(Hostile(refusing(429, b"", Retry_After="3600"))) as url:
        remote = RemoteEncoder(url)
        with pytest.raises(RemoteError, match="429; tried once"):
            remote.encode_queries(TEXTS)
        remote.close()


def test_lost_connections_are_made_again() -> None:
    left = [2]

    def leave(app, handler, asked) -> None:
        with app.lock:
            left[0] -= 1
            go = left[0] >= 0
        if go:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
        else:
            send(handler, 200, app.right(handler, asked), wire.MEDIA_TYPE)

    with serving(Hostile(leave)) as url:
        remote = RemoteEncoder(url)
        assert len(remote.encode_queries(TEXTS)) == 2
        assert remote.stats().failures == 2
        remote.close()


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(RemoteError, match=r"ConnectError.*tried 2 times"):
        RemoteEncoder(url, retries=1).encode_queries(TEXTS)


class OddOpenAI(OpenAIApp):
    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def reply(self, path, asked, headers):
        found = super().reply(path, asked, headers)
        if path.endswith("/embeddings") and len(asked["input"]) > 1:
            return self.change(found)
        return found


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found | {"data": found["data"][1:]},
        lambda found: found | {"data": [found["data"][0]] * 2},
        lambda found: found | {"data": [{**one, "index": 7} for one in found["data"]]},
        lambda found: found | {"data": [{**one, "embedding": "####"} for one in found["data"]]},
        lambda found: found | {"data": [{**one, "embedding": [None]} for one in found["data"]]},
        lambda found: found | {"data": [{**one, "embedding": [1.0]} for one in found["data"]]},
        lambda found: found | {"data": [{"index": i} for i in range(2)]},
        lambda found: found | {"data": None},
        lambda found: found | {"model": "another"},
        lambda found: [1, 2],
    ],
)
def test_odd_replies_in_openais_protocol(change) -> None:
    with serving(OddOpenAI(change)) as url:
        remote = RemoteEncoder(url)
        with pytest.raises(RemoteError):
            remote.encode_queries(TEXTS)
        remote.close()


@pytest.mark.parametrize("rows", [None, [[1.0]], [[1, "a"], [1, 2]], {"a": 1}, [[1e99] * 32] * 2])
def test_odd_replies_of_tei(rows) -> None:
    class Odd(TeiApp):
        def reply(self, path, asked, headers):
            many = asked and len(asked.get("inputs", ())) > 1
            return rows if many else super().reply(path, asked, headers)

    with serving(Odd()) as url:
        remote = RemoteEncoder(url)
        with pytest.raises((BadReplyError, RemoteError)):
            remote.encode_queries(TEXTS)
        remote.close()


SERVER = """
import sys, threading
from tests.serving import M3App, serving

with serving(M3App(), int(sys.argv[1])) as url:
    print(url, flush=True)
    threading.Event().wait()
"""


def started(port: int = 0) -> tuple[subprocess.Popen, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    return process, process.stdout.readline().strip()


def killed(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_server_that_is_killed_while_sixteen_clients_ask() -> None:
    """Each call gets the right vectors or a clear error, and right ones again afterwards."""
    process, url = started()
    local, stop = FakeEncoder(), threading.Event()
    outcomes: list[str] = []
    remote = RemoteEncoder(url, retries=1)

    def ask(number: int) -> None:
        done = 0
        while not stop.is_set():
            done += 1
            text = f"bears {number} {done}"
            try:
                found = remote.encode_queries([text], True, True)
            except RemoteError as error:
                outcomes.append("error" if url in str(error) else "unclear")
            else:
                expected = local.encode_queries([text], True, True)
                same = np.array_equal(found.dense_vecs, expected.dense_vecs)
                same &= list(found.lexical_weights) == list(expected.lexical_weights)
                outcomes.append("right" if same else "wrong")

    def wait_for(outcome: str, more: int) -> None:
        target = outcomes.count(outcome) + more
        for _ in range(12_000):
            if outcomes.count(outcome) >= target:
                return
            time.sleep(0.01)
        raise AssertionError(f"no {outcome}: {outcomes[-10:]}")

    remote.encode_queries(["a"])
    with ThreadPoolExecutor(16) as pool:
        asking = [pool.submit(ask, number) for number in range(16)]
        try:
            wait_for("right", 40)
            killed(process)
            wait_for("error", 16)
            process, _ = started(int(url.rpartition(":")[2]))
            wait_for("right", 40)
        finally:
            stop.set()
        for one in asking:
            one.result()
    killed(process)
    remote.close()
    assert set(outcomes) == {"right", "error"}
