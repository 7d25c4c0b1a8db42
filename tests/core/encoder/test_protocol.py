"""What every ``TextEncoder`` does, whatever computes."""

from __future__ import annotations

import asyncio
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tests.serving import M3App, TeiApp, serving

from m3_core import RemoteEncoder
from m3_core.encoder import PARTS, CachedEncoder, TextEncoder
from m3_core.errors import ClosedError, MissingRepresentationError
from m3_core.testing import FakeEncoder

TEXTS = ["pandas eat bamboo", "bears eat fish", "", "pandas eat bamboo", "a river\nin 北京"]
ALL = (True, True, True)


@pytest.fixture(params=["fake", "cached", "loaded", "remote", "foreign"])
def encoder(request):
    """Each kind, made anew, for it is closed."""
    if request.param == "fake":
        yield FakeEncoder()
    elif request.param == "cached":
        yield CachedEncoder(FakeEncoder(), PARTS)
    elif request.param == "loaded":
        yield request.getfixturevalue("fresh_table")
    else:
        with serving(M3App() if request.param == "remote" else TeiApp("dense sparse")) as url:
            made = RemoteEncoder(url)
            yield made
            made.close()


def flags(encoder: TextEncoder) -> tuple[bool, ...]:
    return tuple(part in encoder.representations for part in PARTS)


def check_equal(one, other) -> None:
    """Of two computations of floats, which need not be the same bits."""
    assert len(one) == len(other)
    np.testing.assert_allclose(one.dense_vecs, other.dense_vecs, atol=1e-5)
    for ours, theirs in zip(one.lexical_weights, other.lexical_weights, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    if one.colbert_vecs is not None:
        np.testing.assert_array_equal(one.colbert_vecs.offsets, other.colbert_vecs.offsets)
        np.testing.assert_allclose(one.colbert_vecs.vectors, other.colbert_vecs.vectors, atol=1e-5)


def test_it_says_what_it_is(encoder) -> None:
    assert isinstance(encoder, TextEncoder)
    assert encoder.name
    assert encoder.representations <= PARTS.keys()
    assert encoder.max_length > 0
    reps = encoder.encode_documents(TEXTS, *flags(encoder))
    assert reps.dense_vecs.shape == (len(TEXTS), encoder.dimension)
    assert reps.dense_vecs.dtype == np.float32
    if reps.colbert_vecs is not None:
        assert reps.colbert_vecs.vectors.shape[1] == encoder.colbert_dimension
    else:
        assert encoder.colbert_dimension == 0
    assert reps.lexical_weights[0].keys() == reps.lexical_weights[3].keys()
    assert "reps" not in repr(encoder)


def test_fingerprints(encoder) -> None:
    for parts in (("dense",), ("sparse",), ("sparse", "dense")):
        for queries in (False, True):
            found = encoder.fingerprint(parts, queries=queries)
            assert found == encoder.fingerprint(parts[::-1], queries=queries)
            assert isinstance(found, str)


async def test_all_ways_of_asking_give_the_same(encoder) -> None:
    wanted = flags(encoder)
    documents = encoder.encode_documents(TEXTS, *wanted)
    check_equal(documents, await encoder.aencode_documents(iter(TEXTS), *wanted))
    check_equal(documents[[1]], encoder.encode_documents([TEXTS[1]], *wanted))
    queries = encoder.encode_queries(TEXTS, *wanted)
    check_equal(queries, await encoder.aencode_queries(TEXTS, *wanted))
    alone = encoder.encode_queries(TEXTS, False, True)
    assert alone.dense_vecs is None
    assert len(alone.lexical_weights) == len(TEXTS)
    for nothing in (encoder.encode_queries([], *wanted), await encoder.aencode_documents([])):
        assert nothing.dense_vecs.shape == (0, encoder.dimension)


def test_threads_and_event_loops(encoder) -> None:
    wanted = flags(encoder)
    expected = encoder.encode_queries(TEXTS, *wanted)

    def ask(number: int):
        if number % 2:
            return encoder.encode_queries(TEXTS, *wanted)

        async def several():
            both = [encoder.aencode_queries(TEXTS, *wanted) for _ in range(2)]
            return (await asyncio.gather(*both))[1]

        return asyncio.run(several())

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(ask, range(8)):
            check_equal(found, expected)


async def test_wrong_calls(encoder) -> None:
    for texts in ("a text", [1], None, {"a": 1}):
        with pytest.raises(TypeError):
            encoder.encode_documents(texts)
        with pytest.raises(TypeError):
            await encoder.aencode_queries(texts)
    with pytest.raises(ValueError, match="lone surrogate"):
        encoder.encode_documents(["\ud800"])
    with pytest.raises(ValueError, match="nothing"):
        encoder.encode_documents(TEXTS, False)
    if "colbert" not in encoder.representations:
        with pytest.raises(MissingRepresentationError, match="colbert"):
            encoder.encode_documents(TEXTS, *ALL)


def test_copies_share_what_computes(encoder) -> None:
    wanted = flags(encoder)
    expected = encoder.encode_documents(TEXTS, *wanted)
    assert copy.copy(encoder).origin is encoder.origin or isinstance(encoder, FakeEncoder)
    again = pickle.loads(pickle.dumps(encoder))
    check_equal(again.encode_documents(TEXTS, *wanted), expected)
    assert again.fingerprint() == encoder.fingerprint()


async def test_closed(encoder) -> None:
    encoder.encode_documents(TEXTS)
    assert not encoder.closed
    encoder.close()
    assert encoder.closed
    encoder.close()
    with pytest.raises(ClosedError):
        encoder.encode_documents(["another"])
    with pytest.raises(ClosedError):
        await encoder.aencode_queries(["another"])
