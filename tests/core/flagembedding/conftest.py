"""Tiny checkpoints in folders with known models' names, and models over them."""

from __future__ import annotations

import pytest

from m3_core.encoder.encoder import Encoder
from m3_core.flagembedding import BGEM3FlagModel, FlagModel
from m3_core.testing import tiny_checkpoint


@pytest.fixture(scope="package")
def m3_path(tmp_path_factory):
    return str(tiny_checkpoint(tmp_path_factory.mktemp("flag") / "bge-m3"))


@pytest.fixture(scope="package")
def bge_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flag") / "bge-base-en-v1.5"
    return str(tiny_checkpoint(folder, kind="bge"))


@pytest.fixture(scope="package")
def m3(m3_path):
    return BGEM3FlagModel(m3_path, use_fp16=False, devices="cpu")


@pytest.fixture(scope="package")
def bge(bge_path):
    return FlagModel(bge_path, use_fp16=False, devices="cpu")


@pytest.fixture(scope="package")
def reference(m3_path):
    return Encoder.from_pretrained(
        m3_path, device="cpu", dtype="float32", query_instruction="", document_instruction=""
    )
