from __future__ import annotations

import copy
import pickle

import pytest
from pydantic import ValidationError

from m3_core.fields import EncoderFields, ScoreFields, VectorFields


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


def test_what_was_loaded_cannot_be_changed(tiny_m3) -> None:
    fields = EncoderFields(model_name=str(tiny_m3))
    for name in ("model_name", "query_instruction", "device", "encoder"):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(fields, name, "other")
    fields.show_progress = True
    with pytest.raises(ValidationError, match="modle_name"):
        EncoderFields(modle_name="BAAI/bge-m3")


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
