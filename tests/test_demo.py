"""The demo keeps its promises: what it says of each question is what is found."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from m3_core import Encoder
from m3_core.cli import demo_tour
from m3_core.cli.cells import width_of
from m3_core.cli.demo_frameworks import SNIPPETS
from m3_core.cli.demo_search import (
    LANGUAGES,
    TOUR,
    Answer,
    Corpus,
    Hit,
    Question,
    read_passages,
    read_questions,
)
from m3_core.cli.demo_view import asked, indented, passages, show, snippet_beside
from m3_core.cli.demo_words import find_matches
from m3_core.cli.main import app

SCRIPTS = {"zh": "[一-鿿]", "ru": "[а-яё]", "hi": "[ऀ-ॿ]", "ar": "[؀-ۿ]"}
MEANING, IDENTIFIER, EVERYWHERE = TOUR


def run(*arguments: str, **environment: str):
    pytest.importorskip("langchain_core")
    pytest.importorskip("llama_index.core")
    environment = {"COLUMNS": "80", "M3_MODEL": "m3-small", **environment}
    return CliRunner().invoke(app, ["demo", *arguments], env=environment)


@pytest.fixture(scope="module", params=["float32", "auto"])
def corpus(request) -> Corpus:
    encoder = Encoder.from_pretrained("m3-small", device="cpu", dtype=request.param)
    return Corpus(encoder, read_passages())


@pytest.fixture(scope="module")
def printed() -> str:
    result = run()
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def test_every_topic_is_told_in_every_language() -> None:
    found = read_passages()
    assert len({passage.id for passage in found}) == len({passage.text for passage in found})
    topics = Counter(passage.topic for passage in found if not passage.topic.startswith("ISO"))
    assert set(topics.values()) == {len(LANGUAGES)}
    for passage in found:
        # A column of a ranking holds so much.
        assert len(passage.topic) <= 8
        letters = re.sub(r"[\W\d_]", "", passage.text)
        own = len(re.findall(SCRIPTS.get(passage.language, "[a-zß-öø-ÿ]"), letters, re.IGNORECASE))
        assert own == len(letters), passage.id
    standards = [passage for passage in found if passage.topic.startswith("ISO")]
    assert len(standards) == 8
    assert "Eight passages speak of one ISO standard each" in IDENTIFIER.note
    assert all(passage.topic in passage.text for passage in standards)
    asked_in = [question.language for question in read_questions()]
    assert sorted(asked_in[: len(LANGUAGES)]) == sorted(LANGUAGES)
    in_english = {q.topic for q in read_questions() if q.language == "en"}
    assert in_english == set(topics)


def test_dense_finds_the_meaning_lexical_the_identifier_and_hybrid_both(corpus: Corpus) -> None:
    meaning, identifier = corpus.ask([MEANING, IDENTIFIER])
    first = {name: meaning.is_first_right(name) for name in meaning.rankings}
    assert first == {"dense": True, "sparse": False, "colbert": True, "hybrid": True}
    first = {name: identifier.is_first_right(name) for name in identifier.rankings}
    assert first == {"dense": False, "sparse": True, "colbert": True, "hybrid": True}


def test_one_question_finds_its_topic_in_all_seven_languages(corpus: Corpus) -> None:
    (answer,) = corpus.ask([EVERYWHERE])
    for ranking in ("dense", "colbert", "hybrid"):
        assert len(answer.rankings[ranking]) == 10
        assert set(answer.languages(ranking)) == set(LANGUAGES)
    assert answer.languages("hybrid")[0] == "en"


def test_plain_questions_in_any_language_find_their_topic(corpus: Corpus) -> None:
    answers = corpus.ask(read_questions())
    assert all(answer.is_first_right("hybrid") for answer in answers)
    english = [answer for answer in answers if answer.question.language == "en"]
    assert sum(len(answer.languages("hybrid")) for answer in english) >= 60  # of 70


def test_words_that_matched_are_whole_words_of_the_passage(corpus: Corpus) -> None:
    answers = corpus.ask(TOUR)
    for answer in answers:
        for hit in answer.rankings["hybrid"]:
            matches = find_matches(corpus, answer, hit)
            text = hit.passage.text
            for match in (*matches.sparse, *matches.colbert):
                assert match.query in answer.question.text
                assert match.document in {text[start:end] for start, end in match.places}
            for start, end in matches.places:
                if hit.passage.language in ("en", "de", "es", "ru"):
                    around = text[max(start - 1, 0) : start] + text[end : end + 1]
                    assert not any(map(str.isalnum, around))
    everywhere = answers[2]
    german = next(h for h in everywhere.rankings["hybrid"] if h.passage.language == "de")
    close = {(m.query, m.document) for m in find_matches(corpus, everywhere, german).colbert}
    assert {("vaccine", "Impfstoff"), ("body", "Körper")} <= close
    (tea,) = answers[1].rankings["hybrid"][:1]
    assert str(find_matches(corpus, answers[1], tea).sparse[0]) == "3103"


def test_in_a_pipe_it_is_plain_text_of_80_columns(printed: str) -> None:
    lines = printed.splitlines()
    assert "\x1b" not in printed
    assert all(width_of(line) <= 80 and line == line.rstrip() for line in lines)
    for question in (*TOUR, *read_questions()):
        assert question.text in printed
    assert "dense ✓             lexical ✗           multi-vector ✓      hybrid ✓" in printed
    assert "dense ✗             lexical ✓           multi-vector ✓      hybrid ✓" in printed
    assert "vaccine → Impfstoff · body → Körper" in printed


def test_the_readme_shows_what_it_prints(printed: str) -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```text\n(\? .*?)```", readme, re.DOTALL)
    lines = shown.splitlines()
    assert len(lines) > 5
    assert all(line.rstrip(" …") in printed for line in lines)


def test_the_code_that_is_shown_is_the_code_that_ran(printed: str) -> None:
    lines = [line.strip() for line in printed.splitlines()]
    panda = next(p.text for p in read_passages() if p.id == "panda-en")
    for snippet in SNIPPETS:
        code = [line.strip() for line in snippet.code.splitlines()]
        assert len(code) == 5
        at = lines.index(code[0])
        assert lines[at : at + 5] == code
        assert panda.startswith(lines[at + 6].rstrip("…"))
        texts = ["Rivers flow into the sea.", "Pandas eat bamboo."]
        assert snippet.run(texts, "What do pandas eat?", "m3-small")[0] == texts[1]


def test_what_is_suggested_exists(printed: str) -> None:
    group = CliRunner().invoke(app, ["--help"]).output
    suggested = re.findall(r"^  m3-retrieval (\w+)", printed, re.MULTILINE)
    assert suggested[0] == "demo"
    assert all(re.search(rf"\b{name}\b", group) for name in suggested)


def test_a_framework_that_is_absent_is_said_with_what_installs_it(monkeypatch) -> None:
    monkeypatch.setattr(
        demo_tour,
        "SNIPPETS",
        [replace(SNIPPETS[0], package="no_such.framework"), replace(SNIPPETS[1], package="absent")],
    )
    result = run()
    assert result.exit_code == 0
    for name, extra in (("LangChain", "langchain"), ("LlamaIndex", "llamaindex")):
        said = f"{name} is not installed: pip install 'm3-retrieval[{extra}]'"
        assert said in result.stdout


def test_questions_of_ones_own() -> None:
    result = run("Warum bebt die Erde?", "--json")
    assert result.exit_code == 0, result.output
    (answer,) = json.loads(result.stdout)["answers"]
    assert answer["topic"] is None
    assert answer["rankings"]["hybrid"][0]["id"] == "quake-de"
    assert not any(answer["languages"].values())
    result = run("Warum bebt die Erde?")
    assert "Your question" in result.stdout
    assert "✓" not in result.stdout


def test_a_question_that_shares_no_word_has_no_lexical_ranking() -> None:
    hits = [Hit(passage, 0.5) for passage in read_passages()[:3]]
    rankings = {"dense": hits, "sparse": [], "colbert": hits, "hybrid": hits}
    answer = Answer(Question("?", "panda"), rankings)
    console = Console(file=io.StringIO(), width=80)
    show(console, asked(answer, {}, 80))
    lines = console.file.getvalue().splitlines()
    assert "  dense ✓             lexical ✗           multi-vector ✓      hybrid ✓" in lines
    cell = "en panda     0.500"
    assert f"  {cell}{' ' * 22}{cell}  {cell}" in lines


@pytest.mark.parametrize("width", [40, 80, 118, 160])
def test_on_a_terminal_it_fits_any_width(corpus: Corpus, width: int) -> None:
    answers = corpus.ask(TOUR)
    console = Console(
        file=io.StringIO(), force_terminal=True, width=width, color_system="standard", _environ={}
    )
    for answer in answers:
        hits = [(hit, find_matches(corpus, answer, hit)) for hit in answer.rankings["hybrid"]]
        show(console, asked(answer, {}, width), indented(passages(hits, width, reasons=True)))
    show(console, snippet_beside(SNIPPETS[0], "texts", ["OUTPUT " * 40], width))
    colours = console.file.getvalue()
    assert "\x1b[" in colours
    lines = re.sub(r"\x1b\[[\d;]*m", "", colours).splitlines()
    assert all(width_of(line) <= width for line in lines)
    beside = any("print(" in line or "import" in line for line in lines if "OUTPUT" in line)
    assert beside == (width >= 118)
    # Scores are never cut, however narrow it is.
    assert all(f"{a.rankings['dense'][0].score:.3f}" in colours for a in answers)


def test_a_model_that_cannot_serve_ends_it_with_the_reason(tmp_path, tiny_dense) -> None:
    result = run("--model", str(tmp_path / "none"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no such folder" in result.stderr
    result = run(M3_MODEL=str(tiny_dense))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "sparse and colbert is needed here" in result.stderr or "load an M3" in result.stderr
