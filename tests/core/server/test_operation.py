"""What an operator sees: readiness, figures, logs, traces, and the end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.core.server.serving import running

from m3_core.server import ServerOptions, model_entries, tracing
from m3_core.testing import FakeEncoder, tiny_checkpoint
from m3_core.testing.rerankers import tiny_reranker

SECRET = "an unusual text"


def test_ready_once_the_weights_are_there_and_a_batch_has_run():
    let = threading.Event()

    def load():
        assert let.wait(60)
        return FakeEncoder()

    with running({"late": load}, wait=False, api_keys=("k",)) as server:
        early = httpx.get(f"{server.url}/health")
        assert (early.status_code, early.json()) == (503, {"status": "loading"})
        headers = {"Authorization": "Bearer k"}
        for path in ("/v1/encode", "/embed"):
            refused = httpx.post(server.url + path, json={"texts": "a"}, headers=headers)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
        assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == 503
        let.set()
        ended = time.monotonic() + 60
        while httpx.get(f"{server.url}/health").status_code == 503:
            assert time.monotonic() < ended
        encoder = server.service.models.encoder().model
        assert encoder.calls == [("query", 1), ("document", 1)]
        assert httpx.head(f"{server.url}/health").status_code == 200
        for path in ("/metrics", "/openapi.json", "/v1/models"):
            assert httpx.get(server.url + path).status_code == 401
            assert httpx.get(server.url + path, headers=headers).status_code == 200


def test_metrics_are_prometheus_and_agree_with_the_engine(served_encoder):
    with running({"m3": served_encoder}) as server:
        before = served_encoder.stats()
        for texts in (["panda"], ["panda " * 200] * 3):
            assert httpx.post(f"{server.url}/v1/encode", json={"texts": texts}).status_code == 200
        assert httpx.post(f"{server.url}/v1/encode", json={}).status_code == 400
        assert httpx.get(f"{server.url}/nowhere").status_code == 404
        text = httpx.get(f"{server.url}/metrics").text
        stats = served_encoder.stats()
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["m3_requests_total", "/v1/encode", "200"] == 2
    assert found["m3_requests_total", "/v1/encode", "400"] == 1
    assert found["m3_requests_total", "404", "unmatched"] == 1
    assert found["m3_request_seconds_count", "/v1/encode"] == 3
    assert found["m3_request_texts_sum",] == 4
    assert found["m3_truncated_texts_total",] == 3
    for name in ("tokens", "batches", "texts", "requests"):
        assert found[f"m3_engine_{name}_total", "m3"] == getattr(stats, name)
        assert getattr(stats, name) > getattr(before, name)
    assert found["m3_engine_waiting_tokens", "m3"] == 0
    assert found["m3_requests_running",] == 0


SERVE = """
import asyncio, sys
from m3_core.server import ServerOptions, serve
from m3_core.testing import FakeEncoder

class Slow(FakeEncoder):
    async def _aencode(self, role, texts, *rest, **options):
        if texts != ["query"] and texts != ["document"]:
            await asyncio.sleep(1.5)
        return self._encode(role, texts, *rest, **options)

serve({"slow": Slow()}, ServerOptions(), port=int(sys.argv[1]))
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def started(*command):
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, *(str(port) if one is None else str(one) for one in command)],
        stderr=subprocess.PIPE,
        text=True,
    )
    ended = time.monotonic() + 120
    while time.monotonic() < ended and process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                return process, f"http://127.0.0.1:{port}"
        except httpx.TransportError:
            time.sleep(0.05)
    process.kill()
    raise AssertionError(process.communicate()[1])


def ask_until_refused(url):
    while True:
        assert httpx.get(url, timeout=60).status_code in (200, 503)


@pytest.mark.skipif(os.name == "nt", reason="signals are of POSIX")
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_runs_finish_and_refuses_what_is_new(ending):
    process, url = started("-c", SERVE, None)
    found = []
    body = {"texts": [SECRET]}
    asking = threading.Thread(
        target=lambda: found.append(httpx.post(f"{url}/v1/encode", json=body, timeout=60))
    )
    asking.start()
    while "m3_requests_running 1.0" not in httpx.get(f"{url}/metrics").text:
        time.sleep(0.01)
    process.send_signal(ending)
    with pytest.raises(httpx.ConnectError):
        ask_until_refused(f"{url}/health")
    asking.join()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert found[0].status_code == 200
    expected = FakeEncoder().encode_documents([SECRET]).dense_vecs[0]
    assert found[0].json()["dense_vecs"][0] == pytest.approx(expected.tolist(), abs=1e-6)
    lines = [json.loads(line) for line in errors.splitlines()]
    answered = next(one for one in lines if one.get("route") == "/v1/encode")
    assert (answered["status"], answered["model"], answered["event"]) == (200, "slow", "request")
    assert SECRET not in errors


def test_the_command_serves_encoders_and_rerankers_by_name(tmp_path):
    encoder = tiny_checkpoint(tmp_path / "tiny", positions=64)
    reranker = tiny_reranker(tmp_path / "reranker")
    command = ("-m", "m3_core.cli.main", "serve", encoder, f"judge={reranker}", "--port", None)
    process, url = started(*command, "--api-key", "one", "--api-key", "two", "--max-texts", 3)
    try:
        for key in ("one", "two"):
            headers = {"Authorization": f"Bearer {key}"}
            models = httpx.get(f"{url}/v1/models", headers=headers).json()["data"]
            assert [(m["id"], m["kind"]) for m in models] == [
                ("tiny", "encoder"),
                ("judge", "reranker"),
            ]
        assert models[0]["limits"]["max_texts"] == 3
    finally:
        process.terminate()
        process.communicate()


def test_a_model_that_cannot_be_loaded_ends_the_server(tmp_path):
    command = [sys.executable, "-m", "m3_core.cli.main", "serve", str(tmp_path / "none")]
    port = ["--port", str(free_port())]
    ended = subprocess.run([*command, *port], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "none" in ended.stderr.splitlines()[-1]
    wrong = subprocess.run([*command, *port, "--max-texts", "0"], capture_output=True, text=True)
    assert (wrong.returncode, "max_texts is 0" in wrong.stderr) == (2, True)


def test_names_of_models(tmp_path):
    (tmp_path / "a=b").mkdir()
    assert list(model_entries(["BAAI/bge-m3", "x=m3-small", str(tmp_path / "a=b")])) == [
        *("BAAI/bge-m3", "x", "a=b")
    ]
    with pytest.raises(ValueError, match="two models are called 'x'"):
        model_entries(["x", "x=y"])
    with pytest.raises(ValueError, match="must be MODEL or NAME=MODEL"):
        model_entries(["=y"])


def test_keys_that_nobody_could_send_and_strings_of_keys_are_refused():
    for keys in (("",), ("a", " ")):
        with pytest.raises(ValueError, match="an API key is empty"):
            ServerOptions(api_keys=keys)
    for key in ("schlüssel", "geheim\n", " geheim", "ge\x00heim"):
        with pytest.raises(ValueError, match="nobody could send it") as error:
            ServerOptions(api_keys=(key,))
        assert "heim" not in str(error.value)
    # Each of its characters would be a key.
    with pytest.raises(TypeError, match="api_keys must be several strings"):
        ServerOptions(api_keys="geheim")
    assert "geheim" not in repr(ServerOptions(api_keys=("geheim",)))


def test_spans_say_what_was_computed_and_belong_to_the_clients_trace(monkeypatch):
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    exporters = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    exporter = exporters.InMemorySpanExporter()
    provider = trace.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing.trace, "get_tracer", provider.get_tracer)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with running({"fake": FakeEncoder()}) as server:
        for body in ({"texts": [SECRET, SECRET]}, {"texts": SECRET, "model": SECRET}):
            httpx.post(f"{server.url}/v1/encode", json=body, headers={"traceparent": parent})
    good, bad = exporter.get_finished_spans()
    assert good.name == "POST /v1/encode"
    assert format(good.context.trace_id, "032x") == parent[3:35]
    assert good.attributes["m3.model"] == "fake"
    assert (good.status.is_ok, bad.status.is_ok) == (True, False)
    assert SECRET not in good.to_json() + bad.to_json()
