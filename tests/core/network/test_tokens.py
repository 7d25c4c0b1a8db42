from __future__ import annotations

import json
import threading
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RawTokenizer

from m3_core.errors import CorruptCheckpointError
from m3_core.network.tokens import Tokenizer
from m3_core.texts import check_pairs, check_texts


@pytest.fixture(scope="module", params=["m3", "bge"])
def folder(request: pytest.FixtureRequest, tiny_m3: Path, tiny_bge: Path) -> Path:
    return tiny_m3 if request.param == "m3" else tiny_bge


def rows(tokenizer: Tokenizer, texts: list[str], limit: int) -> list[list[int]]:
    batch = tokenizer.encode(texts, limit)
    parts = np.split(batch.ids, batch.offsets[1:-1])
    return [part.tolist() for part in parts] if texts else []


@settings(max_examples=80)
@given(st.lists(st.text(max_size=60), max_size=4), st.integers(3, 40))
def test_ids_are_the_files_and_cut_before_the_last_special(
    folder: Path, texts: list[str], limit: int
) -> None:
    raw = RawTokenizer.from_file(str(folder / "tokenizer.json"))
    ours = rows(Tokenizer.from_folder(folder), texts, limit)
    for text, ids in zip(texts, ours, strict=True):
        whole = raw.encode(text).ids
        assert ids == (whole if len(whole) <= limit else [*whole[: limit - 1], whole[-1]])


def test_cut_texts_are_reported(folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder)
    batch = tokenizer.encode(["panda bear river", "panda", ""], 4)
    assert batch.truncated.tolist() == [True, False, False]
    assert batch.lengths.tolist() == [4, 3, 2]
    with pytest.raises(ValueError, match="special tokens alone need 2"):
        tokenizer.encode(["a"], 1)


@pytest.mark.parametrize(
    "text",
    [
        "panda river " * 60_000,
        "大熊猫世界" * 60_000,
        "x" * 300_000,
        "pandariver" * 30_000,
        "e\u0301" * 150_000,
        ("word " * 3 + "字" * 5000) * 60,
        # They grow when they are normalised: by 18, 6, 3 and 2; and marks that change places.
        "\ufdfa" * 9_000,
        "\u3300" * 20_000,
        "\ufb03" * 50_000,
        "x\ufdfa\u00ad" * 9_000,
        ("e" + "\u0315\u0316" * 40) * 1_500,
        "\n\n" * 150_000 + "panda",
    ],
)
@pytest.mark.parametrize("limit", [5, 300])
def test_long_texts_are_cut_by_characters_without_changing_ids(
    folder: Path, text: str, limit: int
) -> None:
    raw = RawTokenizer.from_file(str(folder / "tokenizer.json"))
    whole = raw.encode(text, add_special_tokens=False).ids
    batch = Tokenizer.from_folder(folder).encode([text], limit)
    assert batch.ids[1:-1].tolist() == whole[: limit - 2]
    assert batch.truncated.tolist() == [len(whole) > limit - 2]


def test_a_huge_text_is_not_tokenised_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.from_folder(folder)
    seen: list[int] = []
    original = tokenizer._encode
    monkeypatch.setattr(
        tokenizer, "_encode", lambda texts: seen.extend(map(len, texts)) or original(texts)
    )
    tokenizer.encode(["panda river " * 1_000_000], 512)
    assert sum(seen) < 100_000


@pytest.mark.parametrize("text", ["\ufdfa" * 100_000, ("x\ufdfa" * 40 + " ") * 2_000])
def test_a_text_that_grows_is_not_normalised_whole(folder: Path, text: str) -> None:
    seen: list[int] = []

    class Seen:
        def __init__(self, raw: RawTokenizer) -> None:
            self.raw = raw

        def __getattr__(self, name: str) -> object:
            return getattr(self.raw, name)

        def encode(self, text: str, **options: object) -> object:
            seen.append(len(unicodedata.normalize("NFKC", text)))
            return self.raw.encode(text, **options)

        def encode_batch_fast(self, texts: list[str], **options: object) -> object:
            seen.extend(len(unicodedata.normalize("NFKC", text)) for text in texts)
            return self.raw.encode_batch_fast(texts, **options)

    tokenizer = Tokenizer.from_folder(folder)
    tokenizer._raw = Seen(tokenizer._raw)
    batch = tokenizer.encode([text], 512)
    if folder.name == "m3":
        assert batch.truncated.tolist() == [True]
        assert sum(seen) < 40_000


def test_markers_stand_before_every_so_many_tokens(tiny_m3: Path) -> None:
    tokenizer = Tokenizer.from_folder(tiny_m3)
    (plain,) = rows(tokenizer, ["panda " * 10], 100)
    batch = tokenizer.encode(["panda " * 10], 100, marker_every=4)
    cls, body, eos = plain[0], plain[1:-1], plain[-1]
    assert batch.ids.tolist() == [cls, *body[:4], cls, *body[4:8], cls, *body[8:], eos]
    assert tokenizer.encode(["panda " * 10], 8, marker_every=4).lengths.tolist() == [8]


def test_threads_with_other_lengths_do_not_disturb(folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder)
    texts = ["panda river city " * 30] * 20
    expected = {limit: rows(tokenizer, texts, limit) for limit in (4, 9, 60)}
    wrong: list[int] = []

    def work(limit: int) -> None:
        wrong.extend(limit for _ in range(20) if rows(tokenizer, texts, limit) != expected[limit])

    threads = [threading.Thread(target=work, args=(limit,)) for limit in [4, 9, 60] * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_special_ids_come_from_the_files(tiny_m3: Path, tiny_bge: Path) -> None:
    m3, bge = Tokenizer.from_folder(tiny_m3), Tokenizer.from_folder(tiny_bge)
    assert m3.unweighted_ids.tolist() == [0, 1, 2, 3]
    assert bge.unweighted_ids.tolist() == [0, 1, 2]
    assert (m3.prefix, m3.suffix) == ((0,), (2,))


def test_special_ids_are_guessed_without_the_files(tiny_m3: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((tiny_m3 / "tokenizer.json").read_bytes())
    assert Tokenizer.from_folder(tmp_path).unweighted_ids.tolist() == [0, 1, 2, 3]


def test_unusable_files_are_named(tmp_path: Path, tiny_m3: Path) -> None:
    with pytest.raises(CorruptCheckpointError, match=r"has no tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(CorruptCheckpointError, match="cannot be read"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((tiny_m3 / "tokenizer.json").read_bytes())
    (tmp_path / "special_tokens_map.json").write_text("[")
    with pytest.raises(CorruptCheckpointError, match="readable as JSON"):
        Tokenizer.from_folder(tmp_path)


def test_texts_are_checked() -> None:
    assert check_texts(text for text in ("a", "", " ")) == ["a", "", " "]
    for bad in ("one string", b"bytes", None, 5):
        with pytest.raises(TypeError, match="must be a list"):
            check_texts(bad)
    for bad in (None, b"x", 1.5):
        with pytest.raises(TypeError, match="text 1 is of type"):
            check_texts(["fine", bad])
    with pytest.raises(ValueError, match=r"text 1 holds the lone surrogate.*character 1"):
        check_texts(["fine", "a\ud800"])


def test_pairs_are_checked() -> None:
    assert check_pairs([("q", "d"), ["q2", "d2"]]) == (["q", "q2"], ["d", "d2"])
    assert check_pairs([]) == ([], [])
    for bad in (("q", "d"), [("a", "b", "c")], ["ab"], [None]):
        with pytest.raises(TypeError, match="pair 0 must be"):
            check_pairs(bad)
    with pytest.raises(TypeError, match="pairs must be a list"):
        check_pairs("ab")
    with pytest.raises(TypeError, match="text 0 is of type NoneType"):
        check_pairs([("a", None)])


def test_tokenizer_file_is_plain_json(folder: Path) -> None:
    assert json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
