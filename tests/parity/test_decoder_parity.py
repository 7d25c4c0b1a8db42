"""Decoders that embed, against vectors that FlagEmbedding gave on the same checkpoints."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from tests.parity.record_decoders import CASES, KINDS, STORED, vectors, write_checkpoint

from m3_core import flagembedding


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("decoders")
    return {kind: write_checkpoint(parent / kind, kind) for kind in KINDS}


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_flagembeddings(folders, kind, case) -> None:
    with np.load(STORED) as stored, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = vectors(flagembedding, folders[kind], case)
        np.testing.assert_allclose(found, stored[f"{kind}-{case}"], rtol=0, atol=1e-5)
