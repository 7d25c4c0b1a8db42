from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from m3_core import M3Error, wire
from m3_core.errors import BadReplyError
from m3_core.representations import LexicalWeights, MultiVectors, Representations
from m3_core.testing import FakeEncoder

FINITE = st.floats(-4, 4, width=32)


@st.composite
def encoded(draw: st.DrawFn) -> wire.Encoded:
    texts = draw(st.integers(0, 4))
    parts = draw(st.sets(st.sampled_from(["dense", "sparse", "colbert"]), min_size=1))
    numbers = np.random.default_rng(draw(st.integers(0, 99)))
    made = {}
    if "dense" in parts:
        made["dense_vecs"] = numbers.standard_normal((texts, 3)).astype(np.float32)
    lengths = draw(st.lists(st.integers(0, 3), min_size=texts, max_size=texts))
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    if "sparse" in parts:
        ids = numbers.integers(0, 99, offsets[-1]).astype(np.int32)
        weights = numbers.random(offsets[-1]).astype(np.float32)
        size = draw(st.sampled_from([None, 100]))
        made["lexical_weights"] = LexicalWeights(ids, weights, offsets, size)
    if "colbert" in parts:
        kind = draw(st.sampled_from([np.float32, np.float16]))
        made["colbert_vecs"] = MultiVectors(
            numbers.standard_normal((offsets[-1], 5)).astype(kind), offsets
        )
    return wire.Encoded(
        Representations(**made),
        draw(st.text(max_size=20)),
        draw(st.text("abc\"checksum:'0", max_size=20)),
        draw(st.sampled_from(["query", "document"])),
        draw(st.integers(0, 2**40)),
    )


def arrays(reps: Representations) -> dict[str, np.ndarray]:
    found = {"dense": reps.dense_vecs}
    if (weights := reps.lexical_weights) is not None:
        found |= {"ids": weights.token_ids, "weights": weights.weights, "at": weights.offsets}
    if (vectors := reps.colbert_vecs) is not None:
        found |= {"vectors": vectors.vectors, "rows": vectors.offsets}
    return {name: array for name, array in found.items() if array is not None}


def check_same(found: wire.Encoded, given: wire.Encoded) -> None:
    for name in ("model", "fingerprint", "role", "tokens"):
        assert getattr(found, name) == getattr(given, name)
    theirs, ours = arrays(found.reps), arrays(given.reps)
    assert theirs.keys() == ours.keys()
    for name, array in ours.items():
        assert theirs[name].dtype == array.dtype
        np.testing.assert_array_equal(theirs[name], array)
    if given.reps.lexical_weights is not None:
        assert (
            found.reps.lexical_weights.vocabulary_size == given.reps.lexical_weights.vocabulary_size
        )


@given(encoded())
def test_the_binary_body_comes_back_the_same_and_is_plain_safetensors(given_one) -> None:
    body = wire.to_body(given_one)
    check_same(wire.from_body(body), given_one)
    assert {len(array) for array in load(body).values()} == {
        len(array) for array in arrays(given_one.reps).values()
    }
    for array in arrays(wire.from_body(memoryview(body)).reps).values():
        assert array.flags.writeable
        assert array.flags.aligned


@given(encoded(), st.data())
def test_no_cut_or_changed_body_is_read(given_one, data) -> None:
    body = wire.to_body(given_one)
    with pytest.raises(BadReplyError):
        wire.from_body(body[: data.draw(st.integers(0, len(body) - 1))])
    with pytest.raises(BadReplyError):
        wire.from_body(body + b"\0" * data.draw(st.integers(1, 9)))
    at, bit = data.draw(st.integers(0, len(body) - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(body)
    changed[at] ^= 1 << bit
    with pytest.raises(BadReplyError):
        wire.from_body(changed)


@given(st.binary(max_size=64))
def test_anything_else_is_no_body(body) -> None:
    with pytest.raises(M3Error):
        wire.from_body(body)


@given(encoded())
def test_json_says_the_same(given_one) -> None:
    found = wire.from_json(json.loads(json.dumps(wire.to_json(given_one))))
    assert (found.model, found.fingerprint) == (given_one.model, given_one.fingerprint)
    assert (found.role, found.tokens) == (given_one.role, given_one.tokens)
    theirs, ours = found.reps, given_one.reps
    assert len(theirs) == len(ours)
    if ours.dense_vecs is not None and len(ours):
        np.testing.assert_array_equal(theirs.dense_vecs, ours.dense_vecs)
    if ours.lexical_weights is not None:
        assert list(theirs.lexical_weights) == [
            dict(sorted(row.items())) for row in ours.lexical_weights
        ]
    if ours.colbert_vecs is not None:
        for their, our in zip(theirs.colbert_vecs, ours.colbert_vecs, strict=True):
            np.testing.assert_array_equal(their.reshape(our.shape), our.astype(np.float32))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(
    JUNK
    | st.fixed_dictionaries(
        {"model": st.just("m"), "fingerprint": st.just("f")},
        optional={
            "dense_vecs": JUNK,
            "lexical_weights": JUNK,
            "colbert_vecs": JUNK,
            "usage": JUNK,
            "vocabulary_size": JUNK,
            "role": JUNK,
        },
    )
)
def test_json_of_anything_is_read_or_refused(reply) -> None:
    try:
        found = wire.from_json(reply)
    except BadReplyError:
        return
    assert all(np.isfinite(array).all() for array in arrays(found.reps).values())


def forged(**changes: np.ndarray) -> bytes:
    """A body with a right checksum whose parts do not fit."""
    reps = FakeEncoder(4).encode_documents(["a b", "c"], return_sparse=True)
    body = wire.to_body(wire.Encoded(reps, "m", "f"))
    tensors = {**load(body), **changes}
    tensors = {name: array for name, array in tensors.items() if array is not None}
    metadata = {"model": "m", "fingerprint": "f", "role": "document", "texts": "2", "tokens": "0"}
    written = save(tensors, {**metadata, "checksum": "00000000"})
    import zlib

    return written.replace(b"00000000", f"{zlib.crc32(written):08x}".encode(), 1)


def test_parts_that_do_not_fit_are_refused() -> None:
    assert len(wire.from_body(forged()).reps) == 2
    nan = np.full((2, 4), np.nan, np.float32)
    wrong = [
        {"dense_vecs": nan},
        {"dense_vecs": np.zeros((3, 4), np.float32)},
        {"dense_vecs": np.zeros((2, 4), np.float16)},
        {"dense_vecs": np.zeros(2, np.float32)},
        {"lexical_weights.offsets": np.array([0, 3, 1], np.int64)},
        {"lexical_weights.offsets": None},
        {"lexical_weights.token_ids": np.full(3, -1, np.int32)},
        {"unknown": np.zeros(2, np.float32)},
    ]
    for changes in wrong:
        with pytest.raises(BadReplyError):
            wire.from_body(forged(**changes))
