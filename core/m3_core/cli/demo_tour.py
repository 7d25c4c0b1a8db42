"""The demo from end to end: load, ask, show, the two frameworks, what next."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from m3_core.cli.demo_frameworks import SNIPPETS
from m3_core.cli.demo_search import (
    DEPTH,
    LANGUAGES,
    TOUR,
    WEIGHTS,
    Corpus,
    Question,
    read_passages,
    read_questions,
)
from m3_core.cli.demo_view import (
    asked,
    heading,
    indented,
    make_console,
    passages,
    show,
    snippet_beside,
    suggestions,
    survey,
)
from m3_core.cli.demo_words import find_matches

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rich.console import Console

    from m3_core.cli.demo_search import Answer, Hit

FRAMEWORK_QUESTION = "What do pandas eat?"
# What to type and what for, by the command that must be there.
NEXT = {
    "demo": ('demo "Warum bebt die Erde?"', "your own question to these texts"),
    "index": ("index FOLDER --to INDEX", "a folder of your own texts"),
    "search": ('search INDEX "a question"', "and what is found in it"),
    "explain": ("explain QUERY DOCUMENT", "why two texts match, word by word"),
    "evaluate": ("evaluate --help", "how well it finds, on your data"),
    "serve": ("serve m3-small", "a service over HTTP"),
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """Passages ready to be asked, and how long that took.

    Attributes:
        corpus: The passages.
        loading: Seconds until the model was there.
        encoding: Seconds in which it encoded them.
    """

    corpus: Corpus
    loading: float
    encoding: float


def load(model: str) -> Loaded:
    """Load a model and encode the passages, saying so meanwhile where somebody watches.

    Args:
        model: An embedded model, a folder or a hub repository.

    Returns:
        The encoded passages.

    Raises:
        M3Error: The model cannot be loaded, or gives fewer than three representations.
    """
    # What was loaded is said in its place.
    logging.getLogger("m3_core").setLevel(logging.WARNING)
    begin = time.perf_counter()
    with make_console(stderr=True).status(f"Loading {model} …") as status:
        from m3_core import shared_encoder

        encoder = shared_encoder(model)
        loaded = time.perf_counter()
        found = read_passages()
        status.update(f"Encoding {len(found)} passages …")
        corpus = Corpus(encoder, found)
    return Loaded(corpus, loaded - begin, time.perf_counter() - loaded)


def found(loaded: Loaded, questions: Sequence[str]) -> list[dict[str, Any]]:
    """Say what is found, for other programs.

    Args:
        loaded: What to search.
        questions: What to search for; the tour's own questions if there are none.

    Returns:
        For each question the first ten of each ranking, and the words that matched in the first of
        the hybrid one.
    """
    corpus = loaded.corpus
    own = [Question(text) for text in questions]
    return [
        answer.as_dict()
        | {"matches": find_matches(corpus, answer, answer.rankings["hybrid"][0]).as_dict()}
        for answer in corpus.ask(own or [*TOUR, *read_questions()])
    ]


def answer(loaded: Loaded, questions: Sequence[str]) -> None:
    """Show what a user's questions find.

    Args:
        loaded: What to search.
        questions: The questions.
    """
    console = make_console()
    _introduce(console, loaded)
    for one in loaded.corpus.ask([Question(text, shown=5) for text in questions]):
        _show(console, loaded.corpus, one, one.rankings["hybrid"][:3])


def tour(loaded: Loaded, model: str, commands: Collection[str]) -> None:
    """Show everything.

    Args:
        loaded: What to search.
        model: What the frameworks shall load.
        commands: Which commands there are to go on with.
    """
    console, corpus = make_console(), loaded.corpus
    _introduce(console, loaded)
    answers = corpus.ask([*TOUR, *read_questions()])
    for one in answers[: len(TOUR)]:
        hits = one.rankings["hybrid"]
        on_topic = [hit for hit in hits if one.is_right(hit)]
        _show(console, corpus, one, on_topic if one.question.shown == DEPTH else hits[:1])
    _count(console, answers[len(TOUR) :])
    _frameworks(console, [passage.text for passage in corpus.passages], model)
    _suggest(console, commands)


def _introduce(console: Console, loaded: Loaded) -> None:
    corpus = loaded.corpus
    languages = len({passage.language for passage in corpus.passages})
    show(
        console,
        f"{corpus.encoder.name}, loaded in {loaded.loading:.1f} s. {len(corpus.passages)} passages "
        f"in {languages} languages went through it once each, in {loaded.encoding:.1f} s, which "
        "gave dense vectors, lexical weights and multi-vectors. Hybrid weighs all three, "
        "{} / {} / {}.".format(*WEIGHTS),
    )


def _show(console: Console, corpus: Corpus, answer: Answer, hits: Sequence[Hit]) -> None:
    """Show a question with its rankings, and passages with the words that matched in them."""
    # Where the passages of a whole ranking follow, each says why itself.
    names = ("sparse", "colbert") if answer.question.shown < DEPTH else ()
    firsts = {name: answer.rankings[name][0] for name in names if answer.rankings[name]}
    why = {name: find_matches(corpus, answer, hit) for name, hit in firsts.items()}
    matched = [(hit, find_matches(corpus, answer, hit)) for hit in hits]
    show(
        console,
        asked(answer, why, console.width),
        "",
        indented(passages(matched, console.width, reasons=len(hits) > 1)),
    )


def _count(console: Console, answers: Sequence[Answer]) -> None:
    english = [answer for answer in answers if answer.question.language == "en"]
    others = [answer for answer in answers if answer.question.language != "en"]
    first = sum(bool(answer.is_first_right("hybrid")) for answer in answers)
    in_english, in_others = (
        f"{sum(len(answer.languages('hybrid')) for answer in some)} of {len(some) * len(LANGUAGES)}"
        for some in (english, others)
    )
    note = (
        f"The first hit of hybrid is right for {first} of {len(answers)} plain questions. The same "
        f"passage in all languages among its first ten: {in_english} for questions in English, "
        f"{in_others} for the others."
    )
    show(
        console,
        heading("How far it carries"),
        indented(note),
        "",
        indented(survey([*english, *others], console.width)),
    )


def _frameworks(console: Console, texts: Sequence[str], model: str) -> None:
    waiting, question = make_console(stderr=True), FRAMEWORK_QUESTION
    for snippet in SNIPPETS:
        if snippet.is_installed:
            with waiting.status(f"Running {snippet.framework} …"):
                lines = snippet.run(texts, question, model)
        else:
            lines = [f"{snippet.framework} is not installed: {snippet.remedy}"]
        given = f"{model = }, {question = }, texts: the passages"
        show(console, snippet_beside(snippet, given, lines, console.width))


def _suggest(console: Console, commands: Collection[str]) -> None:
    rows = {
        f"m3-retrieval {typed}": meaning
        for name, (typed, meaning) in NEXT.items()
        if name in commands
    }
    rows["cookbook/ (in the source)"] = "notebooks, to run and to change"
    show(console, heading("What next"), indented(suggestions(rows)))
