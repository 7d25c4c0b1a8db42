"""Adding documents: some at a time, all or none, with little memory beside what is stored."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from m3_core.collection import DocumentCollection, encoding
from m3_core.encoder import CachedEncoder
from m3_core.errors import NonFiniteError
from m3_core.representations import LexicalWeights, MultiVectors, Representations
from m3_core.testing import FakeEncoder

PARTS = ("dense", "sparse", "colbert")
TEXTS = [f"panda {i} bear {i % 7} river" for i in range(60)]
IDS = [f"d{i}" for i in range(60)]


class Quick(FakeEncoder):
    """Gives arrays of the sizes of real ones at once."""

    def _encode(self, role, texts, parts, max_length, **options) -> Representations:
        count, length = len(texts), 20
        self.calls.append((role, count))
        offsets = np.arange(count + 1) * length
        ids = np.tile(np.arange(length, dtype=np.int32), count)
        return Representations(
            np.ones((count, self.dimension), np.float32),
            LexicalWeights(ids, np.ones(count * length, np.float32), offsets),
            MultiVectors(np.ones((count * length, self.dimension), np.float32), offsets),
        )


def made(encoder: FakeEncoder, parts=PARTS) -> DocumentCollection:
    return DocumentCollection(CachedEncoder(encoder, parts, reuse=False))


def everything(collection: DocumentCollection) -> list:
    found = collection.search("panda 3 river", 100, exhaustive=True)
    return [collection.get(IDS), [(one.id, pytest.approx(one.score)) for one in found]]


async def test_many_texts_are_encoded_some_at_a_time(monkeypatch) -> None:
    encoder = FakeEncoder()
    whole = made(encoder)
    whole.add(TEXTS, ids=IDS)
    monkeypatch.setattr(encoding, "CHUNK_CHARACTERS", 200)
    encoder.calls.clear()
    parts, later, given = made(encoder), made(encoder), made(encoder)
    parts.add(TEXTS, ids=IDS)
    sizes = [count for _, count in encoder.calls]
    assert len(sizes) > 5
    assert sum(sizes) == 60
    await later.aadd(TEXTS, ids=IDS)
    encoded = await given.aencode(TEXTS)
    given.add(TEXTS, ids=IDS, encoded=encoded)
    assert everything(parts) == everything(later) == everything(given) == everything(whole)
    with pytest.raises(ValueError, match="59 documents and the representations of 60"):
        given.add(TEXTS[1:], ids=IDS[1:], encoded=encoded)
    for collection in (parts, given):
        collection.add([TEXTS[0]], [{"new": 1}], ["d30"])
        assert len(collection) == 60
        assert collection.ids()[-1] == "d30"


def test_one_bar_is_shown_for_all_chunks(monkeypatch, capsys) -> None:
    monkeypatch.setattr(encoding, "CHUNK_CHARACTERS", 200)
    made(FakeEncoder()).add(TEXTS, show_progress=True)
    assert "60/60" in capsys.readouterr().err


@pytest.mark.parametrize("where", [0, 59])
def test_an_error_in_any_chunk_adds_nothing(monkeypatch, where) -> None:
    monkeypatch.setattr(encoding, "CHUNK_CHARACTERS", 200)

    class Failing(FakeEncoder):
        def _encode(self, role, texts, parts, max_length, **options) -> Representations:
            if TEXTS[where] in texts:
                raise OSError("gone")
            return super()._encode(role, texts, parts, max_length, **options)

    collection = made(Failing())
    collection.add(["river"], ids=["d7"])
    with pytest.raises(OSError, match="gone"):
        collection.add(TEXTS, ids=IDS)
    assert collection.get(["d7"])[0][1] == "river"
    assert len(collection) == 1


@pytest.mark.parametrize("part", ["dense_vecs", "colbert_vecs"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_vectors_that_are_no_numbers_are_refused(part, value) -> None:
    class Broken(FakeEncoder):
        def _encode(self, role, texts, parts, max_length, **options) -> Representations:
            reps = super()._encode(role, texts, parts, max_length, **options)
            vectors = reps.dense_vecs if part == "dense_vecs" else reps.colbert_vecs.vectors
            vectors[-1, 0] = value
            return reps

    collection = made(Broken())
    if part == "dense_vecs" and value == 1e6:
        assert collection.add(TEXTS, ids=IDS) == IDS
        return
    with pytest.raises(NonFiniteError, match="vectors of some documents hold NaN or infinity"):
        collection.add(TEXTS, ids=IDS)
    assert len(collection) == 0


def test_an_encoder_that_gives_less_is_an_error() -> None:
    class Poor(FakeEncoder):
        def _encode(self, role, texts, parts, max_length, **options) -> Representations:
            return Representations(
                super()._encode(role, texts, parts, max_length, **options).dense_vecs
            )

    with pytest.raises(ValueError, match="gave no lexical_weights and no colbert_vecs"):
        made(Poor()).add(TEXTS)


def test_adding_needs_little_memory_beside_what_is_stored() -> None:
    """What is asked for of 20,000 passages holds for fewer that are as long in characters."""
    texts = [f"passage {i} " * 50 for i in range(8000)]
    collection = made(Quick(dimension=256))
    collection.add(["warm"])
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        collection.add(texts)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(collection) == 8001
    assert peak - before <= 1.3 * (after - before)


def test_documents_share_nothing_with_the_encoders_arrays() -> None:
    class Careless(FakeEncoder):
        def _encode(self, role, texts, parts, max_length, **options) -> Representations:
            self.last = super()._encode(role, texts, parts, max_length, **options)
            return self.last

    encoder = Careless()
    collection = made(encoder)
    collection.add(TEXTS, ids=IDS)
    given = encoder.last
    before = everything(collection)
    given.dense_vecs[:] = 0
    given.colbert_vecs.vectors[:] = 0
    given.lexical_weights.weights[:] = 0
    assert everything(collection) == before
