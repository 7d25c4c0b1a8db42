"""Jobs that are ended at any moment go on where they were, and end as one that was not."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time

import pytest
from tests.core.bulk.corpora import assert_holds, assert_same, rows, write_lines

from m3_core.bulk import EncodedDataset, EncodeOptions, encode_dataset
from m3_core.errors import DatasetError
from m3_core.saved_folders import locked
from m3_core.testing import FakeEncoder

OPTIONS = EncodeOptions(shard_rows=16)

RUN = """
import sys, time
from m3_core.bulk import EncodeOptions, encode_dataset
from m3_core.testing import FakeEncoder

class Slow(FakeEncoder):
    def _encode(self, *args, **keywords):
        time.sleep(0.01)
        return super()._encode(*args, **keywords)

print("ready", flush=True)
encode_dataset(sys.argv[1], sys.argv[2], Slow(), EncodeOptions(shard_rows=16))
"""


def started(source, out):
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, source, out], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_jobs_killed_at_random_moments_end_as_one_that_was_not(tmp_path):
    documents = rows(400)
    source = write_lines(tmp_path / "corpus.jsonl", documents)
    whole = encode_dataset(source, tmp_path / "whole", FakeEncoder(), OPTIONS)
    out = tmp_path / "killed"
    draw = random.Random(1)
    written: dict[str, tuple[int, int]] = {}
    kills = 0
    for _ in range(12):
        process = started(source, out)
        # Nearer to a single run's length the slower the machine is.
        time.sleep(draw.uniform(0.0, 0.4))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()
        for path in out.glob("part-*"):
            status = path.stat()
            # What is whole is not written again.
            assert written.setdefault(path.name, (status.st_ino, status.st_mtime_ns)) == (
                status.st_ino,
                status.st_mtime_ns,
            )
    assert kills
    encoder = FakeEncoder()
    dataset = encode_dataset(source, out, encoder, OPTIONS)
    assert sum(count for _, count in encoder.calls) == 400 - 16 * len(written)
    assert_same(dataset, whole)
    assert_holds(dataset, documents)
    assert sorted(one.name for one in out.iterdir()) == sorted(
        ["_job.json", *(file.name for file in whole.files)]
    )


def test_two_processes_do_not_encode_into_one_folder(tmp_path):
    source = write_lines(tmp_path / "corpus.jsonl", rows(3))
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"), pytest.raises(DatasetError, match="another process"):
        encode_dataset(source, tmp_path / "out", FakeEncoder())
    encode_dataset(source, tmp_path / "out", FakeEncoder())


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C of a process alone")
def test_ctrl_c_leaves_whole_files_and_says_how_to_go_on(tmp_path, tiny_m3):
    source = write_lines(tmp_path / "corpus.jsonl", rows(3000))
    out = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "m3_core.cli.main", "encode", str(source), str(out)),
        *("--model", str(tiny_m3), "--dtype", "float32", "--shard-rows", "4"),
    ]
    # A shell that runs tests in the background would have the signal ignored.
    asked = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **asked
    )
    while not list(out.glob("part-*")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    assert (process.returncode, output) == (130, "")
    assert "the same command again goes on" in errors
    assert "Traceback" not in errors
    before = {path.name for path in out.glob("part-*")}
    assert before
    assert not list(out.glob(".*.tmp"))
    with pytest.raises(DatasetError, match="lacks"):
        EncodedDataset.open(out)
    for path in sorted(out.glob("part-*"))[1:]:
        # Only to be done sooner.
        path.unlink()
    job = json.loads((out / "_job.json").read_text("utf-8"))
    job["shards"] = job["shards"][:3]
    (out / "_job.json").write_text(json.dumps(job), "utf-8")
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, json.loads(found.stdout)["documents"]) == (0, 12), found.stderr
