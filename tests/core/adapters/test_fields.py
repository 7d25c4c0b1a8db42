from __future__ import annotations

import copy
import inspect
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pydantic import ConfigDict, ValidationError

from m3_core.adapters.fields import EncoderFields, ScoreFields, VectorFields
from m3_core.errors import MissingRepresentationError


def test_fields_say_what_is_in_effect(tiny_mean, encoder) -> None:
    own = VectorFields(model_name=str(tiny_mean), max_length=20, query_instruction="q: ")
    assert (own.max_length, own.query_instruction, own.document_instruction) == (20, "q: ", "")
    assert (own.pooling, own.dtype, own.truncate_dim) == ("mean", "auto", None)
    given = VectorFields(encoder=encoder.with_options(truncate_dim=8), document_instruction="d: ")
    assert given.model_name == encoder.name
    assert (given.dtype, given.truncate_dim) == ("float32", 8)
    assert given.document_instruction == "d: "
    # What was set by the caller stays known.
    assert given.model_fields_set == {"encoder", "document_instruction"}
    assert VectorFields(**own.model_dump()).model_dump() == own.model_dump()


def test_only_what_changes_results_is_dumped(tiny_m3) -> None:
    plain = EncoderFields(model_name=str(tiny_m3))
    other = EncoderFields(
        model_name=str(tiny_m3),
        device="cpu",
        token="secret",
        local_files_only=True,
        show_progress=True,
        reuse_encodings=False,
    )
    assert other.model_dump() == plain.model_dump()
    assert "secret" not in repr(other)
    assert EncoderFields(model_name=str(tiny_m3), dtype="float32").model_dump() != (
        plain.model_dump()
    )


def test_pickles_hold_no_weights_and_load_on_first_use(tiny_m3, encoder) -> None:
    for fields in (
        EncoderFields(model_name=str(tiny_m3), query_instruction="q: "),
        EncoderFields(encoder=encoder, query_instruction="q: "),
    ):
        packed = pickle.dumps(fields)
        assert len(packed) < 4096
        again = pickle.loads(pickle.dumps(pickle.loads(packed)))
        assert again._source._opened is None
        assert again.model_dump() == fields.model_dump()
        expected = fields._source.queries(["panda"]).dense_vecs
        assert again._source.queries(["panda"]).dense_vecs == pytest.approx(expected, abs=1e-6)
        assert copy.deepcopy(fields)._source is fields._source


def test_what_needs_another_model_cannot_be_assigned(tiny_m3) -> None:
    fields = EncoderFields(model_name=str(tiny_m3))
    for name in ("model_name", "revision", "dtype", "device", "cache_folder", "token", "encoder"):
        with pytest.raises(ValidationError, match=r"frozen.*make a new object, EncoderFields"):
            setattr(fields, name, "other")
    fields.show_progress = True
    with pytest.raises(ValidationError, match="modle_name"):
        EncoderFields(modle_name="BAAI/bge-m3")


def test_what_is_assigned_takes_effect(tiny_m3, encoder) -> None:
    fields = VectorFields(model_name=str(tiny_m3), dtype="float32", device="cpu")
    plain = fields.model_dump()
    for name, value in (
        ("query_instruction", "q: "),
        ("document_instruction", "d: "),
        ("max_length", 4),
        ("truncate_dim", 8),
        ("normalize", False),
        ("pooling", "mean"),
    ):
        setattr(fields, name, value)
        made = VectorFields(model_name=str(tiny_m3), dtype="float32", device="cpu", **{name: value})
        core = encoder.with_options(**{name: value})
        text = ["panda bear"]
        assert fields.model_dump() == made.model_dump()
        assert fields._model.fingerprint(queries=True) == core.fingerprint(queries=True)
        for ask in ("queries", "documents"):
            found = getattr(fields._source, ask)(text).dense_vecs
            expected = getattr(core, f"encode_{ask}")(text).dense_vecs
            np.testing.assert_allclose(found, expected, atol=1e-6)
        again = pickle.loads(pickle.dumps(fields))
        assert again.model_dump() == made.model_dump()
        setattr(again, name, getattr(VectorFields(model_name=str(tiny_m3)), name))
        setattr(fields, name, True if name == "normalize" else None)
        assert fields.model_dump() == plain == again.model_dump()
    fields.reuse_encodings = False
    assert fields._source.reuse is False


def test_what_is_assigned_is_checked_and_a_failure_changes_nothing(tiny_dense) -> None:
    fields = ScoreFields(model_name=str(tiny_dense), weights=(1, 0, 0))
    before, source = fields.model_dump(), fields._source
    for name, value in (
        ("max_length", "many"),
        ("max_length", 100_000),
        ("weights", (0, 0, 0)),
        ("weights", (1, 1, 1)),
        ("weights", (1, 2)),
    ):
        with pytest.raises((ValueError, MissingRepresentationError)):
            setattr(fields, name, value)
        assert fields.model_dump() == before
        assert fields._source is source
    with pytest.raises(ValueError, match="no field"):
        fields.max_lenght = 3


def test_weights_bring_the_parts_that_they_need(encoder) -> None:
    fields = ScoreFields(encoder=encoder, weights=(1, 0, 0))
    assert fields._source.parts == ("dense",)
    fields.weights = (0.4, 0.2, 0.4)
    assert fields._source.parts == ("dense", "sparse", "colbert")
    pairs = [("panda", "panda bear")]
    expected = encoder.compute_score(pairs, weights=(0.4, 0.2, 0.4))["colbert+sparse+dense"]
    assert fields._hybrid.score(pairs) == pytest.approx(expected, abs=1e-5)


def test_calls_see_an_assignment_wholly_or_not_at_all(fresh_table) -> None:
    fields = ScoreFields(encoder=fresh_table, weights=(1, 0, 0))
    pairs = [("panda", "panda bear")]
    choices = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    allowed = []
    for weights in choices:
        allowed.append(ScoreFields(encoder=fresh_table, weights=weights)._hybrid.score(pairs)[0])
    done, wrong = threading.Event(), []

    def assign(first: int) -> None:
        for step in range(60):
            fields.weights = choices[(first + step) % 3]

    def score() -> None:
        while not done.is_set():
            (found,) = fields._hybrid.score(pairs)
            if found != pytest.approx(min(allowed, key=lambda one: abs(one - found)), abs=1e-4):
                wrong.append(found)

    with ThreadPoolExecutor(5) as pool:
        readers = [pool.submit(score) for _ in range(3)]
        writers = [pool.submit(assign, first) for first in range(2)]
        try:
            for writer in writers:
                writer.result()
        finally:
            done.set()
        for reader in readers:
            reader.result()
    assert wrong == []


@pytest.mark.parametrize("name", ["use_fp16", "batch_size", "model", "multi_process", "top_k"])
def test_keywords_of_others_are_answered(tiny_m3, name) -> None:
    with pytest.raises(ValidationError, match=f"{name}=.*cannot be honoured: "):
        EncoderFields(model_name=str(tiny_m3), **{name: 1})


def remade(fields: EncoderFields, **changes):
    """Another object of all fields, as LangChain makes it."""
    values = {name: fields.__dict__[name] for name in type(fields).model_fields}
    return type(fields)(**(values | changes))


@pytest.mark.parametrize("kind", [EncoderFields, VectorFields, ScoreFields])
def test_an_object_made_of_all_fields_is_the_same(tiny_mean, encoder, kind) -> None:
    for options in (
        {"model_name": str(tiny_mean)},
        {"model_name": str(tiny_mean), "dtype": "float32", "max_length": 20},
        {"encoder": encoder},
        {"encoder": encoder, "query_instruction": "q: ", "reuse_encodings": False},
    ):
        first = kind(**options)
        second = remade(remade(first))
        assert second.model_dump() == first.model_dump()
        known = EncoderFields.model_fields.keys()
        assert second.model_fields_set & known == first.model_fields_set
        assert second._model.options == first._model.options
        assert second._model.model is first._model.model
        assert copy.deepcopy(second).model_dump() == first.model_dump()


def test_what_was_filled_in_is_no_choice(tiny_mean, tiny_bge, encoder) -> None:
    first = VectorFields(model_name=str(tiny_mean), query_instruction="q: ")
    other = remade(first, model_name=str(tiny_bge))
    alone = VectorFields(model_name=str(tiny_bge), query_instruction="q: ")
    assert other.model_dump() == alone.model_dump()
    assert (first.pooling, other.pooling) == ("mean", "cls")
    assert remade(first, max_length=30).max_length == 30
    assert remade(remade(first, max_length=30)).max_length == 30
    given = VectorFields(encoder=encoder)
    assert remade(given, document_instruction="d: ").document_instruction == "d: "
    with pytest.raises(ValueError, match="dtype cannot be set together with encoder="):
        remade(given, dtype="bfloat16")
    with pytest.raises(ValueError, match=r"model_name is .* give one of the two"):
        remade(given, model_name=str(tiny_mean))
    assert remade(given, model_name=str(tiny_mean), encoder=None).pooling == "mean"


def test_unknown_options_are_answered_with_those_that_there_are(encoder) -> None:
    with pytest.raises(ValidationError, match=r"no option 'topn' \(is 'top_n' meant\?\): it takes"):
        ScoreFields(encoder=encoder, topn=3)
    with pytest.raises(
        ValidationError, match="no option 'alpha': it takes api_key, base_url, cache_folder, device"
    ):
        ScoreFields(encoder=encoder, alpha=0.5)
    with pytest.raises(ValidationError, match="objects with the same model share it"):
        ScoreFields(encoder=encoder, embeddings=VectorFields(encoder=encoder))
    assert "origin" not in _message(lambda: EncoderFields(encoder=encoder, orign=None))

    class Lenient(EncoderFields):
        model_config = ConfigDict(extra="allow")

    assert Lenient(encoder=encoder, note="mine").note == "mine"


def test_weights_are_three(encoder) -> None:
    for wrong in ((1, 1), (1, 1, 1, 1), "111", (1, -1, 1)):
        with pytest.raises(ValidationError, match=r"three numbers \(dense, sparse, colbert\)"):
            ScoreFields(encoder=encoder, weights=wrong)
    assert ScoreFields(encoder=encoder, weights=[1, 0, 0]).weights == (1.0, 0.0, 0.0)


def test_signatures_are_readable() -> None:
    shown = str(inspect.signature(EncoderFields))
    assert "<function" not in shown
    assert "model_name: typing.Annotated[str, or a path, or torch's own] = 'BAAI/bge-m3'" in shown


def _message(make) -> str:
    with pytest.raises(ValidationError) as error:
        make()
    return error.value.errors()[0]["msg"]
