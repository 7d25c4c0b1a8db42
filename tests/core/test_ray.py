"""A bulk job and a service on a Ray of this machine, and what needs no Ray to be refused."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tests.core.bulk.corpora import assert_same, rows, write_lines

from m3_core.bulk import EncodedDataset, EncodeOptions, RayOptions, encode_dataset
from m3_core.server import RayServeOptions
from m3_core.server.on_ray import ByWaitingTokens
from m3_core.testing import FakeEncoder

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra ray is not installed"
)


@needs_ray
def test_two_actors_encode_and_two_replicas_serve(tmp_path):
    documents = rows(150)
    source = write_lines(tmp_path / "corpus.jsonl", documents)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.core.ray_run", source, tmp_path / "out", str(port)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    results = json.loads(found.stdout.splitlines()[-1])
    encoded, served = results["encoded"], results["served"]
    assert encoded["error"] == "a vector holds NaN"
    assert encoded["kept"]
    assert encoded["before"] < encoded["after"] == 5
    here = encode_dataset(source, tmp_path / "here", FakeEncoder(), EncodeOptions(shard_rows=32))
    assert_same(EncodedDataset.open(tmp_path / "out"), here)
    assert (served["running"], served["status"], served["refused"]) == (2, [200], 401)
    expected = FakeEncoder().encode_documents([f"panda {number}" for number in range(16)])
    np.testing.assert_allclose(served["dense"], expected.dense_vecs, atol=1e-6)


def test_what_processes_cannot_share_is_refused(tmp_path):
    source = write_lines(tmp_path / "corpus.jsonl", rows(3))
    with pytest.raises(TypeError, match="each process loads its own encoder"):
        encode_dataset(source, tmp_path / "out", FakeEncoder(), ray=RayOptions())
    with source.open("rb") as stream, pytest.raises(ValueError, match="with Ray, give a file"):
        encode_dataset(stream, tmp_path / "out", FakeEncoder, ray=RayOptions())
    assert not (tmp_path / "out").exists()
    for wrong in ({"replicas": 0}, {"replicas": 3, "max_replicas": 2}, {"target_tokens": 0}):
        with pytest.raises(ValueError, match=r"must be at least 1|below replicas"):
            RayServeOptions(**wrong)


def test_replicas_follow_the_tokens_that_wait():
    policy = ByWaitingTokens(target_tokens=1000)

    def wanted(waiting, replicas, requests):
        metrics = {"waiting_tokens": dict(enumerate(waiting))}
        context = SimpleNamespace(
            aggregated_metrics=metrics, current_num_replicas=replicas, total_num_requests=requests
        )
        return policy(context)[0]

    assert wanted([2500, 100], 2, 9) == 3
    assert wanted([0, 0], 2, 9) == 2
    assert wanted([0, 0, 0], 3, 1) == 1
    assert wanted([0, 0], 2, 0) == 0
