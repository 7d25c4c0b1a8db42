"""``m3-retrieval demo``."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from m3_core.cli.commands import new_app, write

if TYPE_CHECKING:
    from collections.abc import Collection

    from rich.console import Console

    from m3_core.cli.demo_search import Corpus

app = new_app()

EMBEDDED = "m3-small"
FRAMEWORK_QUESTION = "What do pandas eat?"
# Shown where the command exists.
NEXT = {
    "demo": ('demo "Warum bebt die Erde?"', "ask these passages your own question"),
    "index": ("index FOLDER --to my-index", "your own texts, Markdown, HTML or JSON lines"),
    "search": ('search my-index "a question"', "and questions about them"),
    "explain": ("explain QUERY DOCUMENT", "which words matched, and by how much"),
    "evaluate": ("evaluate --help", "measure it on your data"),
    "serve": ("serve m3-small", "over HTTP, for OpenAI's, Cohere's and other clients"),
}


@app.command()
def demo(
    context: typer.Context,
    questions: Annotated[
        list[str] | None, Argument(help="Questions of your own, in place of the tour.")
    ] = None,
    *,
    model: Annotated[
        str,
        Option(envvar="M3_MODEL", help="The embedded model, a folder or a hub repository."),
    ] = EMBEDDED,
    json: Annotated[
        bool, Option("--json", help="Print what is found as JSON, without the frameworks.")
    ] = False,
) -> None:
    """Search passages in seven languages: what each representation finds, and what hybrid does."""
    from m3_core.cli import demo_search, demo_view

    # What was loaded is shown below, in its place.
    logging.getLogger("m3_core").setLevel(logging.WARNING)
    console = demo_view.make_console()
    own = [demo_search.Question(text, shown=5) for text in questions or []]
    corpus, seconds = _load(model)
    if json:
        answers = corpus.ask(own or [*demo_search.QUESTIONS, *demo_search.SURVEY])
        write({"model": model, "answers": [answer.as_dict() for answer in answers]})
        return
    _introduce(console, corpus, seconds)
    if own:
        for answer in corpus.ask(own):
            console.print(demo_view.asked(answer))
            console.print()
            console.print(demo_view.indented(demo_view.passages(answer.rankings["hybrid"][:5])))
        return
    _tour(console, corpus)
    _frameworks(console, corpus, model)
    _suggest(console, _commands(context))


def _load(model: str) -> tuple[Corpus, tuple[float, float]]:
    """Load the model and encode the passages, saying so meanwhile where somebody watches."""
    from m3_core.cli import demo_search, demo_view

    begin = time.perf_counter()
    with demo_view.make_console(stderr=True).status(f"Loading {model} …") as status:
        from m3_core import shared_encoder

        encoder = shared_encoder(model)
        loaded = time.perf_counter()
        found = demo_search.read_passages()
        status.update(f"Encoding {len(found)} passages …")
        corpus = demo_search.Corpus(encoder, found)
    return corpus, (loaded - begin, time.perf_counter() - loaded)


def _introduce(console: Console, corpus: Corpus, seconds: tuple[float, float]) -> None:
    encoder = corpus.encoder
    languages = len({passage.language for passage in corpus.passages})
    loading, encoding = seconds
    console.print(
        f"{encoder.name}, loaded in {loading:.1f} s. {len(corpus.passages)} passages in {languages} "
        f"languages went through it once each, in {encoding:.1f} s: that gave dense vectors, "
        "lexical weights and multi-vectors. Hybrid is the three together. ✓: the first hit is "
        "about what was asked."
    )


def _tour(console: Console, corpus: Corpus) -> None:
    from m3_core.cli import demo_search, demo_view

    asked = demo_search.QUESTIONS
    answers = corpus.ask([*asked, *demo_search.SURVEY])
    for answer in answers[: len(asked)]:
        hits = answer.rankings["hybrid"]
        is_deep = answer.question.shown == demo_search.DEPTH
        shown = [hit for hit in hits if answer.is_right(hit)] if is_deep else hits[:1]
        console.print(demo_view.asked(answer))
        console.print()
        console.print(demo_view.indented(demo_view.passages(shown)))
    surveyed = answers[len(asked) :]
    found = sum(len(answer.languages("hybrid")) for answer in surveyed)
    console.print(demo_view.heading("Every topic asked in English"))
    console.print(
        demo_view.indented(
            f"Whether hybrid has the passage in each language among its first ten: {found} of "
            f"{len(surveyed) * len(demo_view.LANGUAGES)}. An English question, and a small model: "
            "bge-m3 itself finds more."
        )
    )
    console.print()
    console.print(demo_view.indented(demo_view.survey(surveyed)))


def _frameworks(console: Console, corpus: Corpus, model: str) -> None:
    from rich.text import Text

    from m3_core.cli import demo_view
    from m3_core.cli.demo_frameworks import SNIPPETS

    texts = [passage.text for passage in corpus.passages]
    waiting = demo_view.make_console(stderr=True)
    for snippet in SNIPPETS:
        if snippet.is_installed:
            with waiting.status(f"Running {snippet.framework} …"):
                lines = snippet.run(texts, FRAMEWORK_QUESTION, model)
            output = demo_view.cut_lines(lines)
        else:
            output = Text(f"{snippet.framework} is not installed: {snippet.remedy}", style="bold")
        console.print(demo_view.snippet(snippet, output, console.width))


def _commands(context: typer.Context) -> Collection[str]:
    group = context.parent.command if context.parent else context.command
    return getattr(group, "commands", {})


def _suggest(console: Console, commands: Collection[str]) -> None:
    from m3_core.cli import demo_view

    rows = {
        f"m3-retrieval {typed}": meaning
        for name, (typed, meaning) in NEXT.items()
        if name in commands
    }
    console.print(demo_view.heading("What next"))
    console.print(demo_view.indented(demo_view.suggestions(rows)))
