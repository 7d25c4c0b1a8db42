"""What the test of Ray runs in a process of its own: a bulk job and a service, each of two actors.

``python -m tests.core.ray_run CORPUS OUT PORT`` prints what became of them as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ray

from m3_core.bulk import EncodeOptions, RayOptions, encode_dataset
from m3_core.errors import NonFiniteError
from m3_core.server import RayServeOptions, ServerOptions, serve_on_ray
from m3_core.testing import FakeEncoder

OPTIONS = EncodeOptions(shard_rows=32)


class Failing(FakeEncoder):
    """Fails at some documents."""

    def _encode(self, role, texts, parts, max_length, *, show_progress):
        if any("no70" in text for text in texts):
            raise NonFiniteError("a vector holds NaN")
        return super()._encode(role, texts, parts, max_length, show_progress=show_progress)


def encoded(source, out):
    """A job that fails half-way and is gone on with."""
    actors = RayOptions(num_actors=2, num_cpus=0.5)
    try:
        encode_dataset(source, out, Failing, OPTIONS, ray=actors)
    except NonFiniteError as error:
        said = str(error)
    before = {path.name: path.stat().st_ino for path in Path(out).glob("part-*")}
    encode_dataset(source, out, FakeEncoder, OPTIONS, ray=actors)
    after = {path.name: path.stat().st_ino for path in Path(out).glob("part-*")}
    kept = all(after[name] == inode for name, inode in before.items())
    return {"error": said, "before": len(before), "after": len(after), "kept": kept}


def post(url, body, key):
    request = urllib.request.Request(
        f"{url}/v1/encode",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def served(port):
    """Two replicas that are asked by several clients at once."""
    from ray import serve

    stop, found, url = threading.Event(), {}, f"http://127.0.0.1:{port}"

    def ask():
        try:
            while not found.get("running"):
                status = serve.status().applications.get("m3-retrieval")
                if status and status.status == "RUNNING":
                    (one,) = status.deployments.values()
                    found["running"] = one.replica_states.get("RUNNING", 0)
                elif status and status.status == "DEPLOY_FAILED":
                    raise RuntimeError(status.message)
                stop.wait(0.1)
            texts = [f"panda {number}" for number in range(16)]
            with ThreadPoolExecutor(4) as pool:
                replies = list(pool.map(lambda one: post(url, {"texts": [one]}, "key"), texts))
            found["status"] = sorted({status for status, _ in replies})
            found["dense"] = [reply["dense_vecs"][0] for _, reply in replies]
            found["refused"] = post(url, {"texts": texts}, "another")[0]
        except BaseException as error:
            found["error"] = repr(error)
            raise
        finally:
            stop.set()

    thread = threading.Thread(target=ask)
    thread.start()
    serve_on_ray(
        {"fake": FakeEncoder},
        ServerOptions(api_keys=("key",)),
        RayServeOptions(replicas=2, num_cpus=0.5),
        port=port,
        stop=stop,
    )
    thread.join()
    return found


if __name__ == "__main__":
    corpus, folder, own_port = sys.argv[1:]
    # Once for both; each would start and end a Ray of its own.
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, namespace="serve"
    )
    results = {"encoded": encoded(corpus, folder), "served": served(int(own_port))}
    ray.shutdown()
    sys.stdout.write(json.dumps(results) + "\n")
