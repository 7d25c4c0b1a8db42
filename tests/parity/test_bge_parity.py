"""``HuggingFaceBgeEmbeddings`` against what ``record_bge.py`` recorded of the original."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from langchain_core._api import LangChainDeprecationWarning
from langchain_core.embeddings import Embeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from pydantic import ValidationError
from tests.parity.record_bge import CASES, CHECKPOINTS, TEXTS, write_checkpoint

from langchain_m3 import HuggingFaceBgeEmbeddings
from m3_core import Encoder

RECORDED = np.load(Path(__file__).parent / "bge.npz")
ENGLISH = "Represent this question for searching relevant passages: "


class Original(HuggingFaceBgeEmbeddings):
    original_instructions = True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("bge")
    for name in CHECKPOINTS:
        write_checkpoint(parent, name)
    _Params.folder = str(parent / "bge-tiny-en-v1.5")
    return parent


@pytest.mark.parametrize("number", range(len(CASES)), ids=str)
def test_vectors_are_the_originals(folder: Path, number: int) -> None:
    name, keywords = CASES[number]
    ours = Original(model_name=str(folder / name), **keywords)
    assert ours.query_instruction == str(RECORDED[f"{number}.instruction"])
    np.testing.assert_allclose(
        ours.embed_documents(TEXTS), RECORDED[f"{number}.documents"], atol=1e-5
    )
    queries = np.array([ours.embed_query(text) for text in TEXTS])
    # An empty query leaves the space at the instruction's end last: see the note at TEXTS.
    same = [i for i, text in enumerate(TEXTS) if text or "m3" not in name]
    np.testing.assert_allclose(queries[same], RECORDED[f"{number}.queries"][same], atol=1e-5)


def test_without_the_switch_only_m3_and_passed_chinese_instructions_differ(folder: Path) -> None:
    for number, (name, keywords) in enumerate(CASES):
        if (name, keywords) == ("bge-m3-tiny", {}):
            with pytest.warns(UserWarning, match="takes no instruction"):
                ours = HuggingFaceBgeEmbeddings(model_name=str(folder / name))
            assert ours.query_instruction == ""
            # As the recorded case with query_instruction="".
            number = CASES.index(("bge-m3-tiny", {"query_instruction": ""}))
        elif name == "bge-tiny-zh" and "query_instruction" in keywords:
            with pytest.warns(UserWarning, match="as it was passed"):
                ours = HuggingFaceBgeEmbeddings(model_name=str(folder / name), **keywords)
            assert ours.query_instruction == "q: "
            continue
        else:
            ours = HuggingFaceBgeEmbeddings(model_name=str(folder / name), **keywords)
        np.testing.assert_allclose(
            ours.embed_query(TEXTS[0]), RECORDED[f"{number}.queries"][0], atol=1e-5
        )


def test_an_instruction_that_is_passed_to_m3_stands(folder: Path) -> None:
    ours = HuggingFaceBgeEmbeddings(
        model_name=str(folder / "bge-m3-tiny"), query_instruction=ENGLISH
    )
    assert ours.query_instruction == ENGLISH


def test_fields_and_defaults_are_the_originals(folder: Path) -> None:
    fields = HuggingFaceBgeEmbeddings.model_fields
    defaults = {
        name: field.get_default(call_default_factory=True) for name, field in fields.items()
    }
    assert defaults == {
        "client": None,
        "model_name": "BAAI/bge-large-en",
        "cache_folder": None,
        "model_kwargs": {},
        "encode_kwargs": {},
        "query_instruction": ENGLISH,
        "embed_instruction": "",
        "show_progress": False,
    }
    with pytest.raises(ValidationError, match="multi_process"):
        HuggingFaceBgeEmbeddings(model_name=_Params.folder, multi_process=True)
    model_kwargs = {"torch_dtype": "float32", "device": "cpu"}
    ours = HuggingFaceBgeEmbeddings(model_name=_Params.folder, model_kwargs=model_kwargs)
    assert ours.model_kwargs == {"device": "cpu"}
    assert model_kwargs == {"torch_dtype": "float32", "device": "cpu"}
    assert isinstance(ours.client, Encoder)


def test_warnings_are_the_originals(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "BAAI").mkdir()
    (folder / "BAAI" / "bge-large-en").symlink_to(folder / "bge-tiny-en-v1.5")
    with pytest.warns(LangChainDeprecationWarning, match="model_name"):
        HuggingFaceBgeEmbeddings()
    with (
        pytest.warns(LangChainDeprecationWarning, match="show_progress_bar"),
        pytest.warns(UserWarning, match="takes precedence"),
    ):
        ours = HuggingFaceBgeEmbeddings(
            model_name=_Params.folder,
            show_progress=True,
            encode_kwargs={"show_progress_bar": False},
        )
    assert ours.show_progress is False
    assert ours.encode_kwargs == {}


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"model_kwargs": {"devise": "cpu"}}, TypeError, "unknown keys: devise; known are"),
        ({"encode_kwargs": {"normalise": True}}, TypeError, "unknown keys: normalise"),
        ({"model_kwargs": {"backend": "onnx"}}, ValueError, "only 'torch'"),
        ({"encode_kwargs": {"precision": "int8"}}, ValueError, "only 'float32'"),
        ({"encode_kwargs": {"prompt_name": "query"}}, ValueError, "has the prompts"),
    ],
)
def test_keys_that_cannot_be_honoured_are_errors(folder: Path, keywords, error, message) -> None:
    with pytest.raises(error, match=message):
        HuggingFaceBgeEmbeddings(model_name=_Params.folder, **keywords)


def test_empty_lists_wrong_texts_and_pickles(folder: Path) -> None:
    ours = HuggingFaceBgeEmbeddings(model_name=_Params.folder)
    assert ours.embed_documents([]) == []
    with pytest.raises(TypeError, match="text 1"):
        ours.embed_documents(["panda", None])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = pickle.loads(pickle.dumps(ours))
    assert again.embed_query("panda") == ours.embed_query("panda")


class _Params:
    folder = ""

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return HuggingFaceBgeEmbeddings

    @property
    def embedding_model_params(self) -> dict:
        return {"model_name": self.folder}


@pytest.mark.usefixtures("folder")
class TestStandardUnit(_Params, EmbeddingsUnitTests):
    pass


@pytest.mark.usefixtures("folder")
class TestStandardIntegration(_Params, EmbeddingsIntegrationTests):
    pass


@pytest.mark.parametrize("number", range(len(CASES)), ids=str)
async def test_what_is_assigned_later_gives_the_originals_vectors(
    folder: Path, number: int
) -> None:
    name, keywords = CASES[number]
    loading = {key: value for key, value in keywords.items() if key == "model_kwargs"}
    ours = Original(model_name=str(folder / name), **loading)
    before = ours.embed_query(TEXTS[0])
    for key, value in keywords.items():
        if key in loading:
            continue
        setattr(ours, key, value)
        assert getattr(ours, key) == value
    asked = {key: ours.model_dump()[key] for key in keywords}
    np.testing.assert_allclose(
        ours.embed_documents(TEXTS), RECORDED[f"{number}.documents"], atol=1e-5
    )
    # The original overrides the Chinese instruction in its constructor, and there alone.
    if "zh" not in name or "query_instruction" not in keywords:
        query = RECORDED[f"{number}.queries"][0]
        np.testing.assert_allclose(ours.embed_query(TEXTS[0]), query, atol=1e-5)
        np.testing.assert_allclose(await ours.aembed_query(TEXTS[0]), query, atol=1e-5)
    again = pickle.loads(pickle.dumps(ours))
    assert {key: again.model_dump()[key] for key in keywords} == asked
    for key in keywords.keys() - loading:
        setattr(ours, key, type(ours).model_fields[key].get_default(call_default_factory=True))
    if "zh" not in name:
        np.testing.assert_allclose(ours.embed_query(TEXTS[0]), before, atol=1e-6)


def test_keys_of_encode_kwargs_count_from_the_next_call_on(folder: Path) -> None:
    number = CASES.index(("bge-tiny-zh", {"encode_kwargs": {"normalize_embeddings": True}}))
    ours = HuggingFaceBgeEmbeddings(model_name=str(folder / "bge-tiny-zh"))
    ours.encode_kwargs["normalize_embeddings"] = True
    np.testing.assert_allclose(
        ours.embed_documents(TEXTS), RECORDED[f"{number}.documents"], atol=1e-5
    )
    assert ours.client.options.normalize is True
    ours.encode_kwargs["normalise"] = True
    with pytest.raises(TypeError, match="unknown keys: normalise"):
        ours.embed_query("panda")
    with pytest.raises(TypeError, match="unknown keys: normalise"):
        ours.encode_kwargs = {"normalise": True}
    del ours.encode_kwargs["normalise"]
    with pytest.warns(LangChainDeprecationWarning, match="show_progress_bar"):
        ours.encode_kwargs = {"show_progress_bar": True}
    assert (ours.show_progress, ours.encode_kwargs) == (True, {})


def test_assignments_are_checked_and_another_model_is_an_error(folder: Path) -> None:
    ours = HuggingFaceBgeEmbeddings(model_name=str(folder / "bge-tiny-en-v1.5"))
    with pytest.raises(ValidationError, match="query_instruction"):
        ours.query_instruction = 3
    for name, value in (("model_name", "x"), ("cache_folder", "x"), ("model_kwargs", {})):
        with pytest.raises(ValidationError, match="make a new object"):
            setattr(ours, name, value)
    with pytest.raises(TypeError, match=r"client must be an m3_core\.Encoder; got str"):
        ours.client = "client"
    ours.client = Encoder.from_pretrained(
        folder / "bge-tiny-en-v1.5", device="cpu", dtype="float32", max_length=5
    )
    assert (ours.client.max_length, ours.client.query_instruction) == (5, ENGLISH)
